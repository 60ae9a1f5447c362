package admin_test

import (
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	actionv3 "github.com/execgate/execgate/gen/zitadel/resources/action/v3alpha"
	"github.com/execgate/execgate/internal/testkit"
	"github.com/execgate/execgate/store"
)

// gateways starts n admin servers on one store: n of them on one Redis, or one on an embedded file, twice at hand.
func gateways(t *testing.T, kind string, n int) []*fixture {
	t.Helper()
	if kind == "embedded" {
		f := start(t)
		all := make([]*fixture, n)
		for i := range all {
			all[i] = f
		}
		return all
	}
	redis := testkit.StartRedis(t, testkit.RedisOptions{})
	all := make([]*fixture, n)
	for i := range all {
		all[i] = startOn(t, openRedis(t, redis.URL))
	}
	return all
}

func openRedis(t *testing.T, url string) store.Store {
	t.Helper()
	s, err := store.OpenRedis(store.RedisOptions{URL: url, Instance: instance})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

var storeKinds = []string{"embedded", "redis"}

func TestOfAHundredClientsThatCreateOneNameOneWins(t *testing.T) {
	t.Parallel()
	for _, kind := range storeKinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			all := gateways(t, kind, 2)
			var mu sync.Mutex
			outcomes := make(map[codes.Code]int)
			var wg sync.WaitGroup
			for i := range 100 {
				wg.Go(func() {
					name := "the one"
					if i%3 == 0 {
						name = "THE ONE"
					}
					_, out := all[i%2].call(tableProtocols[i/2%2], newTarget(name))
					mu.Lock()
					defer mu.Unlock()
					outcomes[out.code]++
				})
			}
			wg.Wait()
			if outcomes[codes.OK] != 1 || outcomes[codes.AlreadyExists] != 99 {
				t.Errorf("%v", outcomes)
			}
		})
	}
}

func TestConcurrentWritersLoseNoUpdate(t *testing.T) {
	t.Parallel()
	for _, kind := range storeKinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			all := gateways(t, kind, 2)
			id := all[0].target("a")
			const writers, each = 4, 10
			var wg sync.WaitGroup
			for w := range writers {
				wg.Go(func() {
					for i := range each {
						timeout := durationpb.New(time.Duration(1+w*each+i) * time.Second)
						all[w%2].must(&actionv3.PatchTargetRequest{Id: id, Target: &actionv3.PatchTarget{Timeout: timeout}})
						all[w%2].must(newTarget(fmt.Sprintf("w%d-%d", w, i)))
					}
				})
			}
			wg.Wait()
			if got := all[1].getV3(id).GetDetails().GetSequence(); got != 1+writers*each {
				t.Errorf("sequence %d, want %d", got, 1+writers*each)
			}
			res := all[0].must(targets()).(*actionv3.SearchTargetsResponse)
			if got := res.GetDetails().GetTotalResult(); got != 1+writers*each {
				t.Errorf("%d targets, want %d", got, 1+writers*each)
			}
		})
	}
}

func TestAWriteIsReadAtOnceThroughEveryGateway(t *testing.T) {
	t.Parallel()
	all := gateways(t, "redis", 2)
	for i := range 20 {
		id := all[i%2].target(fmt.Sprintf("t%d", i))
		if _, out := all[(i+1)%2].call(overGRPC, &actionv3.GetTargetRequest{Id: id}); out.code != codes.OK {
			t.Fatalf("%d: %+v", i, out)
		}
	}
}

func TestWithTheStoreAwayReadsGoOnAndWritesAreRefusedWithAHint(t *testing.T) {
	t.Parallel()
	redis := testkit.StartRedis(t, testkit.RedisOptions{AOF: true})
	f := startOn(t, openRedis(t, redis.URL))
	id := f.target("a")
	f.put(requestAll(), []string{id})
	redis.Stop()
	for _, p := range allProtocols {
		if _, out := f.call(p, &actionv3.GetTargetRequest{Id: id}); out.code != codes.OK {
			t.Errorf("%s: a read: %+v", p, out)
		}
		for _, req := range []proto.Message{
			newTarget("b"), newTargetV2("b"), &actionv3.DeleteTargetRequest{Id: id}, putRequest(responseAll(), []string{id}),
			&actionv3.DeleteExecutionRequest{Id: "request"}, v2Set(v2RequestAll()),
		} {
			_, out := f.call(p, req)
			wantError(t, p, out, codes.Unavailable, "", "try")
		}
	}
	redis.Restart()
	for {
		if _, out := f.call(overREST, newTarget("b")); out.code == codes.OK {
			break
		} else if out.code != codes.Unavailable && out.code != codes.AlreadyExists {
			t.Fatalf("%+v", out)
		}
		if t.Context().Err() != nil {
			t.Fatal("the store does not come back")
		}
	}
}

func TestBeforeAnyStateIsKnownReadsAreUnavailable(t *testing.T) {
	t.Parallel()
	redis := testkit.StartRedis(t, testkit.RedisOptions{})
	url := redis.URL
	redis.Stop()
	f := startOn(t, openRedis(t, url))
	for _, req := range []proto.Message{targets(), &actionv3.GetTargetRequest{Id: "1"}, newTarget("a")} {
		_, out := f.call(overREST, req)
		wantError(t, overREST, out, codes.Unavailable, "", "store")
	}
}

func TestResourcesSurviveARestart(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "store.db")
	open := func() *store.Embedded {
		s, err := store.OpenEmbedded(store.EmbeddedOptions{Path: path})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	first := open()
	var id string
	var before *actionv3.GetTarget
	t.Run("first", func(t *testing.T) {
		f := startOn(t, first)
		id = f.target("a")
		f.put(requestAll(), []string{id})
		before = f.getV3(id)
	})
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	second := open()
	t.Cleanup(func() { _ = second.Close() })
	f := startOn(t, second)
	if !proto.Equal(before, f.getV3(id)) || f.executionV3(requestAll()) == nil {
		t.Errorf("before %v, after %v", before, f.getV3(id))
	}
	if _, out := f.call(overGRPC, newTarget("A")); out.code != codes.AlreadyExists {
		t.Errorf("%+v", out)
	}
}

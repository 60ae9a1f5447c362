package store_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/execgate/execgate/internal/testkit"
	"github.com/execgate/execgate/store"
)

// never is a poll interval that plays no part in a test.
const never = time.Hour

func startReplica(t testing.TB, s store.Store, o store.ReplicaOptions) *store.Replica {
	t.Helper()
	if o.Logger == nil {
		o.Logger = slog.New(slog.NewTextHandler(testWriter{t}, nil))
	}
	r := store.NewReplica(s, o)
	if err := r.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stopReplica(t, r) })
	return r
}

func stopReplica(t testing.TB, r *store.Replica) {
	t.Helper()
	ctx, cancel := context.WithTimeout(noContext, 20*time.Second)
	defer cancel()
	if err := r.Stop(ctx); err != nil {
		t.Errorf("stop: %v", err)
	}
}

// testWriter sends log lines to the test's log.
type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}

// redisReplica starts a replica of its own connection to r.
func redisReplica(t testing.TB, r *testkit.Redis, o store.ReplicaOptions) *store.Replica {
	t.Helper()
	return startReplica(t, openRedis(t, store.RedisOptions{URL: r.URL}), o)
}

// put writes one target through a replica.
func put(t testing.TB, r *store.Replica, id, name string) *store.State {
	t.Helper()
	s, err := r.Update(t.Context(), "ops", "put target", func(*store.State) ([]store.Item, error) {
		return []store.Item{targetItem(t, id, name, 0)}, nil
	})
	if err != nil {
		t.Fatalf("update: %v", err)
	}
	return s
}

func within(t testing.TB, limit time.Duration, what string, done func() bool) {
	t.Helper()
	began := time.Now()
	eventually(t, what, done)
	if d := time.Since(began); d > limit {
		t.Fatalf("%s took %v", what, d)
	}
}

func sees(r *store.Replica, want string) func() bool {
	return func() bool {
		s := r.State()
		return s != nil && targetIDs(s) == want
	}
}

func TestReplicaOfEmbedded(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "store.db")
	s := openEmbedded(t, path)
	var ups []bool
	r := startReplica(t, s, store.ReplicaOptions{OnUp: func(up bool) { ups = append(ups, up) }})
	equal(t, r.Up(), true)
	equal(t, r.Err(), nil)
	equal(t, r.State().Revision(), 0)
	equal(t, r.Generation(), 1)
	var told []uint64
	r.Subscribe(func(s *store.State) { told = append(told, s.Revision()) })
	state := put(t, r, "1", "a")
	equal(t, state.Revision(), 1)
	equal(t, r.State(), state)
	equal(t, r.Generation(), 2)
	if state.Time().IsZero() {
		t.Fatal("no time")
	}
	equal(t, put(t, r, "1", "a"), state) // nothing changed, nothing written
	equal(t, put(t, r, "2", "b").Revision(), 2)
	equal(t, fmt.Sprint(told), "[0 1 2]")
	equal(t, fmt.Sprint(ups), "[true]")
	stopReplica(t, r)
	_ = s.Close()

	r = startReplica(t, openEmbedded(t, path), store.ReplicaOptions{})
	equal(t, targetIDs(r.State()), "1 2")
	equal(t, r.State().Revision(), 2)
}

func TestReplicaLifecycle(t *testing.T) {
	t.Parallel()
	r := store.NewReplica(openEmbedded(t, filepath.Join(t.TempDir(), "store.db")), store.ReplicaOptions{})
	stopReplica(t, r)
	if r.State() != nil || r.Up() || r.Err() == nil {
		t.Fatal("a replica that was not started knows something")
	}
	if err := r.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := r.Start(t.Context()); err == nil {
		t.Fatal("started twice")
	}
	stopReplica(t, r)
	stopReplica(t, r)
}

func TestUpdateErrors(t *testing.T) {
	t.Parallel()
	refused := errors.New("no")
	r := startReplica(t, openEmbedded(t, filepath.Join(t.TempDir(), "store.db")), store.ReplicaOptions{
		Check: func(s *store.State) error {
			if s.Target("bad") != nil {
				return refused
			}
			return nil
		},
	})
	before := put(t, r, "1", "a")
	update := func(items ...store.Item) error {
		_, err := r.Update(t.Context(), "", "", func(*store.State) ([]store.Item, error) { return items, nil })
		return err
	}
	mine := errors.New("mine")
	_, err := r.Update(t.Context(), "", "", func(*store.State) ([]store.Item, error) { return nil, mine })
	equal(t, err, mine)
	for name, err := range map[string]error{
		"undecodable": update(store.Item{Kind: store.KindTarget, ID: "2", Value: []byte("{}")}),
		"name taken":  update(targetItem(t, "2", "A", 0)),
		"twice":       update(targetItem(t, "2", "b", 0), targetItem(t, "2", "c", 0)),
		"checked":     update(targetItem(t, "bad", "b", 0)),
	} {
		if err == nil || errors.Is(err, store.ErrConflict) || errors.Is(err, store.ErrUnavailable) {
			t.Fatalf("%s: got error %v", name, err)
		}
	}
	if err := update(targetItem(t, "bad", "b", 0)); !errors.Is(err, refused) {
		t.Fatalf("got error %v", err)
	}
	equal(t, r.State(), before)
	equal(t, r.Up(), true)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.Update(ctx, "", "", nil); !errors.Is(err, context.Canceled) {
		t.Fatalf("got error %v", err)
	}
	equal(t, r.Up(), true)
}

func TestTombstonesAreBounded(t *testing.T) {
	t.Parallel()
	r := startReplica(t, openEmbedded(t, filepath.Join(t.TempDir(), "store.db")), store.ReplicaOptions{})
	bury := func(from, to int) {
		t.Helper()
		_, err := r.Update(t.Context(), "", "", func(*store.State) ([]store.Item, error) {
			var items []store.Item
			for i := from; i < to; i++ {
				dead := &store.Tombstone{ID: strconv.Itoa(i), Sequence: 2, DeletedAt: day.Add(time.Duration(i) * time.Second)}
				one, err := dead.TargetItem()
				if err != nil {
					return nil, err
				}
				items = append(items, one)
			}
			return items, nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	bury(0, store.MaxTombstones)
	equal(t, r.State().Len(store.KindTargetTombstone), store.MaxTombstones)
	bury(store.MaxTombstones, store.MaxTombstones+1)
	equal(t, r.State().Len(store.KindTargetTombstone), store.MaxTombstones*9/10)
	equal(t, r.State().TargetTombstone("1000"), nil)
	if r.State().TargetTombstone("1001") == nil || r.State().TargetTombstone(strconv.Itoa(store.MaxTombstones)) == nil {
		t.Fatal("a newer one was forgotten")
	}
	f, err := r.Fresh(t.Context())
	equal(t, err, nil)
	equal(t, f, r.State())
}

// TestOneNameOneWinner creates one name from many clients at once.
func TestOneNameOneWinner(t *testing.T) {
	t.Parallel()
	taken := errors.New("taken")
	race := func(t *testing.T, replicas ...*store.Replica) {
		const clients = 100
		results := make(chan error, clients)
		for i := range clients {
			go func() {
				_, err := replicas[i%len(replicas)].Update(t.Context(), "", "", func(s *store.State) ([]store.Item, error) {
					if s.TargetByName("NAME") != nil {
						return nil, taken
					}
					return []store.Item{targetItem(t, fmt.Sprint(i), "name", i)}, nil
				})
				results <- err
			}()
		}
		won := 0
		for range clients {
			switch err := <-results; {
			case err == nil:
				won++
			case !errors.Is(err, taken):
				t.Errorf("update: %v", err)
			}
		}
		equal(t, won, 1)
		for _, r := range replicas {
			s, err := r.Fresh(t.Context())
			equal(t, err, nil)
			equal(t, len(s.Targets()), 1)
		}
	}
	t.Run("embedded", func(t *testing.T) {
		t.Parallel()
		race(t, startReplica(t, openEmbedded(t, filepath.Join(t.TempDir(), "store.db")), store.ReplicaOptions{}))
	})
	t.Run("redis", func(t *testing.T) {
		t.Parallel()
		r := testkit.StartRedis(t, testkit.RedisOptions{})
		race(t, redisReplica(t, r, store.ReplicaOptions{}), redisReplica(t, r, store.ReplicaOptions{}),
			redisReplica(t, r, store.ReplicaOptions{}))
	})
}

func TestSeveralReplicasLoseNoUpdate(t *testing.T) {
	t.Parallel()
	r := testkit.StartRedis(t, testkit.RedisOptions{})
	replicas := []*store.Replica{redisReplica(t, r, store.ReplicaOptions{}), redisReplica(t, r, store.ReplicaOptions{}),
		redisReplica(t, r, store.ReplicaOptions{})}
	const each = 30
	var wg sync.WaitGroup
	for i := range 2 * len(replicas) {
		wg.Go(func() {
			for range each {
				_, err := replicas[i%len(replicas)].Update(t.Context(), "", "", func(s *store.State) ([]store.Item, error) {
					v, _ := s.Item("counter", "n")
					n, _ := strconv.Atoi(string(v))
					return []store.Item{{Kind: "counter", ID: "n", Value: []byte(strconv.Itoa(n + 1))}}, nil
				})
				if err != nil {
					t.Errorf("update: %v", err)
				}
			}
		})
	}
	wg.Wait()
	for _, r := range replicas {
		within(t, time.Second, "every replica to see all of it", func() bool {
			v, _ := r.State().Item("counter", "n")
			return string(v) == strconv.Itoa(2*len(replicas)*each)
		})
	}
}

// deaf is a store whose notices are lost.
type deaf struct{ *store.Redis }

func (deaf) Watch(ctx context.Context, _ func(uint64)) error {
	<-ctx.Done()
	return ctx.Err()
}

func TestReplicasSeeAChangeWithinASecond(t *testing.T) {
	t.Parallel()
	r := testkit.StartRedis(t, testkit.RedisOptions{})
	writer := redisReplica(t, r, store.ReplicaOptions{})
	byNotice := redisReplica(t, r, store.ReplicaOptions{PollInterval: never})
	byPoll := startReplica(t, deaf{openRedis(t, store.RedisOptions{URL: r.URL})}, store.ReplicaOptions{})
	onDemand := startReplica(t, deaf{openRedis(t, store.RedisOptions{URL: r.URL})}, store.ReplicaOptions{PollInterval: never})
	eventually(t, "the subscriptions", func() bool {
		return r.Client().PubSubNumSub(t.Context(), "execgate:{default}:changes").Val()["execgate:{default}:changes"] == 2
	})
	want := ""
	for i := range 3 {
		id := strconv.Itoa(i)
		put(t, writer, id, "name "+id)
		want = strings.TrimSpace(want + " " + id)
		within(t, time.Second, "the notice", sees(byNotice, want))
		within(t, time.Second, "the poll", sees(byPoll, want))
		s, err := onDemand.Fresh(t.Context())
		equal(t, err, nil)
		equal(t, targetIDs(s), want)
	}
	// Far behind: more revisions than are read one by one.
	for i := range 250 {
		put(t, writer, "x", fmt.Sprintf("name x%d", i))
	}
	s, err := onDemand.Fresh(t.Context())
	equal(t, err, nil)
	equal(t, s.Revision(), 253)
	equal(t, s.Target("x").Name, "name x249")
	equal(t, s.Head(), writer.State().Head())
}

func TestReplicaCatchesUpOverACompactedLog(t *testing.T) {
	t.Parallel()
	r := testkit.StartRedis(t, testkit.RedisOptions{})
	short := startReplica(t, openRedis(t, store.RedisOptions{URL: r.URL, MaxRevisions: 3}), store.ReplicaOptions{})
	behind := startReplica(t, deaf{openRedis(t, store.RedisOptions{URL: r.URL})}, store.ReplicaOptions{PollInterval: never})
	put(t, short, "0", "0")
	if _, err := behind.Fresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		put(t, short, "1", fmt.Sprintf("name %d", i))
	}
	s, err := behind.Fresh(t.Context())
	equal(t, err, nil)
	equal(t, targetIDs(s), "0 1")
	equal(t, s.Target("1").Name, "name 9")
}

package h2_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/execgate/execgate/proxy/h2"
)

// TestCallsThatAreUsedAgainAreNotMixedUp makes many short calls at once, of which some are given up, answered early, refused or fail:
// each must get its own answer, and the director its own end, whatever became of those that had the same memory before.
func TestCallsThatAreUsedAgainAreNotMixedUp(t *testing.T) {
	t.Parallel()
	u := startGRPC(t, &service{}, grpc.MaxConcurrentStreams(40))
	var mu sync.Mutex
	tags := map[any]int{}
	d := newDirector()
	d.decide = func(h *h2.Head) h2.Action {
		tag := h.Get("x-echo-number")
		h.AddField(h2.NewField("x-forwarded-proto", "http"))
		mu.Lock()
		tags[tag]++
		mu.Unlock()
		return h2.Action{Tag: tag}
	}
	f := newFront(t, u, func(o *h2.Options) { o.Director, o.Observer = d, d })
	var wg sync.WaitGroup
	const workers, each = 12, 40
	for w := range workers {
		client := f.client(t)
		wg.Go(func() {
			random := rand.New(rand.NewPCG(uint64(w), 3))
			for i := range each {
				number := fmt.Sprint(w, "-", i)
				ctx, cancel := context.WithCancel(metadata.AppendToOutgoingContext(testContext(t), "x-echo-number", number))
				in := &testpb.SimpleRequest{Payload: &testpb.Payload{Body: append([]byte(number), make([]byte, random.IntN(3)*random.IntN(30000))...)}}
				kind := random.IntN(8)
				want := codes.OK
				if kind == 0 {
					want = codes.DataLoss
					in.ResponseStatus = &testpb.EchoStatus{Code: int32(want), Message: number}
				}
				if kind == 1 {
					go cancel()
				}
				var header, trailer metadata.MD
				out, err := client.UnaryCall(ctx, in, grpc.Header(&header), grpc.Trailer(&trailer))
				cancel()
				if kind == 1 && status.Code(err) == codes.Canceled {
					continue
				}
				if status.Code(err) != want {
					t.Errorf("call %s: %v", number, err)
					return
				}
				if want == codes.OK && string(out.GetPayload().GetBody()) != string(in.GetPayload().GetBody()) {
					t.Errorf("call %s got another's message", number)
				}
				if got := trailer.Get("trailing-x-echo-number"); len(got) != 1 || got[0] != number {
					t.Errorf("call %s got the trailers %v", number, trailer)
				}
				if got := header.Get("x-echo-number"); want == codes.OK && (len(got) != 1 || got[0] != number) {
					t.Errorf("call %s got the headers %v", number, header)
				}
			}
		})
	}
	wg.Wait()
	// A call that its client gave up may still be on its way: what is looked at is what had come, and ended, at one time.
	var done []h2.Call
	var begun map[any]int
	d.waitFor(t, "the calls' ends", func() bool {
		mu.Lock()
		defer mu.Unlock()
		done, begun = slices.Clone(d.done), maps.Clone(tags)
		return len(done) == len(begun)
	})
	for _, c := range done {
		if begun[c.Tag] != 1 || c.Duration < 0 || c.Duration > testTimeout || c.Start.IsZero() ||
			!c.Canceled && c.Status != http.StatusOK {
			t.Errorf("a call ended as %+v", c)
		}
		delete(begun, c.Tag)
	}
	if len(begun) > 0 {
		t.Errorf("%d calls have not ended", len(begun))
	}
}

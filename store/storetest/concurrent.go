package storetest

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/execgate/execgate/store"
)

// stores opens as many stores on the place as it bears, at most n.
func stores(t testing.TB, b Backend, n int) []store.Store {
	if b.Exclusive {
		n = 1
	}
	all := make([]store.Store, n)
	for i := range all {
		all[i] = open(t, b)
	}
	return all
}

func testOneWinner(t *testing.T, b Backend) {
	all := stores(t, b, 4)
	const writers, rounds = 100, 5
	for base := range uint64(rounds) {
		var won atomic.Int64
		var wg sync.WaitGroup
		for i := range writers {
			wg.Go(func() {
				_, err := all[i%len(all)].Commit(t.Context(), store.Commit{
					Base: base, Items: []store.Item{item("a", strconv.Itoa(i)), item("b", strconv.Itoa(i))},
				})
				switch {
				case err == nil:
					won.Add(1)
				case !errors.Is(err, store.ErrConflict):
					t.Errorf("commit: %v", err)
				}
			})
		}
		wg.Wait()
		equal(t, "winners", won.Load(), 1)
		d := load(t, all[0])
		equal(t, "revision", d.Revision, base+1)
		equal(t, "items", len(d.Items), 2)
		equal(t, "both items", string(d.Items[0].Value), string(d.Items[1].Value))
	}
	revs, err := all[0].Revisions(t.Context(), 0, 0)
	if err != nil || len(revs) != rounds {
		t.Fatalf("got %d revisions, %v", len(revs), err)
	}
}

func testNoLostUpdate(t *testing.T, b Backend) {
	all := stores(t, b, 4)
	const writers, each = 8, 10
	var wg sync.WaitGroup
	for i := range writers {
		s := all[i%len(all)]
		wg.Go(func() {
			for range each {
				for {
					d, err := s.Load(t.Context())
					if err != nil {
						t.Errorf("load: %v", err)
						return
					}
					n := 0
					if len(d.Items) > 0 {
						n, _ = strconv.Atoi(string(d.Items[0].Value))
					}
					_, err = s.Commit(t.Context(), store.Commit{
						Base: d.Revision, Epoch: d.Epoch, Items: []store.Item{item("n", strconv.Itoa(n+1))},
					})
					if err == nil {
						break
					}
					if !errors.Is(err, store.ErrConflict) {
						t.Errorf("commit: %v", err)
						return
					}
				}
			}
		})
	}
	wg.Wait()
	d := load(t, all[0])
	equal(t, "counter", string(d.Items[0].Value), strconv.Itoa(writers*each))
	equal(t, "revision", d.Revision, writers*each)
}

func testAtomicLoad(t *testing.T, b Backend) {
	all := stores(t, b, 2)
	commit(t, all[0], 0, item("a", "0"), item("b", "0"), item("c", "0"))
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(done)
		for i := range uint64(100) {
			v := strconv.FormatUint(i+1, 10)
			_, err := all[0].Commit(t.Context(), store.Commit{Base: i + 1, Items: []store.Item{item("a", v), item("b", v), item("c", v)}})
			if err != nil {
				t.Errorf("commit: %v", err)
				return
			}
		}
	})
	for loop := true; loop; {
		select {
		case <-done:
			loop = false
		default:
		}
		d := load(t, all[len(all)-1])
		for _, it := range d.Items {
			if string(it.Value) != strconv.FormatUint(d.Revision-1, 10) {
				t.Fatalf("revision %d holds %s=%s", d.Revision, it.ID, it.Value)
			}
		}
	}
	wg.Wait()
}

// watcher watches a store until the test ends.
func watcher(t *testing.T, s store.Store) <-chan uint64 {
	ctx, cancel := context.WithCancel(t.Context())
	told := make(chan uint64, 100)
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := s.Watch(ctx, func(rev uint64) { told <- rev }); !errors.Is(err, context.Canceled) {
			t.Errorf("watch ended with %v", err)
		}
	})
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
	return told
}

func waitFor(t *testing.T, told <-chan uint64, want uint64, within time.Duration) {
	t.Helper()
	timeout := time.After(within)
	for {
		select {
		case rev := <-told:
			if rev == want {
				return
			}
		case <-timeout:
			t.Fatalf("watcher was not told of revision %d within %v", want, within)
		}
	}
}

func testWatch(t *testing.T, b Backend) {
	s := open(t, b)
	first, second := watcher(t, s), watcher(t, s)
	waitFor(t, first, 0, patience)
	waitFor(t, second, 0, patience)
	for rev := range uint64(3) {
		commit(t, s, rev, item("a", "1"))
		waitFor(t, first, rev+1, time.Second)
		waitFor(t, second, rev+1, time.Second)
	}
}

func testWatchOther(t *testing.T, b Backend) {
	if b.Exclusive {
		return
	}
	s, other := open(t, b), open(t, b)
	told := watcher(t, s)
	waitFor(t, told, 0, patience)
	commit(t, other, 0, item("a", "1"))
	waitFor(t, told, 1, time.Second)
}

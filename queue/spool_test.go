package queue_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/execgate/execgate/internal/testkit"
	"github.com/execgate/execgate/queue"
	"github.com/execgate/execgate/queue/queuetest"
	"github.com/execgate/execgate/targetclient"
)

// flaky is a backend that can be away.
type flaky struct {
	queue.Backend
	mu   sync.Mutex
	away bool
}

func (f *flaky) set(away bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.away = away
}

func (f *flaky) fault() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.away {
		return fmt.Errorf("%w: away", queue.ErrUnavailable)
	}
	return nil
}

func (f *flaky) Put(ctx context.Context, r *queue.Record) error {
	if err := f.fault(); err != nil {
		return err
	}
	return f.Backend.Put(ctx, r)
}

func (f *flaky) Ready(ctx context.Context) ([]string, time.Duration, error) {
	if err := f.fault(); err != nil {
		return nil, 0, err
	}
	return f.Backend.Ready(ctx)
}

func openSpool(t *testing.T, o queue.SpoolOptions) *queue.Spool {
	t.Helper()
	s, err := queue.OpenSpool(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// spooling runs a test in which the backend can be away.
func spooling(t *testing.T, maxBytes int64, test func(t *testing.T, b *durableBundle, f *flaky, s *queue.Spool)) {
	bubbleWith(t, func(t *testing.T) queue.DurableOptions {
		f := &flaky{Backend: openEmbedded(t, filepath.Join(t.TempDir(), "queue.db"), queuetest.Setup{})}
		s := openSpool(t, queue.SpoolOptions{Path: filepath.Join(t.TempDir(), "spool.db"), MaxBytes: maxBytes})
		return queue.DurableOptions{Backend: f, Spool: s, Schedule: queue.Schedule{FirstDelay: time.Second}}
	}, func(t *testing.T, b *durableBundle) {
		f, _ := b.backend.(*flaky)
		test(t, b, f, b.spool)
	})
}

func TestSpoolTakesWhatTheBackendCannot(t *testing.T) {
	spooling(t, 0, func(t *testing.T, b *durableBundle, f *flaky, s *queue.Spool) {
		b.set(func() { b.settings["b"].OrderBy = queue.OrderByUser })
		f.set(true)
		var want []string
		for i := range 300 {
			b.enqueue(queue.Delivery{Target: target("a"), UserID: "user"}, fmt.Sprint(i))
			b.enqueue(queue.Delivery{Target: target("b"), UserID: "user"}, fmt.Sprint(i))
			want = append(want, fmt.Sprint("b", i))
		}
		if s.Len() != 600 || b.Pending() != 600 || b.spooled != 600 || s.Bytes() == 0 {
			t.Errorf("%d in the spool, %d bytes, %d pending, %d counted", s.Len(), s.Bytes(), b.Pending(), b.spooled)
		}
		if calls := b.after(time.Minute); len(calls) != 0 {
			t.Fatalf("%d calls", len(calls))
		}
		f.set(false)
		b.enqueue(queue.Delivery{Target: target("b"), UserID: "user"}, "300")
		want = append(want, "b300")
		b.after(time.Minute)
		var ordered []string
		for _, body := range b.bodies() {
			if body[0] == 'b' {
				ordered = append(ordered, body)
			}
		}
		if !slices.Equal(ordered, want) {
			t.Errorf("with an order came %q", ordered)
		}
		if s.Len() != 0 || s.Bytes() != 0 || len(b.bodies()) != 601 {
			t.Errorf("%d are left, %d came", s.Len(), len(b.bodies()))
		}
	})
}

func TestSpoolIsBounded(t *testing.T) {
	spooling(t, 5000, func(t *testing.T, b *durableBundle, f *flaky, s *queue.Spool) {
		f.set(true)
		b.set(func() { b.settings["b"].OnFull = queue.OnFullBlockCall })
		d := queue.Delivery{Target: target("a"), Body: bytes.Repeat([]byte("x"), 1000)}
		var err error
		for n := 0; err == nil; n++ {
			if err = b.Enqueue(t.Context(), d); n > 5 {
				t.Fatal("it takes more than it may hold")
			}
		}
		if !errors.Is(err, queue.ErrSpoolFull) || queue.DropReason(err) != queue.DroppedSpoolFull || errors.Is(err, queue.ErrBlocked) {
			t.Errorf("full: %v", err)
		}
		d.Target = target("b")
		began := time.Now()
		if err = b.Enqueue(t.Context(), d); !errors.Is(err, queue.ErrSpoolFull) || !errors.Is(err, queue.ErrBlocked) {
			t.Errorf("full, for a target that blocks: %v", err)
		}
		if d := time.Since(began); d != 10*time.Second {
			t.Errorf("blocked for %v", d)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err = b.Enqueue(ctx, d); !errors.Is(err, queue.ErrBlocked) || time.Since(began) != 11*time.Second {
			t.Errorf("the end of the call: %v", err)
		}
		time.AfterFunc(5*time.Second, func() { f.set(false) })
		if err = b.Enqueue(t.Context(), d); err != nil {
			t.Errorf("room in time: %v", err)
		}
		b.after(time.Minute)
		if s.Len() != 0 || s.Bytes() != 0 {
			t.Errorf("%d are left", s.Len())
		}
	})
}

func TestSpoolSurvivesAndSeals(t *testing.T) {
	path := filepath.Join(t.TempDir(), "spool.db")
	sealer, err := queue.NewSealer(bytes.Repeat([]byte("k"), 32))
	if err != nil {
		t.Fatal(err)
	}
	o := queue.SpoolOptions{Path: path, Sealer: sealer}
	bubbleWith(t, func(t *testing.T) queue.DurableOptions {
		first := openSpool(t, o)
		f := &flaky{Backend: openEmbedded(t, filepath.Join(t.TempDir(), "first.db"), queuetest.Setup{})}
		f.set(true)
		q, err := queue.NewDurable(queue.DurableOptions{
			Backend: f, Spool: first, Caller: callerFunc(nil), Logger: testkit.Logger(t),
			Targets: func(string) (*queue.Settings, bool) { return nil, false },
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := q.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := q.Enqueue(t.Context(), queue.Delivery{Target: target("a"), ID: queue.IDFor(time.Now(), "a"), Body: []byte("secret payload")}); err != nil {
			t.Fatal(err)
		}
		q.Stop(t.Context())
		if err := first.Close(); err != nil {
			t.Fatal(err)
		}
		stored, err := os.ReadFile(path)
		if err != nil || bytes.Contains(stored, []byte("secret payload")) {
			t.Errorf("the file shows the payload, or cannot be read: %v", err)
		}
		return queue.DurableOptions{
			Backend: openEmbedded(t, filepath.Join(t.TempDir(), "queue.db"), queuetest.Setup{}), Spool: openSpool(t, o),
		}
	}, func(t *testing.T, b *durableBundle) {
		if calls := b.after(time.Minute); len(calls) != 1 || calls[0].body != "secret payload" {
			t.Errorf("after the restart: %+v", calls)
		}
	})
}

func TestSpoolWithRealRedisAway(t *testing.T) {
	t.Parallel()
	server := testkit.StartRedis(t, testkit.RedisOptions{AOF: true})
	receiver := testkit.NewTarget(t, testkit.TargetOptions{})
	client, err := targetclient.New(targetclient.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	to := &targetclient.Target{ID: "t", Name: "t", URL: receiver.URL}
	spool := openSpool(t, queue.SpoolOptions{Path: filepath.Join(t.TempDir(), "spool.db")})
	q, err := queue.NewDurable(queue.DurableOptions{
		// What Redis leased with an answer that the kill cut off comes after the
		// visibility.
		Backend: openRedis(t, redisClient(t, server.Addr), queue.RedisOptions{Visibility: time.Second}),
		Spool:   spool, Caller: client, Logger: testkit.Logger(t),
		Targets: func(string) (*queue.Settings, bool) { return &queue.Settings{Target: to}, true },
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := q.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { q.Stop(context.WithoutCancel(t.Context())) })
	enqueue := func(from, until int) {
		t.Helper()
		for i := from; i < until; i++ {
			if err := q.Enqueue(t.Context(), queue.Delivery{Target: to, Body: fmt.Append(nil, i)}); err != nil {
				t.Fatal(err)
			}
		}
	}
	enqueue(0, 20)
	server.Kill()
	enqueue(20, 40)
	if spool.Len() != 20 {
		t.Errorf("%d in the spool", spool.Len())
	}
	server.Restart()
	enqueue(40, 60)
	got := map[string]string{}
	for n := 60; len(got) < 60 && !t.Failed(); n++ { // what was under way at the kill may come twice
		for _, r := range receiver.Wait(n, 30*time.Second) {
			got[string(r.Body)] = ""
		}
	}
	clear(got)
	for _, r := range receiver.Requests() {
		if before := got[string(r.Body)]; before != "" && before != r.Header.Get("webhook-id") {
			t.Errorf("%s came under two ids", r.Body)
		}
		got[string(r.Body)] = r.Header.Get("webhook-id")
		if r.Header.Get("execgate-attempt") == "" || r.Header.Get("webhook-timestamp") == "" {
			t.Errorf("headers %v", r.Header)
		}
	}
}

func TestSealerFiles(t *testing.T) {
	t.Parallel()
	const inHex = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
	const inBase64 = "ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8="
	for name, step := range map[string]struct {
		text, err string
	}{
		"two keys":   {"# keys\n" + inHex + "\n\n " + inBase64 + " \n", ""},
		"none":       {"# nothing\n", "no encryption key"},
		"too short":  {inBase64 + "\nZ2VoZWlt\n", "line 2"},
		"not base64": {"geheim!\n", "line 1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "keys")
			if err := os.WriteFile(path, []byte(step.text), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := queue.ReadSealer(path)
			if (err == nil) != (step.err == "") || (err != nil && !strings.Contains(err.Error(), step.err)) {
				t.Errorf("got %v", err)
			}
			if err != nil && (strings.Contains(err.Error(), "geheim") || strings.Contains(err.Error(), "Z2VoZWlt")) {
				t.Errorf("the error shows the key: %v", err)
			}
		})
	}
	if _, err := queue.ReadSealer(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

package queue

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// fragmented makes the file of a queue that was large and is mostly free, and
// returns what is left in it: pending ones with an order key, and a dead letter.
func fragmented(t *testing.T, path string) (left []string) {
	t.Helper()
	e, err := OpenEmbedded(EmbeddedOptions{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	put := func(target, key string, body []byte) string {
		r := &Record{ID: NewID(time.Now()), Target: target, OrderKey: key, Body: body}
		if err := e.Put(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		return r.ID
	}
	dead := put("kept", "", []byte("dead"))
	leases, err := e.Lease(t.Context(), "kept", 1)
	if err != nil || len(leases) != 1 {
		t.Fatal(leases, err)
	}
	if err := e.Settle(t.Context(), leases[0], Verdict{Action: Dead}); err != nil {
		t.Fatal(err)
	}
	left = []string{dead, put("kept", "key", []byte("first"))}
	for range 3 {
		put("gone", "", bytes.Repeat([]byte("x"), 30<<20))
	}
	left = append(left, put("kept", "key", []byte("second")))
	if n, err := DropAll(t.Context(), e, Filter{Target: "gone"}); n != 3 || err != nil {
		t.Fatal(n, err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	return left
}

func fileSize(t *testing.T, path string) int64 {
	t.Helper()
	fi, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return fi.Size()
}

// wantLeft checks what fragmented left, and that the order goes on.
func wantLeft(t *testing.T, e *Embedded, left []string) {
	t.Helper()
	for i, body := range []string{"dead", "first", "second"} {
		r, err := e.Get(t.Context(), left[i])
		if err != nil || string(r.Body) != body {
			t.Errorf("%s: %+v, %v", body, r, err)
		}
	}
	third := &Record{ID: NewID(time.Now()), Target: "kept", OrderKey: "key", Body: []byte("third")}
	if err := e.Put(t.Context(), third); err != nil {
		t.Fatal(err)
	}
	for _, body := range []string{"first", "second", "third"} {
		leases, err := e.Lease(t.Context(), "kept", 10)
		if err != nil || len(leases) != 1 || string(leases[0].Record.Body) != body {
			t.Fatalf("%s: leased %d, %v", body, len(leases), err)
		}
		if err := e.Settle(t.Context(), leases[0], Verdict{Action: Delivered}); err != nil {
			t.Fatal(err)
		}
	}
	counts, err := e.Counts(t.Context())
	for _, c := range counts {
		if want := (Count{Target: "kept", Dead: 1, Delivered: 3}); c.Target == "kept" && c != want || err != nil {
			t.Errorf("counts %+v, %v", c, err)
		}
	}
}

func TestAFileThatIsMostlyFreeShrinksWhenItIsOpened(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "queue.db")
	left := fragmented(t, path)
	before := fileSize(t, path)
	// What a crash in the middle of an earlier one left.
	if err := os.WriteFile(path+compacting, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	e, err := OpenEmbedded(EmbeddedOptions{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Close() })
	if after := fileSize(t, path); before <= compactFrom || after > 1<<20 {
		t.Errorf("%d bytes, before %d", after, before)
	}
	if _, err := os.Stat(path + compacting); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the temporary file is still there: %v", err)
	}
	if _, err := OpenEmbedded(EmbeddedOptions{Path: path, LockTimeout: 10 * time.Millisecond}); err == nil {
		t.Error("the new file is not locked")
	}
	wantLeft(t, e, left)
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := OpenEmbedded(EmbeddedOptions{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = again.Close() })
	if r, err := again.Get(t.Context(), left[0]); err != nil || r.State != StateDead {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestAFileThatCannotBeCompactedIsUsedAsItIs(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "queue.db")
	left := fragmented(t, path)
	// A directory that is not empty cannot be replaced by the temporary file.
	if err := os.MkdirAll(filepath.Join(path+compacting, "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	e, err := OpenEmbedded(EmbeddedOptions{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Close() })
	wantLeft(t, e, left)
}

func TestWhoWaitsForTheLockGetsTheFileThatIsThereThen(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "queue.db")
	holder, err := OpenEmbedded(EmbeddedOptions{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	waiting := make(chan error)
	go func() {
		e, err := OpenEmbedded(EmbeddedOptions{Path: path, LockTimeout: 20 * time.Second})
		if err == nil {
			err = e.Put(t.Context(), &Record{ID: IDFor(time.Now(), "x"), Target: "t"})
			err = errors.Join(err, e.Close())
		}
		waiting <- err
	}()
	<-time.After(100 * time.Millisecond) // it waits by now, or will: then there is nothing to show
	other, err := OpenEmbedded(EmbeddedOptions{Path: path + "2"})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+"2", path); err != nil {
		t.Fatal(err)
	}
	for _, e := range []*Embedded{holder, other} {
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-waiting; err != nil {
		t.Fatal(err)
	}
	e, err := OpenEmbedded(EmbeddedOptions{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Close() })
	page, err := e.List(t.Context(), Filter{})
	if err != nil || len(page.Records) != 1 {
		t.Error(fmt.Sprint("what the other one put is in a file without a name: ", page.Records, err))
	}
}

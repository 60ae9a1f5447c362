package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/execgate/execgate/store"
)

// patience bounds every wait.
const patience = 20 * time.Second

// Limits are the bounds of the revision log. Zero values are the backend's defaults.
type Limits struct {
	MaxRevisions, MaxLogBytes int
}

// Backend is one empty place where data can be kept.
type Backend struct {
	// Open opens a store on the place. The suite closes what it opened.
	Open func(t testing.TB, l Limits) store.Store
	// Exclusive says that only one store at a time can be open on the place.
	Exclusive bool
	// Wipe makes the place lose all its data. Needed if the store is a store.Restorer.
	Wipe func(t testing.TB)
	// Damage makes the place lose one item behind the store's back. Needed if the store is a store.Restorer.
	Damage func(t testing.TB)
}

// Run runs the suite. newBackend returns a fresh, empty place at every call.
func Run(t *testing.T, newBackend func(t testing.TB) Backend) {
	t.Helper()
	tests := []struct {
		name string
		test func(t *testing.T, b Backend)
	}{
		{"an empty store has a zero head", testEmpty},
		{"a commit is loaded again", testCommit},
		{"a commit replaces and removes items", testReplace},
		{"a commit on another base or epoch conflicts and writes nothing", testConflict},
		{"the same commit sent twice is applied once", testIdempotent},
		{"unusable commits are refused", testRefuse},
		{"of many commits on one base one wins", testOneWinner},
		{"no update is lost", testNoLostUpdate},
		{"a load never sees half a commit", testAtomicLoad},
		{"ids and values come back as they were", testBytes},
		{"the log holds before and after", testLog},
		{"the log is bounded by number", testLogNumber},
		{"the log is bounded by size", testLogSize},
		{"data survives reopening", testReopen},
		{"a watcher is told within a second", testWatch},
		{"a watcher is told of another process' commits", testWatchOther},
		{"an ended context is the error", testContext},
		{"a closed store is unavailable", testClosed},
		{"twenty thousand items", testLarge},
		{"lost data can be restored", testRestore},
		{"damaged data is noticed and can be restored", testDamage},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tt.test(t, newBackend(t))
		})
	}
}

func open(t testing.TB, b Backend, l ...Limits) store.Store {
	t.Helper()
	var limits Limits
	if len(l) > 0 {
		limits = l[0]
	}
	s := b.Open(t, limits)
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func item(id, value string) store.Item {
	return store.Item{Kind: "thing", ID: id, Value: []byte(value)}
}

func commit(t testing.TB, s store.Store, base uint64, items ...store.Item) uint64 {
	t.Helper()
	rev, err := s.Commit(t.Context(), store.Commit{Base: base, Items: items, Actor: "tester", Action: "test"})
	if err != nil {
		t.Fatalf("commit on %d: %v", base, err)
	}
	return rev
}

func load(t testing.TB, s store.Store) store.Dump {
	t.Helper()
	d, err := s.Load(t.Context())
	if err != nil {
		t.Fatalf("load: %v", err)
	}
	return d
}

func head(t testing.TB, s store.Store) store.Head {
	t.Helper()
	h, err := s.Head(t.Context())
	if err != nil {
		t.Fatalf("head: %v", err)
	}
	return h
}

// content renders the items of a dump for comparison.
func content(d store.Dump) string {
	var lines []string
	for _, it := range d.Items {
		lines = append(lines, fmt.Sprintf("%s %s=%s", it.Kind, it.ID, it.Value))
	}
	slices.Sort(lines)
	return strings.Join(lines, ", ")
}

func equal[T comparable](t testing.TB, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Fatalf("%s: got %v, want %v", what, got, want)
	}
}

func wantErr(t testing.TB, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Fatalf("got error %v, want %v", got, want)
	}
}

func testEmpty(t *testing.T, b Backend) {
	s := open(t, b)
	equal(t, "head", head(t, s), store.Head{})
	d := load(t, s)
	equal(t, "head of the dump", d.Head, store.Head{})
	equal(t, "items", len(d.Items), 0)
	revs, err := s.Revisions(t.Context(), 0, 10)
	if err != nil || len(revs) != 0 {
		t.Fatalf("got %v, %v", revs, err)
	}
}

func testCommit(t *testing.T, b Backend) {
	s := open(t, b)
	at := time.Date(2026, 7, 1, 12, 0, 0, 123456789, time.UTC)
	rev, err := s.Commit(t.Context(), store.Commit{
		ID: "first", Epoch: "here", Items: []store.Item{item("a", "1"), item("b", "2")}, Time: at,
	})
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "revision", rev, 1)
	want := store.Head{Epoch: "here", Revision: 1, ID: "first", Time: at, Oldest: 1}
	equal(t, "head", head(t, s), want)
	d := load(t, s)
	equal(t, "head of the dump", d.Head, want)
	equal(t, "items", content(d), "thing a=1, thing b=2")

	before := time.Now().Add(-time.Second)
	commit(t, s, 1, item("c", "3"))
	h := head(t, s)
	equal(t, "epoch", h.Epoch, "here")
	if h.ID == "" || h.ID == "first" {
		t.Fatalf("commit got the id %q", h.ID)
	}
	if h.Time.Before(before) || h.Time.After(time.Now().Add(time.Second)) {
		t.Fatalf("commit got the time %v", h.Time)
	}

	t.Run("an epoch is made up", func(t *testing.T) {
		if b.Wipe == nil {
			return
		}
		b.Wipe(t)
		commit(t, s, 0, item("a", "1"))
		if h := head(t, s); h.Epoch == "" || h.Epoch == "here" {
			t.Fatalf("epoch is %q", h.Epoch)
		}
	})
}

func testReplace(t *testing.T, b Backend) {
	s := open(t, b)
	commit(t, s, 0, item("a", "1"), item("b", "2"), item("c", "3"))
	commit(t, s, 1, item("a", "4"), store.Absent("thing", "b"), store.Absent("thing", "never"),
		store.Item{Kind: "other", ID: "a", Value: []byte("5")})
	equal(t, "items", content(load(t, s)), "other a=5, thing a=4, thing c=3")
	commit(t, s, 2, store.Absent("thing", "a"), store.Absent("thing", "c"), store.Absent("other", "a"))
	d := load(t, s)
	equal(t, "revision", d.Revision, 3)
	equal(t, "items", content(d), "")
	commit(t, s, 3, item("a", "6"))
	equal(t, "items", content(load(t, s)), "thing a=6")
}

func testConflict(t *testing.T, b Backend) {
	s := open(t, b)
	_, err := s.Commit(t.Context(), store.Commit{Base: 1, Items: []store.Item{item("a", "1")}})
	wantErr(t, err, store.ErrConflict)
	equal(t, "head", head(t, s), store.Head{})
	commit(t, s, 0, item("a", "1"))
	commit(t, s, 1, item("a", "2"))
	h := head(t, s)
	for _, c := range []store.Commit{
		{Base: 0}, {Base: 1}, {Base: 3}, {Base: 2, Epoch: "another"}, {Base: 1, Epoch: h.Epoch},
	} {
		c.Items = []store.Item{item("a", "9"), item("b", "9")}
		_, err := s.Commit(t.Context(), c)
		wantErr(t, err, store.ErrConflict)
	}
	equal(t, "head", head(t, s), h)
	equal(t, "items", content(load(t, s)), "thing a=2")
	if _, err := s.Commit(t.Context(), store.Commit{Base: 2, Epoch: h.Epoch, Items: []store.Item{item("a", "3")}}); err != nil {
		t.Fatal(err)
	}
}

func testIdempotent(t *testing.T, b Backend) {
	s := open(t, b)
	c := store.Commit{ID: "x", Items: []store.Item{item("a", "1")}}
	for range 3 {
		rev, err := s.Commit(t.Context(), c)
		if err != nil || rev != 1 {
			t.Fatalf("got %d, %v", rev, err)
		}
	}
	commit(t, s, 1, item("a", "2"))
	rev, err := s.Commit(t.Context(), c)
	if err != nil || rev != 1 {
		t.Fatalf("after another commit: got %d, %v", rev, err)
	}
	equal(t, "items", content(load(t, s)), "thing a=2")
	equal(t, "revision", head(t, s).Revision, 2)
	c.Base = 1
	_, err = s.Commit(t.Context(), c)
	wantErr(t, err, store.ErrConflict)
}

func testRefuse(t *testing.T, b Backend) {
	s := open(t, b)
	for name, items := range map[string][]store.Item{
		"no items":    nil,
		"no kind":     {{ID: "a", Value: []byte("1")}},
		"slash kind":  {{Kind: "a/b", ID: "a", Value: []byte("1")}},
		"no id":       {{Kind: "a", Value: []byte("1")}},
		"long id":     {{Kind: "a", ID: strings.Repeat("x", 10_000), Value: []byte("1")}},
		"empty value": {{Kind: "a", ID: "a", Value: []byte{}}},
		"twice":       {item("a", "1"), item("a", "2")},
		"too many":    make([]store.Item, store.MaxCommitItems+1),
	} {
		_, err := s.Commit(t.Context(), store.Commit{Items: items})
		if err == nil || errors.Is(err, store.ErrConflict) || errors.Is(err, store.ErrUnavailable) {
			t.Fatalf("%s: got error %v", name, err)
		}
	}
	equal(t, "head", head(t, s), store.Head{})
}

func testBytes(t *testing.T, b Backend) {
	s := open(t, b)
	items := []store.Item{
		item("request/pkg.Svc/Method", `{"a":"\u0000"}`),
		item("a/b/c//d", "\x00\xff\r\n"),
		item(strings.Repeat("é", 1020), "1"),
		item("日本 {x} *", `"日本"`),
		item("empty object", "{}"),
		item("big", strings.Repeat("x", 1<<20)),
	}
	commit(t, s, 0, items...)
	equal(t, "items", content(load(t, s)), content(store.Dump{Items: items}))
	revs, err := s.Revisions(t.Context(), 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	var after []store.Item
	for _, it := range revs[0].Items {
		after = append(after, store.Item{Kind: it.Kind, ID: it.ID, Value: it.After})
	}
	equal(t, "logged items", content(store.Dump{Items: after}), content(store.Dump{Items: items}))
}

func testReopen(t *testing.T, b Backend) {
	s := open(t, b)
	commit(t, s, 0, item("a", "1"))
	commit(t, s, 1, item("b", "2"))
	before := load(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, b)
	after := load(t, s)
	equal(t, "head", after.Head, before.Head)
	equal(t, "items", content(after), content(before))
	equal(t, "head", head(t, s), before.Head)
	commit(t, s, 2, item("c", "3"))
	revs, err := s.Revisions(t.Context(), 0, 0)
	if err != nil || len(revs) != 3 {
		t.Fatalf("got %d revisions, %v", len(revs), err)
	}
}

func testContext(t *testing.T, b Backend) {
	s := open(t, b)
	commit(t, s, 0, item("a", "1"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := s.Head(ctx)
	wantErr(t, err, context.Canceled)
	_, err = s.Load(ctx)
	wantErr(t, err, context.Canceled)
	_, err = s.Revisions(ctx, 0, 0)
	wantErr(t, err, context.Canceled)
	_, err = s.Commit(ctx, store.Commit{Base: 1, Items: []store.Item{item("a", "2")}})
	wantErr(t, err, context.Canceled)
	wantErr(t, s.Watch(ctx, func(uint64) {}), context.Canceled)
	equal(t, "revision", head(t, s).Revision, 1)
}

func testClosed(t *testing.T, b Backend) {
	s := open(t, b)
	commit(t, s, 0, item("a", "1"))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	_, err := s.Head(t.Context())
	wantErr(t, err, store.ErrUnavailable)
	_, err = s.Load(t.Context())
	wantErr(t, err, store.ErrUnavailable)
	_, err = s.Revisions(t.Context(), 0, 0)
	wantErr(t, err, store.ErrUnavailable)
	_, err = s.Commit(t.Context(), store.Commit{Base: 1, Items: []store.Item{item("a", "2")}})
	wantErr(t, err, store.ErrUnavailable)
	if err := s.Close(); err != nil {
		t.Fatalf("second close: %v", err)
	}
}

func testLarge(t *testing.T, b Backend) {
	s := open(t, b)
	const n = 20_000
	items := make([]store.Item, 0, n)
	for i := range n {
		items = append(items, item(fmt.Sprintf("id-%06d", i), fmt.Sprintf(`{"n":%d,"text":%q}`, i, strings.Repeat("x", 300))))
	}
	began := time.Now()
	commit(t, s, 0, items...)
	t.Logf("commit of %d items: %v", n, time.Since(began))
	began = time.Now()
	d := load(t, s)
	t.Logf("load of %d items: %v", n, time.Since(began))
	equal(t, "items", len(d.Items), n)
	began = time.Now()
	const more = 20
	for i := range uint64(more) {
		commit(t, s, i+1, item("id-000000", fmt.Sprintf(`{"n":%d}`, i)))
	}
	t.Logf("commit of one item among them: %v", time.Since(began)/more)
	equal(t, "items", len(load(t, s).Items), n)
}

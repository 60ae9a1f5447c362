package storetest

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/execgate/execgate/store"
)

func testLog(t *testing.T, b Backend) {
	s := open(t, b)
	at := time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)
	for i, items := range [][]store.Item{
		{item("a", "1"), item("b", "1")},
		{item("a", "2"), store.Absent("thing", "b"), store.Absent("thing", "c")},
		{item("b", "3")},
	} {
		_, err := s.Commit(t.Context(), store.Commit{
			ID: fmt.Sprintf("c%d", i+1), Base: uint64(i), Items: items, Actor: "ops", Action: "change \"x\"",
			Time: at.Add(time.Duration(i) * time.Second),
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	want := []string{
		"1 c1 ops change \"x\" 12:00:00 a:<nil>>1 b:<nil>>1",
		"2 c2 ops change \"x\" 12:00:01 a:1>2 b:1><nil> c:<nil>><nil>",
		"3 c3 ops change \"x\" 12:00:02 b:<nil>>3",
	}
	for _, tt := range []struct {
		after uint64
		limit int
		want  []string
	}{
		{0, 0, want}, {0, -1, want}, {0, 100, want}, {0, 2, want[:2]}, {1, 1, want[1:2]}, {2, 5, want[2:]}, {3, 5, nil}, {99, 5, nil},
	} {
		revs, err := s.Revisions(t.Context(), tt.after, tt.limit)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, r := range revs {
			line := fmt.Sprintf("%d %s %s %s %s", r.Number, r.ID, r.Actor, r.Action, r.Time.Format(time.TimeOnly))
			for _, it := range r.Items {
				line += fmt.Sprintf(" %s:%s>%s", it.ID, orNil(it.Before), orNil(it.After))
			}
			got = append(got, line)
		}
		equal(t, fmt.Sprintf("revisions after %d, limit %d", tt.after, tt.limit), strings.Join(got, "\n"), strings.Join(tt.want, "\n"))
	}
}

func orNil(b []byte) string {
	if b == nil {
		return "<nil>"
	}
	return string(b)
}

func testLogNumber(t *testing.T, b Backend) {
	s := open(t, b, Limits{MaxRevisions: 5})
	for i := range uint64(12) {
		commit(t, s, i, item("a", fmt.Sprint(i)))
		equal(t, "oldest", head(t, s).Oldest, max(1, i+1-min(i, 4)))
	}
	_, err := s.Revisions(t.Context(), 6, 0)
	wantErr(t, err, store.ErrCompacted)
	_, err = s.Revisions(t.Context(), 0, 1)
	wantErr(t, err, store.ErrCompacted)
	revs, err := s.Revisions(t.Context(), 7, 0)
	if err != nil || len(revs) != 5 || revs[0].Number != 8 {
		t.Fatalf("got %d revisions, %v", len(revs), err)
	}
	equal(t, "items", content(load(t, s)), "thing a=11")

	// A smaller bound takes effect at the next commit.
	if b.Exclusive {
		_ = s.Close()
	}
	s = open(t, b, Limits{MaxRevisions: 2})
	commit(t, s, 12, item("a", "12"))
	equal(t, "oldest", head(t, s).Oldest, 12)
	revs, err = s.Revisions(t.Context(), 11, 0)
	if err != nil || len(revs) != 2 {
		t.Fatalf("got %d revisions, %v", len(revs), err)
	}
}

func testLogSize(t *testing.T, b Backend) {
	s := open(t, b, Limits{MaxLogBytes: 10_000})
	value := `"` + strings.Repeat("x", 1000) + `"`
	for i := range uint64(20) {
		commit(t, s, i, item(fmt.Sprint(i), value))
	}
	h := head(t, s)
	if kept := h.Revision - h.Oldest + 1; kept < 5 || kept > 10 {
		t.Fatalf("%d revisions kept", kept)
	}
	_, err := s.Revisions(t.Context(), h.Oldest-2, 0)
	wantErr(t, err, store.ErrCompacted)
	revs, err := s.Revisions(t.Context(), h.Oldest-1, 0)
	if err != nil || uint64(len(revs)) != h.Revision-h.Oldest+1 {
		t.Fatalf("got %d revisions, %v", len(revs), err)
	}
	// The newest is kept, however large.
	commit(t, s, 20, item("huge", `"`+strings.Repeat("x", 50_000)+`"`))
	equal(t, "oldest", head(t, s).Oldest, 21)
	revs, err = s.Revisions(t.Context(), 20, 0)
	if err != nil || len(revs) != 1 {
		t.Fatalf("got %d revisions, %v", len(revs), err)
	}
	for i := range uint64(3) {
		commit(t, s, 21+i, item("a", fmt.Sprint(i)))
	}
	equal(t, "oldest", head(t, s).Oldest, 22)
}

func testRestore(t *testing.T, b Backend) {
	s := open(t, b)
	r, ok := s.(store.Restorer)
	if !ok {
		return
	}
	commit(t, s, 0, item("a", "1"), item("b", "1"))
	older := load(t, s)
	commit(t, s, 1, item("a", "2"))
	newer := load(t, s)

	wantErr(t, r.Restore(t.Context(), older), store.ErrConflict)
	wantErr(t, r.Restore(t.Context(), newer), store.ErrConflict)

	restore := func(d store.Dump) {
		t.Helper()
		if err := r.Restore(t.Context(), d); err != nil {
			t.Fatal(err)
		}
		got := load(t, s)
		want := d.Head
		want.Oldest, want.Restored = 0, true
		equal(t, "head", got.Head, want)
		equal(t, "items", content(got), content(d))
	}
	b.Wipe(t)
	equal(t, "head after the loss", head(t, s), store.Head{})
	restore(older)
	wantErr(t, r.Restore(t.Context(), older), store.ErrConflict)
	restore(newer) // knows more
	wantErr(t, r.Restore(t.Context(), older), store.ErrConflict)
	alien := newer
	alien.Epoch, alien.Revision = "alien", 99
	wantErr(t, r.Restore(t.Context(), alien), store.ErrConflict)

	_, err := s.Revisions(t.Context(), 0, 0)
	wantErr(t, err, store.ErrCompacted)
	commit(t, s, 2, item("c", "3"))
	h := head(t, s)
	equal(t, "restored", h.Restored, false)
	equal(t, "oldest", h.Oldest, 3)
	newer.Revision = 99
	wantErr(t, r.Restore(t.Context(), newer), store.ErrConflict)
	equal(t, "items", content(load(t, s)), "thing a=2, thing b=1, thing c=3")
}

func testDamage(t *testing.T, b Backend) {
	s := open(t, b)
	r, ok := s.(store.Restorer)
	if !ok {
		return
	}
	commit(t, s, 0, item("a", "1"), item("b", "1"))
	whole := load(t, s)
	b.Damage(t)
	for _, err := range []error{
		func() error { _, err := s.Head(t.Context()); return err }(),
		func() error { _, err := s.Load(t.Context()); return err }(),
		func() error {
			_, err := s.Commit(t.Context(), store.Commit{Base: 1, Items: []store.Item{item("c", "1")}})
			return err
		}(),
	} {
		wantErr(t, err, store.ErrDamaged)
		wantErr(t, err, store.ErrUnavailable)
	}
	if err := r.Restore(t.Context(), whole); err != nil {
		t.Fatal(err)
	}
	equal(t, "items", content(load(t, s)), content(whole))
}

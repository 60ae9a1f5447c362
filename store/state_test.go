package store_test

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/execgate/execgate/store"
)

func targetItem(t testing.TB, id, name string, created int) store.Item {
	t.Helper()
	tg := &store.Target{
		ID: id, Name: name, Endpoint: "https://example.com/hooks/" + id, Type: store.TargetWebhook, Timeout: 10 * time.Second,
		SigningKey: strings.Repeat("k", 43), Sequence: 1,
		CreatedAt: day.Add(time.Duration(created) * time.Second), ChangedAt: day,
	}
	item, err := tg.Item()
	if err != nil {
		t.Fatal(err)
	}
	return item
}

func executionItem(t testing.TB, id string, created int, targets, includes []string) store.Item {
	t.Helper()
	e := &store.Execution{
		ID: id, Targets: targets, Includes: includes, Sequence: 1,
		CreatedAt: day.Add(time.Duration(created) * time.Second), ChangedAt: day,
	}
	item, err := e.Item()
	if err != nil {
		t.Fatal(err)
	}
	return item
}

func newState(t testing.TB, items ...store.Item) *store.State {
	t.Helper()
	s, err := store.NewState(store.Dump{Head: store.Head{Epoch: "e", Revision: 1, ID: "c", Time: day}, Items: items})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func apply(t testing.TB, s *store.State, items ...store.Item) *store.State {
	t.Helper()
	next, err := s.Apply(s.Revision()+1, items)
	if err != nil {
		t.Fatal(err)
	}
	return next
}

func ids[R any](records []*R, id func(*R) string) string {
	var all []string
	for _, r := range records {
		all = append(all, id(r))
	}
	return strings.Join(all, " ")
}

func targetIDs(s *store.State) string {
	return ids(s.Targets(), func(t *store.Target) string { return t.ID })
}

func executionIDs(s *store.State) string {
	return ids(s.Executions(), func(e *store.Execution) string { return e.ID })
}

func TestStateLookups(t *testing.T) {
	t.Parallel()
	dead := &store.Tombstone{ID: "request/gone", Sequence: 7, DeletedAt: day}
	deadItem, err := dead.ExecutionItem()
	if err != nil {
		t.Fatal(err)
	}
	s := newState(t,
		targetItem(t, "2", "Zwei", 1), targetItem(t, "1", "eins", 2), targetItem(t, "3", "drei", 1),
		executionItem(t, "request", 2, []string{"1", "2"}, nil),
		executionItem(t, "request/a.B", 1, []string{"1"}, nil),
		executionItem(t, "request/a.B/C", 3, nil, []string{"request"}),
		deadItem,
		store.Item{Kind: store.KindTargetPolicy, ID: "1", Value: []byte(`{"x":1}`)},
		store.Item{Kind: "from the future", ID: "b", Value: []byte(`2`)},
		store.Item{Kind: "from the future", ID: "a", Value: []byte(`1`)},
	)
	equal(t, targetIDs(s), "2 3 1")
	equal(t, executionIDs(s), "request/a.B request request/a.B/C")
	equal(t, s.TargetByName("ZWEI").ID, "2")
	equal(t, s.TargetByName("EINS").ID, "1")
	equal(t, s.TargetByName("vier"), nil)
	equal(t, s.Target("4"), nil)
	equal(t, s.Execution("event"), nil)
	equal(t, strings.Join(s.UsedBy("1"), " "), "request request/a.B")
	equal(t, strings.Join(s.UsedBy("2"), " "), "request")
	equal(t, len(s.UsedBy("3")), 0)
	equal(t, strings.Join(s.IncludedBy("request"), " "), "request/a.B/C")
	equal(t, s.ExecutionTombstone("request/gone").Sequence, 7)
	equal(t, s.TargetTombstone("request/gone"), nil)
	v, ok := s.Item(store.KindTargetPolicy, "1")
	equal(t, string(v), `{"x":1}`)
	equal(t, ok, true)
	_, ok = s.Item("never seen", "1")
	equal(t, ok, false)
	var future string
	for id, value := range s.Items("from the future") {
		future += id + string(value)
	}
	equal(t, future, "a1b2")
	equal(t, s.Len(store.KindTarget), 3)
	equal(t, fmt.Sprint(s.Kinds()), "[execution execution_tombstone from the future target target_policy]")
	equal(t, s.Revision(), 1)
	equal(t, s.Time(), day)
	equal(t, len(s.Dump().Items), 10)
}

func TestApplyLeavesTheReceiverAsItWas(t *testing.T) {
	t.Parallel()
	s := newState(t, targetItem(t, "1", "a", 1), targetItem(t, "2", "b", 2), executionItem(t, "request", 1, []string{"1", "2"}, nil))
	before := s.Dump()
	next := apply(t, s,
		store.Absent(store.KindTarget, "1"), targetItem(t, "2", "c", 2), targetItem(t, "3", "a", 0),
		executionItem(t, "request", 1, []string{"2", "2"}, []string{"response"}), executionItem(t, "event", 0, []string{"3"}, nil))
	equal(t, targetIDs(next), "3 2")
	equal(t, executionIDs(next), "event request")
	equal(t, next.TargetByName("a").ID, "3")
	equal(t, next.TargetByName("b"), nil)
	equal(t, len(next.UsedBy("1")), 0)
	equal(t, strings.Join(next.UsedBy("2"), " "), "request")
	equal(t, strings.Join(next.IncludedBy("response"), " "), "request")
	equal(t, next.Revision(), 2)

	if diff := gocmp.Diff(before, s.Dump()); diff != "" {
		t.Fatal(diff)
	}
	equal(t, targetIDs(s), "1 2")
	equal(t, executionIDs(s), "request")
	equal(t, s.TargetByName("a").ID, "1")
	equal(t, s.TargetByName("b").ID, "2")
	equal(t, strings.Join(s.UsedBy("1"), " "), "request")
	equal(t, len(s.IncludedBy("response")), 0)
}

func TestNamesAreUniqueAndCanBeSwapped(t *testing.T) {
	t.Parallel()
	s := newState(t, targetItem(t, "1", "a", 1), targetItem(t, "2", "b", 2))
	if _, err := s.Apply(2, []store.Item{targetItem(t, "3", "A", 3)}); err == nil {
		t.Fatal("two targets with one name")
	}
	if _, err := s.Apply(2, []store.Item{targetItem(t, "3", "x", 3), targetItem(t, "4", "X", 3)}); err == nil {
		t.Fatal("two new targets with one name")
	}
	next := apply(t, s, targetItem(t, "1", "B", 1), targetItem(t, "2", "A", 2))
	equal(t, next.TargetByName("a").ID, "2")
	equal(t, next.TargetByName("b").ID, "1")
	next = apply(t, next, targetItem(t, "1", "b", 1)) // its own, in other letters
	equal(t, next.TargetByName("b").ID, "1")
	next = apply(t, next, store.Absent(store.KindTarget, "1"), targetItem(t, "5", "b", 5))
	equal(t, next.TargetByName("B").ID, "5")
}

func TestAnUndecodableItemRefusesTheWholeChange(t *testing.T) {
	t.Parallel()
	s := newState(t, targetItem(t, "1", "a", 1))
	for name, bad := range map[string]store.Item{
		"target":           {Kind: store.KindTarget, ID: "2", Value: []byte(`{}`)},
		"execution":        {Kind: store.KindExecution, ID: "request", Value: []byte(`[]`)},
		"tombstone":        {Kind: store.KindTargetTombstone, ID: "2", Value: []byte(`x`)},
		"another's target": {Kind: store.KindTarget, ID: "2", Value: targetItem(t, "3", "c", 1).Value},
		"another's name":   {Kind: store.KindExecution, ID: "event", Value: executionItem(t, "request", 1, nil, nil).Value},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			next, err := s.Apply(2, []store.Item{targetItem(t, "9", "good", 1), bad})
			if next != nil || err == nil || !strings.Contains(err.Error(), bad.ID) {
				t.Fatalf("got %v, error %v", next, err)
			}
			if _, err := store.NewState(store.Dump{Items: []store.Item{bad}}); err == nil {
				t.Fatal("a whole load accepted it")
			}
		})
	}
	equal(t, targetIDs(s), "1")
}

// TestAppliedEqualsLoaded makes random changes and compares the state that grew with one that is built from its dump.
func TestAppliedEqualsLoaded(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 2))
	grown := newState(t)
	for step := range 300 {
		var items []store.Item
		used := map[string]bool{}
		for range 1 + rng.IntN(cmp.Or(step%50, 1)*3) {
			n := rng.IntN(60)
			id := fmt.Sprint(n)
			if used[id] {
				continue
			}
			used[id] = true
			switch rng.IntN(5) {
			case 0:
				items = append(items, store.Absent(store.KindTarget, id))
			case 1, 2:
				items = append(items, targetItem(t, id, fmt.Sprintf("Name %d", n+60*rng.IntN(3)), rng.IntN(10)))
			case 3:
				items = append(items, store.Absent(store.KindExecution, id))
			default:
				var targets, includes []string
				for range rng.IntN(4) {
					targets = append(targets, fmt.Sprint(rng.IntN(60)))
					includes = append(includes, fmt.Sprint(rng.IntN(60)))
				}
				items = append(items, executionItem(t, id, rng.IntN(10), targets, includes))
			}
		}
		if len(items) == 0 {
			continue
		}
		grown = apply(t, grown, items...)
		loaded, err := store.NewState(grown.Dump())
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(grown.Dump(), loaded.Dump()) ||
			!slices.EqualFunc(grown.Targets(), loaded.Targets(), deepEqual) ||
			!slices.EqualFunc(grown.Executions(), loaded.Executions(), deepEqual) {
			t.Fatalf("step %d: grown to %v, loaded as %v", step, grown.Dump(), loaded.Dump())
		}
		for n := range 60 {
			id := fmt.Sprint(n)
			if !slices.Equal(grown.UsedBy(id), loaded.UsedBy(id)) || !slices.Equal(grown.IncludedBy(id), loaded.IncludedBy(id)) {
				t.Fatalf("step %d: references of %s: %v, %v", step, id, grown.UsedBy(id), loaded.UsedBy(id))
			}
			for k := range 3 {
				name := fmt.Sprintf("nAME %d", n+60*k)
				a, b := grown.TargetByName(name), loaded.TargetByName(name)
				if (a == nil) != (b == nil) || a != nil && a.ID != b.ID {
					t.Fatalf("step %d: name %q", step, name)
				}
			}
		}
	}
}

func deepEqual[T any](a, b *T) bool { return reflect.DeepEqual(a, b) }

func equal[T comparable](t testing.TB, got, want T) {
	t.Helper()
	if got != want {
		t.Fatalf("got %v, want %v", got, want)
	}
}

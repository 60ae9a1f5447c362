package admin

import (
	"regexp"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"
)

func TestIDsAreDecimalOrderedAndUniqueUnderConcurrency(t *testing.T) {
	t.Parallel()
	g := newIDGenerator(time.Now)
	const workers, each = 8, 2000
	all := make([][]uint64, workers)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for range each {
				id := g.next()
				if len(id) != 18 {
					t.Errorf("id %q has %d digits", id, len(id))
				}
				n, err := strconv.ParseUint(id, 10, 63)
				if err != nil {
					t.Error(err)
				}
				all[w] = append(all[w], n)
			}
		})
	}
	wg.Wait()
	for _, ids := range all {
		if !slices.IsSorted(ids) {
			t.Error("ids of one caller do not grow")
		}
	}
	merged := slices.Sorted(slices.Values(slices.Concat(all...)))
	if got := len(slices.Compact(merged)); got != workers*each {
		t.Errorf("%d different ids of %d", got, workers*each)
	}
}

func TestIDsGrowWhenTheClockGoesBack(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 7, 1, 0, 0, 0, 0, time.UTC)
	g := newIDGenerator(func() time.Time { return now })
	before := g.next()
	now = now.Add(-time.Hour)
	if after := g.next(); after <= before {
		t.Errorf("%s after %s", after, before)
	}
}

func TestSigningKeysAre36LettersAndDigits(t *testing.T) {
	t.Parallel()
	seen := make(map[string]bool)
	for range 200 {
		key := newSigningKey()
		if !regexp.MustCompile(`^[a-zA-Z0-9]{36}$`).MatchString(key) {
			t.Fatalf("key %q", key)
		}
		if seen[key] {
			t.Fatal("the same key twice")
		}
		seen[key] = true
	}
}

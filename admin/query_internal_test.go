package admin

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"testing"
)

func TestTheSmallestRowsAreThoseOfAFullSort(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	for range 500 {
		rows := make([]int, random.IntN(200))
		for i := range rows {
			rows[i] = random.IntN(50)
		}
		want := slices.Sorted(slices.Values(rows))
		n := random.IntN(len(rows) + 1)
		if got := smallest(slices.Clone(rows), n, cmp.Compare[int]); !slices.Equal(got, want[:n]) {
			t.Fatalf("%d of %v: %v, want %v", n, rows, got, want[:n])
		}
	}
}

package h2

import (
	"math/rand/v2"
	"testing"
)

func TestStreamTableIsAMap(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		random := rand.New(rand.NewPCG(seed, 2))
		var table streamTable
		want := map[uint32]*stream{}
		step := uint32(2) << random.IntN(12) // Ids that are far apart as well.
		next := uint32(1)
		for range 5000 {
			switch open := len(want); {
			case open < random.IntN(300):
				s := &stream{id: next}
				next += step
				table.put(s)
				want[s.id] = s
			case open > 0:
				for id := range want {
					table.remove(id)
					delete(want, id)
					break
				}
			}
			table.remove(next) // Which is not there.
			if id := 1 + step*uint32(random.IntN(400)); table.get(id) != want[id] {
				t.Fatalf("stream %d is %v", id, table.get(id))
			}
			if table.len() != len(want) {
				t.Fatalf("%d streams, and not %d", table.len(), len(want))
			}
		}
		for _, s := range table.list() {
			if want[s.id] != s {
				t.Fatalf("stream %d does not belong there", s.id)
			}
			delete(want, s.id)
			table.remove(s.id)
		}
		if len(want) > 0 || table.len() != 0 {
			t.Fatalf("%d streams were not listed, %d are left", len(want), table.len())
		}
	}
}

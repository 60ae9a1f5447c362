package store_test

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/execgate/execgate/internal/testkit"
	"github.com/execgate/execgate/store"
)

// largeDump is the size that the state is built for: 10,000 targets and as many executions.
func largeDump(t testing.TB) store.Dump {
	d := store.Dump{Head: store.Head{Epoch: "e", Revision: 1, ID: "c", Time: day}}
	for i := range 10_000 {
		target := fmt.Sprintf("3%017d", i)
		d.Items = append(d.Items, targetItem(t, target, fmt.Sprintf("target %d", i), i),
			executionItem(t, fmt.Sprintf("request/pkg%d.Service/Method%d", i/100, i), i, []string{target}, nil))
	}
	return d
}

func BenchmarkLoad(b *testing.B) {
	d := largeDump(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := store.NewState(d); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkApplyOne(b *testing.B) {
	s, err := store.NewState(largeDump(b))
	if err != nil {
		b.Fatal(err)
	}
	item := targetItem(b, fmt.Sprintf("3%017d", 5000), "renamed", 5000)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Apply(2, []store.Item{item}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDump(b *testing.B) {
	s, err := store.NewState(largeDump(b))
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		s.Dump()
	}
}

func BenchmarkWriteCopy(b *testing.B) {
	d := largeDump(b)
	path := b.TempDir() + "/copy"
	for b.Loop() {
		if err := store.WriteCopy(path, "x", d); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkMemory(b *testing.B) {
	d := largeDump(b)
	var before, after runtime.MemStats
	for b.Loop() {
		runtime.GC()
		runtime.ReadMemStats(&before)
		s, err := store.NewState(d)
		if err != nil {
			b.Fatal(err)
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		runtime.KeepAlive(s)
	}
	values := 0
	for _, it := range d.Items {
		values += len(it.Value)
	}
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc+uint64(values))/1e6, "MB/state")
}

// BenchmarkReplica starts a replica of a full store, and changes one target of it, over both backends.
func BenchmarkReplica(b *testing.B) {
	open := map[string]func(b *testing.B) store.Store{
		"embedded": func(b *testing.B) store.Store { return openEmbedded(b, b.TempDir()+"/store.db") },
		"redis": func(b *testing.B) store.Store {
			return openRedis(b, store.RedisOptions{URL: testkit.StartRedis(b, testkit.RedisOptions{}).URL})
		},
		"redis with AOF": func(b *testing.B) store.Store {
			return openRedis(b, store.RedisOptions{URL: testkit.StartRedis(b, testkit.RedisOptions{AOF: true}).URL})
		},
	}
	for _, name := range []string{"embedded", "redis", "redis with AOF"} {
		s := open[name](b)
		if _, err := s.Commit(b.Context(), store.Commit{Items: largeDump(b).Items}); err != nil {
			b.Fatal(err)
		}
		b.Run("start/"+name, func(b *testing.B) {
			for b.Loop() {
				r := store.NewReplica(s, store.ReplicaOptions{})
				if err := r.Start(b.Context()); err != nil || len(r.State().Targets()) != 10_000 {
					b.Fatal(err)
				}
				stopReplica(b, r)
			}
		})
		b.Run("update/"+name, func(b *testing.B) {
			r := store.NewReplica(s, store.ReplicaOptions{})
			if err := r.Start(b.Context()); err != nil {
				b.Fatal(err)
			}
			defer stopReplica(b, r)
			for n := 0; b.Loop(); n++ {
				put(b, r, fmt.Sprintf("3%017d", 5000), fmt.Sprint("renamed ", n))
			}
		})
		b.Run("fresh/"+name, func(b *testing.B) {
			r := store.NewReplica(s, store.ReplicaOptions{})
			if err := r.Start(b.Context()); err != nil {
				b.Fatal(err)
			}
			defer stopReplica(b, r)
			for b.Loop() {
				if _, err := r.Fresh(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkManyOfOneTarget loads 50,000 executions that all call one target.
func BenchmarkManyOfOneTarget(b *testing.B) {
	items := []store.Item{targetItem(b, "1", "t", 0)}
	for i := range 50_000 {
		items = append(items, executionItem(b, fmt.Sprintf("event/type.%d", i), i, []string{"1"}, nil))
	}
	for b.Loop() {
		newState(b, items...)
	}
}

package store

import (
	"hash/maphash"
	"iter"
	"maps"
)

const tableShards = 256

var tableSeed = maphash.MakeSeed()

// table is an immutable map. A changed version shares all shards that did not change, so that one change among 10,000
// entries copies some 40 of them. The nil table is empty.
type table[V any] struct {
	shards [tableShards]map[string]V
	n      int
}

func shardOf(key string) int { return int(maphash.String(tableSeed, key) % tableShards) }

func (t *table[V]) get(key string) (V, bool) {
	if t == nil {
		var zero V
		return zero, false
	}
	v, ok := t.shards[shardOf(key)][key]
	return v, ok
}

func (t *table[V]) len() int {
	if t == nil {
		return 0
	}
	return t.n
}

// all iterates in no particular order.
func (t *table[V]) all() iter.Seq2[string, V] {
	return func(yield func(string, V) bool) {
		if t == nil {
			return
		}
		for _, shard := range t.shards {
			for k, v := range shard {
				if !yield(k, v) {
					return
				}
			}
		}
	}
}

// tableEdit collects changes for the next version of a table. It must not be used after done.
type tableEdit[V any] struct {
	from *table[V]
	next *table[V] // nil until the first change
	own  [tableShards]bool
}

func (t *table[V]) edit() *tableEdit[V] { return &tableEdit[V]{from: t} }

func (e *tableEdit[V]) get(key string) (V, bool) {
	if e.next != nil {
		return e.next.get(key)
	}
	return e.from.get(key)
}

// shard returns the shard of key, ready to be written to.
func (e *tableEdit[V]) shard(key string) map[string]V {
	if e.next == nil {
		e.next = new(table[V])
		if e.from != nil {
			*e.next = *e.from
		}
	}
	i := shardOf(key)
	if !e.own[i] {
		e.own[i] = true
		if e.next.shards[i] == nil {
			e.next.shards[i] = make(map[string]V)
		} else {
			e.next.shards[i] = maps.Clone(e.next.shards[i])
		}
	}
	return e.next.shards[i]
}

func (e *tableEdit[V]) set(key string, v V) {
	m := e.shard(key)
	if _, ok := m[key]; !ok {
		e.next.n++
	}
	m[key] = v
}

func (e *tableEdit[V]) delete(key string) {
	if _, ok := e.get(key); !ok {
		return
	}
	delete(e.shard(key), key)
	e.next.n--
}

func (e *tableEdit[V]) done() *table[V] {
	if e.next == nil {
		return e.from
	}
	return e.next
}

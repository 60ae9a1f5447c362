//go:build linux

package main

import (
	"math/bits"
	"time"
)

// histogram counts latencies in buckets that are about 1.5 % wide.
type histogram struct {
	counts [44 * subBuckets]uint64
	n      uint64
}

const subBuckets = 64

func (h *histogram) add(d time.Duration) {
	h.counts[bucket(uint64(max(d, 0)))]++
	h.n++
}

func bucket(v uint64) int {
	if v < subBuckets {
		return int(v)
	}
	shift := bits.Len64(v) - bits.Len64(subBuckets)
	return min((shift+1)*subBuckets+int(v>>shift)-subBuckets, 44*subBuckets-1)
}

func (h *histogram) merge(o *histogram) {
	for i, n := range o.counts {
		h.counts[i] += n
	}
	h.n += o.n
}

// quantile is the upper end of the bucket with the q-th part of what was added.
func (h *histogram) quantile(q float64) time.Duration {
	left := uint64(q * float64(h.n))
	for i, n := range h.counts {
		if n > left {
			if i < subBuckets {
				return time.Duration(i)
			}
			shift := i/subBuckets - 1
			return time.Duration(uint64(i%subBuckets+subBuckets+1) << shift)
		}
		left -= n
	}
	return 0
}

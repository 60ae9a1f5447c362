package admin

import (
	"crypto/rand"
	"encoding/binary"
	"strconv"
	"sync"
	"time"
)

// idEpoch is where the clock of ids starts: 39 bits of 10 ms last until the year 2189.
var idEpoch = time.Date(2014, time.September, 1, 0, 0, 0, 0, time.UTC)

// idGenerator makes decimal ids of about 18 digits that grow with time: 39 bits of time in units of 10 ms, 8 bits that
// count within the unit, 16 bits of the generator. The last are random, so two gateways can meet with a probability of
// 1 in 65,536 in the same unit and count; whoever stores an id checks that it is free. Safe for concurrent use.
type idGenerator struct {
	now     func() time.Time
	machine uint64

	mu   sync.Mutex
	last uint64 // time and count of the last id
}

func newIDGenerator(now func() time.Time) *idGenerator {
	var b [2]byte
	_, _ = rand.Read(b[:]) // never fails
	return &idGenerator{now: now, machine: uint64(binary.BigEndian.Uint16(b[:]))}
}

// next returns a new id, greater than those before it even when the clock goes back or more than 256 are wanted in
// 10 ms: then the ids run ahead of the clock.
func (g *idGenerator) next() string {
	units := uint64(max(g.now().Sub(idEpoch), 0) / (10 * time.Millisecond))
	g.mu.Lock()
	defer g.mu.Unlock()
	g.last = max(g.last+1, units<<8)
	return strconv.FormatUint(g.last<<16|g.machine, 10)
}

const (
	signingKeyLength   = 36
	signingKeyAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
)

// newSigningKey returns 36 random letters and digits, each of the 62 equally likely.
func newSigningKey() string {
	const fair = 256 - 256%len(signingKeyAlphabet)
	key := make([]byte, 0, signingKeyLength)
	var random [64]byte
	for {
		_, _ = rand.Read(random[:]) // never fails
		for _, b := range random {
			if int(b) >= fair {
				continue
			}
			key = append(key, signingKeyAlphabet[int(b)%len(signingKeyAlphabet)])
			if len(key) == signingKeyLength {
				return string(key)
			}
		}
	}
}

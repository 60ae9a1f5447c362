package admin

import (
	"crypto/sha256"
	"net/netip"
	"sync"
	"time"
)

const (
	// Failures that one address may make at once, and per second after that.
	failureBurst     = 50
	failurePerSecond = 5
	// maxFailingAddresses and maxGoodTokens bound the memory of a failureLimit.
	maxFailingAddresses = 4096
	maxGoodTokens       = 4096
)

// failureLimit bounds failed authentications per client address. An address that failed too often is refused without a
// look at its token, so that guessing does not go on; except for a token that was good from that address before, so
// that a stranger at the same address (loopback, NAT) locks nobody out. Safe for concurrent use.
type failureLimit struct {
	now func() time.Time

	mu        sync.Mutex
	addresses map[netip.Prefix]*failureBucket
	good      map[goodToken]struct{}
}

// failureBucket holds how many failures are still allowed, as of a time.
type failureBucket struct {
	left float64
	at   time.Time
}

type goodToken struct {
	address netip.Prefix
	digest  [sha256.Size]byte
}

func newFailureLimit(now func() time.Time) *failureLimit {
	return &failureLimit{
		now:       now,
		addresses: make(map[netip.Prefix]*failureBucket),
		good:      make(map[goodToken]struct{}),
	}
}

// allow says whether the token may be looked at.
func (f *failureLimit) allow(address string, digest [sha256.Size]byte) bool {
	prefix := addressPrefix(address)
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.good[goodToken{prefix, digest}]; ok {
		return true
	}
	b := f.addresses[prefix]
	if b == nil {
		return true
	}
	b.refill(f.now())
	return b.left >= 1
}

// failed takes note of a failure.
func (f *failureLimit) failed(address string, digest [sha256.Size]byte) {
	prefix, now := addressPrefix(address), f.now()
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.good, goodToken{prefix, digest}) // it may have been revoked
	b := f.addresses[prefix]
	if b == nil {
		f.makeRoom(now)
		b = &failureBucket{left: failureBurst, at: now}
		f.addresses[prefix] = b
	}
	b.refill(now)
	b.left = max(b.left-1, 0)
}

// succeeded takes note of a token that is good.
func (f *failureLimit) succeeded(address string, digest [sha256.Size]byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.good) >= maxGoodTokens {
		clear(f.good)
	}
	f.good[goodToken{addressPrefix(address), digest}] = struct{}{}
}

// makeRoom drops the addresses that may fail freely again, and, if many are left, any half: with that many addresses
// at hand an attacker is not held back by a limit per address anyway.
func (f *failureLimit) makeRoom(now time.Time) {
	if len(f.addresses) < maxFailingAddresses {
		return
	}
	for prefix, b := range f.addresses {
		if b.refill(now); b.left >= failureBurst {
			delete(f.addresses, prefix)
		}
	}
	for prefix := range f.addresses {
		if len(f.addresses) <= maxFailingAddresses/2 {
			return
		}
		delete(f.addresses, prefix)
	}
}

func (b *failureBucket) refill(now time.Time) {
	if elapsed := now.Sub(b.at).Seconds(); elapsed > 0 {
		b.left = min(b.left+elapsed*failurePerSecond, failureBurst)
		b.at = now
	}
}

// addressPrefix is the client that an address stands for: an IPv4 address, or the /64 that one IPv6 client has at its
// disposal. What is no address is one client.
func addressPrefix(address string) netip.Prefix {
	var ip netip.Addr
	if ap, err := netip.ParseAddrPort(address); err == nil {
		ip = ap.Addr()
	} else if ip, err = netip.ParseAddr(address); err != nil {
		return netip.Prefix{}
	}
	ip = ip.Unmap().WithZone("")
	bits := 32
	if ip.Is6() {
		bits = 64
	}
	prefix, _ := ip.Prefix(bits)
	return prefix
}

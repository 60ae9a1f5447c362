package admin

import (
	"fmt"
	"testing"
	"time"
)

func TestAnAddressMayFailAgainAfterAWhile(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 7, 1, 0, 0, 0, 0, time.UTC)
	f := newFailureLimit(func() time.Time { return now })
	bad := HashToken("bad")
	failUntilRefused := func(address string) int {
		for n := range 1000 {
			if !f.allow(address, bad) {
				return n
			}
			f.failed(address, bad)
		}
		return -1
	}
	if n := failUntilRefused("192.0.2.1:1"); n != failureBurst {
		t.Errorf("%d failures at once, want %d", n, failureBurst)
	}
	if f.allow("192.0.2.1:2", bad) {
		t.Error("another port of the address is let through")
	}
	if !f.allow("192.0.2.2:1", bad) {
		t.Error("another address is refused")
	}
	now = now.Add(time.Second)
	if n := failUntilRefused("192.0.2.1:3"); n != failurePerSecond {
		t.Errorf("%d failures after a second, want %d", n, failurePerSecond)
	}
	if n := failUntilRefused("[2001:db8::1]:1"); n != failureBurst {
		t.Errorf("%d failures of an IPv6 address", n)
	}
	if f.allow("[2001:db8::2]:1", bad) {
		t.Error("another address of the same /64 is let through")
	}
}

func TestAGoodTokenPassesWhereOthersAreRefused(t *testing.T) {
	t.Parallel()
	f := newFailureLimit(time.Now)
	const address = "192.0.2.1:1"
	good, new, bad := HashToken("good"), HashToken("new"), HashToken("bad")
	f.succeeded(address, good)
	for range failureBurst {
		f.failed(address, bad)
	}
	if !f.allow(address, good) {
		t.Error("a token that was good from the address is refused")
	}
	if f.allow(address, new) {
		t.Error("a token that is new at the address is looked at")
	}
	f.failed(address, good)
	if f.allow(address, good) {
		t.Error("a token that is good no more passes")
	}
}

func TestTheMemoryOfFailuresIsBounded(t *testing.T) {
	t.Parallel()
	f := newFailureLimit(time.Now)
	for i := range 3 * maxFailingAddresses {
		address := fmt.Sprintf("10.%d.%d.%d:1", i>>16, i>>8&255, i&255)
		f.failed(address, HashToken("bad"))
		f.succeeded(address, HashToken("good"))
	}
	if len(f.addresses) > maxFailingAddresses || len(f.good) > maxGoodTokens {
		t.Errorf("%d addresses, %d tokens", len(f.addresses), len(f.good))
	}
}

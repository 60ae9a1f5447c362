package proxy

import (
	"testing"
	"time"

	"github.com/execgate/execgate/proxy/h2"
)

func TestParseGRPCTimeout(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]time.Duration{
		"1S": time.Second, "0n": 0, "99999999m": 99999999 * time.Millisecond, "7u": 7 * time.Microsecond, "2M": 2 * time.Minute, "3H": 3 * time.Hour,
		"99999999H": 1<<63 - 1,
		"":          -1, "S": -1, "1": -1, "1s": -1, "-1S": -1, "+1S": -1, "1.5S": -1, "123456789S": -1, " 1S": -1, "1SS": -1,
	} {
		got, ok := h2.ParseTimeout(in)
		if ok != (want >= 0) || ok && got != want {
			t.Errorf("%q: %v, %v", in, got, ok)
		}
	}
}

func TestFormatGRPCTimeoutNeverGivesMoreThanIsLeft(t *testing.T) {
	t.Parallel()
	for in, want := range map[time.Duration]string{
		1: "1n", 99_999_999: "99999999n", 100_000_000: "100000u", time.Second: "1000000u", 10 * time.Second: "10000000u",
		100*time.Second + 1: "100000m", 30 * time.Hour: "108000S", 1 << 62: "76861433M", 1<<63 - 1: "2562047H",
	} {
		if got := formatGRPCTimeout(in); got != want {
			t.Errorf("%v: %q, want %q", in, got, want)
		}
	}
}

// FuzzGRPCTimeout: what is written is read again, and is never more than was given.
func FuzzGRPCTimeout(f *testing.F) {
	f.Add(int64(1))
	f.Add(int64(1<<63 - 1))
	f.Fuzz(func(t *testing.T, n int64) {
		if n <= 0 {
			return
		}
		d, ok := h2.ParseTimeout(formatGRPCTimeout(time.Duration(n)))
		if !ok || d > time.Duration(n) || time.Duration(n)-d > time.Duration(n)/1e4 {
			t.Errorf("%d became %d, %v", n, d, ok)
		}
	})
}

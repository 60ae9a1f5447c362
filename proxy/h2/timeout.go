package h2

import "time"

// maxTimeoutDigits is the most digits that grpc-timeout may have.
const maxTimeoutDigits = 8

// ParseTimeout reads a grpc-timeout header value: one to eight digits and a unit. ok is false when it is neither;
// such a header is the upstream's to refuse.
func ParseTimeout(s string) (d time.Duration, ok bool) {
	if len(s) < 2 || len(s) > maxTimeoutDigits+1 {
		return 0, false
	}
	var unit time.Duration
	switch s[len(s)-1] {
	case 'H':
		unit = time.Hour
	case 'M':
		unit = time.Minute
	case 'S':
		unit = time.Second
	case 'm':
		unit = time.Millisecond
	case 'u':
		unit = time.Microsecond
	case 'n':
		unit = time.Nanosecond
	default:
		return 0, false
	}
	var n int64
	for _, c := range []byte(s[:len(s)-1]) {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	const maxDuration = time.Duration(1<<63 - 1)
	if n > int64(maxDuration/unit) {
		return maxDuration, true // 99999999H is 11,000 years: longer than a Duration can say
	}
	return time.Duration(n) * unit, true
}

// late reports whether the deadline that came with a call has passed.
func (k *call) late() bool {
	d, ok := ParseTimeout(k.timeout)
	return ok && time.Duration(k.up.conn.Load().eng.clock()-k.start) >= d
}

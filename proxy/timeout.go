package proxy

import (
	"strconv"
	"time"
)

// maxTimeoutDigits is the most digits that grpc-timeout may have.
const maxTimeoutDigits = 8

// parseGRPCTimeout reads a grpc-timeout header value: one to eight digits and a unit. ok is false when it is neither;
// such a header is the upstream's to refuse.
func parseGRPCTimeout(s string) (d time.Duration, ok bool) {
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

// formatGRPCTimeout writes d as a grpc-timeout value in the finest unit that fits eight digits, rounded down, so that
// what is passed on is never later than what was given. d must be positive.
func formatGRPCTimeout(d time.Duration) string {
	const most = 99_999_999
	for _, u := range [...]struct {
		unit time.Duration
		name byte
	}{
		{time.Nanosecond, 'n'},
		{time.Microsecond, 'u'},
		{time.Millisecond, 'm'},
		{time.Second, 'S'},
		{time.Minute, 'M'},
	} {
		if n := int64(d / u.unit); n <= most {
			return string(append(strconv.AppendInt(make([]byte, 0, maxTimeoutDigits+1), n, 10), u.name))
		}
	}
	return string(append(strconv.AppendInt(make([]byte, 0, maxTimeoutDigits+1), int64(d/time.Hour), 10), 'H'))
}

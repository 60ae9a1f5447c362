package proxy

import (
	"strconv"
	"time"
)

// maxTimeoutDigits is the most digits that grpc-timeout may have.
const maxTimeoutDigits = 8

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

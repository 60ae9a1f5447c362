package targetclient

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// retryAfter reads the Retry-After of an answer (RFC 9110, 10.2.3): seconds, or a
// date, which is compared with the answer's own Date, so that clocks that differ
// do not matter. Zero: there is none, or it cannot be read, or it has passed.
func retryAfter(value, date string, now time.Time) time.Duration {
	value = strings.TrimSpace(value)
	if value == "" {
		return 0
	}
	if seconds, err := strconv.ParseUint(value, 10, 64); err == nil {
		return time.Duration(min(seconds, uint64(maxRetryAfter/time.Second))) * time.Second
	}
	at, err := http.ParseTime(value)
	if err != nil {
		return 0
	}
	if answered, err := http.ParseTime(date); err == nil {
		now = answered
	}
	return min(max(at.Sub(now), 0), maxRetryAfter)
}

// maxRetryAfter keeps the arithmetic in range; who waits has a smaller bound.
const maxRetryAfter = 10 * 365 * 24 * time.Hour

package proxy

import (
	"net/url"
	"strings"
)

// queryValue returns the first value of a query parameter, as net/url reads it.
func queryValue(rawQuery, name string) (string, bool) {
	for pair := range strings.SplitSeq(rawQuery, "&") {
		if value, ok := pairValue(pair, name); ok {
			return value, true
		}
	}
	return "", false
}

// pairValue returns the value of one pair of a query if it is of the parameter. What net/url skips is skipped.
func pairValue(pair, name string) (string, bool) {
	if pair == "" || strings.Contains(pair, ";") {
		return "", false
	}
	key, value, _ := strings.Cut(pair, "=")
	if key, err := url.QueryUnescape(key); err != nil || key != name {
		return "", false
	}
	value, err := url.QueryUnescape(value)
	return value, err == nil
}

// replaceQueryValue sets the first value of a query parameter, and removes others. All else stays byte for byte.
func replaceQueryValue(rawQuery, name, value string) string {
	var b strings.Builder
	done := false
	for pair := range strings.SplitSeq(rawQuery, "&") {
		if _, ok := pairValue(pair, name); ok {
			if done {
				continue
			}
			done = true
			pair = name + "=" + url.QueryEscape(value)
		}
		if b.Len() > 0 {
			b.WriteByte('&')
		}
		b.WriteString(pair)
	}
	return b.String()
}

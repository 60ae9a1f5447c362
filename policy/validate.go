package policy

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"golang.org/x/net/http/httpguts"
	"golang.org/x/net/idna"
)

// The bounds of a policy.
const (
	maxCount       = 1_000_000
	maxSpan        = 24 * time.Hour
	maxHosts       = 100
	maxHeaders     = 50
	maxHeaderName  = 256
	maxHeaderValue = 8 << 10
	maxHeaderBytes = 32 << 10
)

// Validate says what cannot be stored: all of it, one line each, none with a header's value. It brings the names of
// headers into their canonical form, so it is called before a policy is compared.
func (t *Target) Validate() error {
	errs := []error{t.Breaker.validate()}
	if t.MaxConcurrency != nil && *t.MaxConcurrency > maxCount {
		errs = append(errs, fmt.Errorf("max_concurrency: must be at most %d, or 0 for no cap", maxCount))
	}
	errs = append(errs, validateHosts(t.AllowedHosts)...)
	errs = append(errs, t.validateDelivery()...)
	return errors.Join(append(errs, t.validateHeaders()...)...)
}

func (b *Breaker) validate() error {
	if b == nil {
		return nil
	}
	var errs []error
	count := func(name string, n *uint32) {
		if n != nil && (*n < 1 || *n > maxCount) {
			errs = append(errs, fmt.Errorf("breaker.%s: must be between 1 and %d", name, maxCount))
		}
	}
	span := func(name string, d *time.Duration) {
		if d != nil && (*d < time.Millisecond || *d > maxSpan) {
			errs = append(errs, fmt.Errorf("breaker.%s: must be between 1ms and 24h", name))
		}
	}
	count("consecutive_failures", b.ConsecutiveFailures)
	span("window", b.Window)
	count("min_calls", b.MinCalls)
	if r := b.FailureRatio; r != nil && !(*r > 0 && *r <= 1) { // NaN is neither
		errs = append(errs, errors.New("breaker.failure_ratio: must be greater than 0 and at most 1"))
	}
	span("open_for", b.OpenFor)
	count("half_open_calls", b.HalfOpenCalls)
	return errors.Join(errs...)
}

func validateHosts(hosts []string) (errs []error) {
	if len(hosts) > maxHosts {
		errs = append(errs, fmt.Errorf("allowed_hosts: at most %d are possible", maxHosts))
	}
	for i, host := range hosts {
		if err := validateHost(host); err != nil {
			errs = append(errs, fmt.Errorf("allowed_hosts[%d]: %q %w", i, host, err))
		}
	}
	return errs
}

// validateHost accepts a name or an address, either with a port.
func validateHost(entry string) error {
	switch {
	case entry == "":
		return errors.New("is empty")
	case strings.Contains(entry, "://"):
		return errors.New("is a URL: give only its host")
	case strings.ContainsRune(entry, '*'):
		return errors.New("is a pattern: hosts are compared exactly")
	case strings.ContainsRune(entry, '/'):
		return errors.New("is a path or a range: give a host name or an address")
	}
	host := entry
	if h, port, err := net.SplitHostPort(entry); err == nil {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return errors.New("has no valid port")
		}
		host = h
	} else if strings.HasPrefix(entry, "[") && strings.HasSuffix(entry, "]") {
		host = entry[1 : len(entry)-1]
	}
	if a, err := netip.ParseAddr(host); err == nil {
		if a.Zone() != "" {
			return errors.New("is an address with a zone: leave out the zone")
		}
		return nil
	}
	if !isHostName(host) {
		return errors.New("is neither a host name nor an address")
	}
	return nil
}

func isHostName(host string) bool {
	host = strings.TrimSuffix(host, ".")
	if strings.ContainsFunc(host, func(r rune) bool { return r > unicode.MaxASCII }) {
		ascii, err := idna.Lookup.ToASCII(host)
		if err != nil {
			return false
		}
		host = ascii
	}
	if host == "" || len(host) > 253 {
		return false
	}
	last := ""
	for label := range strings.SplitSeq(host, ".") {
		if label == "" || len(label) > 63 {
			return false
		}
		for _, c := range []byte(label) {
			if c != '-' && c != '_' && (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
				return false
			}
		}
		last = label
	}
	_, err := strconv.ParseUint(last, 0, 64) // a mistyped address, not a name
	return err != nil
}

// ownHeaders are what the gateway says itself, or what frames the message.
var ownHeaders = []string{
	"Accept-Encoding", "Connection", "Content-Encoding", "Content-Length", "Content-Type", "Execgate-Attempt", "Expect",
	"Host", "Keep-Alive", "Proxy-Authorization", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade",
	"Webhook-Id", "Webhook-Signature", "Webhook-Timestamp", "Zitadel-Signature",
}

func (t *Target) validateHeaders() (errs []error) {
	if len(t.Headers) > maxHeaders {
		errs = append(errs, fmt.Errorf("headers: at most %d are possible", maxHeaders))
	}
	canonical := make(map[string]string, len(t.Headers))
	bytes := 0
	for _, name := range slices.Sorted(maps.Keys(t.Headers)) {
		value := t.Headers[name]
		bytes += len(name) + len(value)
		if fault := headerFault(name, value); fault != "" {
			errs = append(errs, fmt.Errorf("headers: %q %s", name, fault))
			continue
		}
		key := textproto.CanonicalMIMEHeaderKey(name)
		if _, twice := canonical[key]; twice {
			errs = append(errs, fmt.Errorf("headers: %q is given twice", key))
		}
		canonical[key] = value
	}
	if bytes > maxHeaderBytes {
		errs = append(errs, fmt.Errorf("headers: all together may have at most %d bytes", maxHeaderBytes))
	}
	if len(errs) == 0 && t.Headers != nil {
		t.Headers = canonical
	}
	return errs
}

func headerFault(name, value string) string {
	switch {
	case !httpguts.ValidHeaderFieldName(name) || len(name) > maxHeaderName:
		return "is not the name of a header"
	case slices.Contains(ownHeaders, textproto.CanonicalMIMEHeaderKey(name)):
		return "is set by the gateway itself"
	case !httpguts.ValidHeaderFieldValue(value):
		return "has a value that no header can carry"
	case value != strings.TrimSpace(value):
		return "has a value that begins or ends with space"
	case len(value) > maxHeaderValue:
		return fmt.Sprintf("has a value of more than %d bytes", maxHeaderValue)
	}
	return ""
}

package targetclient

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode"

	"golang.org/x/net/idna"
)

// DefaultDenyList returns a fresh copy of the addresses that targets may not
// have unless the configuration says otherwise: this machine, private networks,
// link-local addresses.
func DefaultDenyList() []string {
	return []string{
		"localhost",
		"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16",
		"172.16.0.0/12", "192.168.0.0/16", "198.18.0.0/15",
		"::/128", "::1/128", "fc00::/7", "fe80::/10",
	}
}

// nat64 is the well-known prefix behind which IPv6-only networks reach IPv4
// (RFC 6052): the last four bytes are the IPv4 address.
var nat64 = netip.MustParsePrefix("64:ff9b::/96")

// addressList is a set of addresses and host names.
type addressList struct {
	prefixes []netip.Prefix
	names    map[string]struct{}
}

// parseAddressList reads entries that are CIDRs, addresses or host names. The
// error joins one per bad entry.
func parseAddressList(entries []string) (addressList, error) {
	l := addressList{names: make(map[string]struct{})}
	var errs []error
	for _, entry := range entries {
		if err := l.add(entry); err != nil {
			errs = append(errs, fmt.Errorf("entry %q: %w", entry, err))
		}
	}
	return l, errors.Join(errs...)
}

func (l *addressList) add(entry string) error {
	if strings.Contains(entry, "/") {
		p, err := netip.ParsePrefix(entry)
		if err != nil {
			return errors.New("not a CIDR")
		}
		if p.Addr().Is4In6() {
			// An address is compared as IPv4 however it is written.
			if p.Bits() < 96 {
				return errors.New("a CIDR of IPv4-mapped addresses needs at least 96 bits")
			}
			p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
		}
		l.prefixes = append(l.prefixes, p.Masked())
		return nil
	}
	if a, err := netip.ParseAddr(entry); err == nil {
		if a.Zone() != "" {
			return errors.New("an address with a zone cannot be listed: leave out the zone")
		}
		a = a.Unmap()
		l.prefixes = append(l.prefixes, netip.PrefixFrom(a, a.BitLen()))
		return nil
	}
	name := normalHost(entry)
	if err := checkHostName(name); err != nil {
		return err
	}
	l.names[name] = struct{}{}
	return nil
}

// checkHostName refuses what was probably meant to be something else: the list
// would silently match nothing.
func checkHostName(name string) error {
	if name == "" {
		return errors.New("empty")
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 {
			return errors.New("not a host name, address or CIDR")
		}
		for _, r := range []byte(label) {
			ok := r == '-' || r == '_' || '0' <= r && r <= '9' || 'a' <= r && r <= 'z'
			if !ok {
				return errors.New("not a host name, address or CIDR (wildcards, ports and urls are not possible)")
			}
		}
	}
	last := name[strings.LastIndexByte(name, '.')+1:]
	if _, err := strconv.ParseUint(last, 0, 64); err == nil || strings.Trim(last, "0123456789") == "" {
		return errors.New("not an address in its usual notation")
	}
	return nil
}

func (l *addressList) empty() bool { return len(l.prefixes) == 0 && len(l.names) == 0 }

func (l *addressList) hasName(host string) bool {
	_, ok := l.names[host]
	return ok
}

func (l *addressList) hasAddr(a netip.Addr) bool {
	a = a.WithZone("").Unmap()
	if l.hasPlainAddr(a) {
		return true
	}
	if nat64.Contains(a) {
		b := a.As16()
		return l.hasPlainAddr(netip.AddrFrom4([4]byte(b[12:])))
	}
	return false
}

func (l *addressList) hasPlainAddr(a netip.Addr) bool {
	return slices.ContainsFunc(l.prefixes, func(p netip.Prefix) bool { return p.Contains(a) })
}

// normalHost returns a host name in the form in which names are compared: lower
// case, ASCII, without the final dot.
func normalHost(host string) string {
	return strings.TrimSuffix(strings.ToLower(asciiHost(host)), ".")
}

// asciiHost returns an international name as it is looked up, any other host as
// it is. (net/http does the same before it dials.)
func asciiHost(host string) string {
	if !strings.ContainsFunc(host, func(r rune) bool { return r > unicode.MaxASCII }) {
		return host
	}
	if ascii, err := idna.Lookup.ToASCII(host); err == nil {
		return ascii
	}
	return host
}

// addressPolicy decides where connections may go: everywhere but to what the
// deny list covers, and there too if the allow list covers it.
type addressPolicy struct {
	deny, allow addressList
	resolver    *net.Resolver
}

// hostVerdict is what a host name alone says.
type hostVerdict uint8

const (
	hostByAddress hostVerdict = iota // its addresses decide
	hostAllowed                      // whatever its addresses
	hostDenied                       // unless an address is allowed expressly
)

func (p *addressPolicy) host(name string) hostVerdict {
	name = normalHost(name)
	switch {
	case p.allow.hasName(name):
		return hostAllowed
	case p.deny.hasName(name):
		return hostDenied
	default:
		return hostByAddress
	}
}

// permits says whether a connection to the address may be made for a host with
// the verdict.
func (p *addressPolicy) permits(v hostVerdict, a netip.Addr) bool {
	if v == hostAllowed || p.allow.hasAddr(a) {
		return true
	}
	return v != hostDenied && !p.deny.hasAddr(a)
}

// dialer returns a dial function that checks the address of each connection
// after resolving and before connecting, so that no name can point somewhere
// else between check and use.
func (p *addressPolicy) dialer(timeout time.Duration) func(ctx context.Context, network, addr string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		host, _, err := net.SplitHostPort(addr)
		if err != nil {
			return nil, err
		}
		verdict := p.host(host)
		if verdict == hostDenied && len(p.allow.prefixes) == 0 {
			return nil, fmt.Errorf("dial %s: %w", host, ErrDenied)
		}
		d := net.Dialer{
			Timeout:   timeout,
			KeepAlive: 30 * time.Second,
			Resolver:  p.resolver,
			ControlContext: func(_ context.Context, _, address string, _ syscall.RawConn) error {
				ap, err := netip.ParseAddrPort(address)
				if err != nil || !p.permits(verdict, ap.Addr()) {
					return ErrDenied
				}
				return nil
			},
		}
		return d.DialContext(ctx, network, addr)
	}
}

// check decides about a host before anything is connected: as the dial would,
// except that of several addresses a denied one is enough to refuse (unless
// another one is allowed expressly), and that a host without addresses is
// refused.
func (p *addressPolicy) check(ctx context.Context, host string) error {
	if p.deny.empty() {
		return nil
	}
	verdict := p.host(host)
	switch {
	case verdict == hostAllowed:
		return nil
	case verdict == hostDenied && len(p.allow.prefixes) == 0:
		return fmt.Errorf("host %q: %w", host, ErrDenied)
	}
	addrs, err := p.lookup(ctx, host)
	if err != nil {
		return fmt.Errorf("host %q cannot be resolved: %w", host, err)
	}
	if slices.ContainsFunc(addrs, p.allow.hasAddr) {
		return nil
	}
	for _, a := range addrs {
		if !p.permits(verdict, a) {
			return fmt.Errorf("host %q: %w", host, ErrDenied)
		}
	}
	return nil
}

func (p *addressPolicy) lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{a}, nil
	}
	r := p.resolver
	if r == nil {
		r = net.DefaultResolver
	}
	return r.LookupNetIP(ctx, "ip", asciiHost(host))
}

// hostAllowedBy says whether the url's host is one of the entries; no entries
// allow every host.
func hostAllowedBy(entries []string, u *url.URL) bool {
	if len(entries) == 0 {
		return true
	}
	host := sameHostForm(u.Hostname())
	port := u.Port()
	if port == "" {
		port = defaultPort(u.Scheme)
	}
	return slices.ContainsFunc(entries, func(entry string) bool {
		if h, p, err := net.SplitHostPort(entry); err == nil {
			return sameHostForm(h) == host && p == port
		}
		return sameHostForm(strings.Trim(entry, "[]")) == host
	})
}

// sameHostForm is normalHost that also knows the many ways to write an address.
func sameHostForm(host string) string {
	if a, err := netip.ParseAddr(host); err == nil {
		return a.Unmap().String()
	}
	return normalHost(host)
}

func defaultPort(scheme string) string {
	if scheme == "https" {
		return "443"
	}
	return "80"
}

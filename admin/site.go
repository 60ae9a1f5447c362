package admin

import (
	"net"
	"net/netip"
	"net/url"
	"strings"
)

// foreignSite says whether a browser sends the call on behalf of another site. While no token is configured, the
// listener on loopback is the only fence, and a web page in the operator's browser is inside it: its requests carry a
// foreign Origin, or, when its name was made to resolve to loopback, a Host that is not this machine.
func foreignSite(in incoming) bool {
	if !localHost(in.host) {
		return true
	}
	if in.origin == "" {
		return false
	}
	origin, err := url.Parse(in.origin)
	return err != nil || !strings.EqualFold(origin.Host, in.host)
}

// localHost says whether a Host names an address or this machine, not a name that anyone could have registered. Names
// without a dot (of a container, or in /etc/hosts) cannot be registered.
func localHost(host string) bool {
	name, _, err := net.SplitHostPort(host)
	if err != nil {
		name = host
	}
	name = strings.TrimSuffix(strings.Trim(name, "[]"), ".")
	if _, err := netip.ParseAddr(name); err == nil || !strings.Contains(name, ".") {
		return true
	}
	return strings.HasSuffix(strings.ToLower(name), ".localhost")
}

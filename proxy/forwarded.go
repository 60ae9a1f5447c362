package proxy

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/textproto"
	"strings"
)

// hopByHop reports whether a header (canonical name) belongs to one connection only (RFC 9110 7.6.1).
func hopByHop(name string) bool {
	switch name {
	case "Connection", "Keep-Alive", "Proxy-Connection", "Proxy-Authenticate", "Proxy-Authorization",
		"Te", "Trailer", "Transfer-Encoding", "Upgrade", "Http2-Settings":
		return true
	}
	return false
}

// withoutHopByHop returns the headers of h that may travel on, in a new map that shares h's values.
func withoutHopByHop(h http.Header, extra int) http.Header {
	out := make(http.Header, len(h)+extra)
	for name, values := range h {
		if !hopByHop(name) {
			out[name] = values
		}
	}
	for _, list := range h["Connection"] {
		for token := range strings.SplitSeq(list, ",") {
			if token = textproto.TrimString(token); token != "" {
				delete(out, http.CanonicalHeaderKey(token))
			}
		}
	}
	return out
}

// removeHopByHop is withoutHopByHop in place.
func removeHopByHop(h http.Header) {
	for _, list := range h["Connection"] {
		for token := range strings.SplitSeq(list, ",") {
			if token = textproto.TrimString(token); token != "" {
				h.Del(token)
			}
		}
	}
	for name := range h {
		if hopByHop(name) {
			delete(h, name)
		}
	}
}

// hasToken reports whether a comma-separated header contains token, case-insensitively.
func hasToken(values []string, token string) bool {
	for _, v := range values {
		for part := range strings.SplitSeq(v, ",") {
			if strings.EqualFold(textproto.TrimString(part), token) {
				return true
			}
		}
	}
	return false
}

// trust knows the proxies in front of the gateway whose word on the client is taken.
type trust struct {
	prefixes []netip.Prefix
}

// newTrust reads addresses and CIDRs.
func newTrust(entries []string) (trust, error) {
	var t trust
	for _, entry := range entries {
		if prefix, err := netip.ParsePrefix(entry); err == nil {
			t.prefixes = append(t.prefixes, prefix.Masked())
			continue
		}
		addr, err := netip.ParseAddr(entry)
		if err != nil {
			return trust{}, fmt.Errorf("trusted proxy %q is neither an address nor a CIDR", entry)
		}
		addr = addr.Unmap()
		t.prefixes = append(t.prefixes, netip.PrefixFrom(addr, addr.BitLen()))
	}
	return t, nil
}

func (t trust) trusts(ip string) bool {
	if len(t.prefixes) == 0 {
		return false
	}
	addr, err := netip.ParseAddr(ip)
	if err != nil {
		return false
	}
	addr = addr.Unmap().WithZone("")
	for _, p := range t.prefixes {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

// forward puts what the gateway knows of the client into out, the headers that go upstream for r.
//
// From a trusted proxy the X-Forwarded headers are continued and Forwarded, if given, gets one more element. What
// anybody else claims is replaced.
func (t trust) forward(out http.Header, r *http.Request) {
	ip := clientIP(r.RemoteAddr)
	proto := "http"
	if r.TLS != nil {
		proto = "https"
	}
	if !t.trusts(ip) {
		delete(out, "Forwarded")
		for name := range out {
			if strings.HasPrefix(name, "X-Forwarded-") {
				delete(out, name)
			}
		}
		values := [...]string{ip, r.Host, proto} // One allocation for three headers.
		if ip != "" {
			out["X-Forwarded-For"] = values[0:1:1]
		}
		if r.Host != "" {
			out["X-Forwarded-Host"] = values[1:2:2]
		}
		out["X-Forwarded-Proto"] = values[2:3:3]
		return
	}
	if prior := out["X-Forwarded-For"]; len(prior) > 0 {
		out["X-Forwarded-For"] = []string{strings.Join(prior, ", ") + ", " + ip}
	} else {
		out["X-Forwarded-For"] = []string{ip}
	}
	if len(out["X-Forwarded-Host"]) == 0 && r.Host != "" {
		out["X-Forwarded-Host"] = []string{r.Host}
	}
	if len(out["X-Forwarded-Proto"]) == 0 {
		out["X-Forwarded-Proto"] = []string{proto}
	}
	if prior := out["Forwarded"]; len(prior) > 0 {
		out["Forwarded"] = []string{strings.Join(prior, ", ") + ", " + forwardedElement(ip, r.Host, proto)}
	}
}

// forwardedElement is one hop of the Forwarded header (RFC 7239).
func forwardedElement(ip, host, proto string) string {
	node := ip
	if strings.Contains(ip, ":") {
		node = `"[` + ip + `]"`
	}
	element := "for=" + node
	if host != "" {
		element += `;host="` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(host) + `"`
	}
	return element + ";proto=" + proto
}

// clientIP is the address part of a RemoteAddr, "" if there is none (a Unix socket).
func clientIP(remoteAddr string) string {
	host, _, err := net.SplitHostPort(remoteAddr)
	if err != nil {
		return ""
	}
	return host
}

package targetclient_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/execgate/execgate/targetclient"
)

// dns answers every question with what answers says about the name at that
// moment; nil is "no such host".
func dns(t *testing.T, answers func(name string) []string) *net.Resolver {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		buf := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			if answer := resolve(buf[:n], answers); answer != nil {
				_, _ = conn.WriteTo(answer, from)
			}
		}
	})
	t.Cleanup(func() { conn.Close(); wg.Wait() })
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "udp", conn.LocalAddr().String())
	}}
}

func resolve(question []byte, answers func(string) []string) []byte {
	var m dnsmessage.Message
	if err := m.Unpack(question); err != nil || len(m.Questions) != 1 {
		return nil
	}
	q := m.Questions[0]
	m.Response, m.Additionals = true, nil
	addrs := answers(strings.ToLower(strings.TrimSuffix(q.Name.String(), ".")))
	if addrs == nil {
		m.RCode = dnsmessage.RCodeNameError
	}
	for _, a := range addrs {
		ip := net.ParseIP(a)
		h := dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, Type: q.Type}
		switch four := ip.To4(); {
		case four != nil && q.Type == dnsmessage.TypeA:
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: h, Body: &dnsmessage.AResource{A: [4]byte(four)}})
		case four == nil && q.Type == dnsmessage.TypeAAAA:
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: h, Body: &dnsmessage.AAAAResource{AAAA: [16]byte(ip)}})
		}
	}
	out, _ := m.Pack()
	return out
}

func TestDefaultDenyListAndItsBorders(t *testing.T) {
	t.Parallel()
	c := newClient(t, targetclient.Options{DenyList: targetclient.DefaultDenyList()})
	denied := []string{
		"localhost", "LocalHost", "localhost.", "127.0.0.1", "127.255.255.255", "0.0.0.0", "0.255.255.255", "10.0.0.0", "10.255.255.255",
		"100.64.0.0", "100.127.255.255", "169.254.169.254", "172.16.0.0", "172.31.255.255", "192.168.0.0", "192.168.255.255",
		"198.18.0.0", "198.19.255.255", "[::]", "[::1]", "[0:0:0:0:0:0:0:1]", "[fc00::]", "[fdff:ffff::1]", "[fe80::1]", "[fe80::1%25eth0]", "[febf::1]",
		"[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[0:0:0:0:0:ffff:a00:1]", "[64:ff9b::10.0.0.1]", "ｌocalhost", "１２７.0.0.1",
	}
	passing := []string{
		"1.0.0.0", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255", "128.0.0.0", "169.253.255.255", "169.255.0.0",
		"172.15.255.255", "172.32.0.0", "192.167.255.255", "192.169.0.0", "198.17.255.255", "198.20.0.0",
		"[::2]", "[2001:db8::1]", "[fbff::1]", "[fe00::1]", "[fec0::1]", "[::ffff:8.8.8.8]", "[64:ff9b::8.8.8.8]",
	}
	for _, host := range denied {
		if err := c.CheckURL(t.Context(), "http://"+host+":80/x"); !errors.Is(err, targetclient.ErrDenied) {
			t.Errorf("%s: %v, want denied", host, err)
		}
		_, err := do(t, c, &targetclient.Target{ID: host, URL: "http://" + host + ":80/"}, "{}")
		wantReason(t, err, targetclient.ReasonDeniedAddress)
	}
	for _, host := range passing {
		if err := c.CheckURL(t.Context(), "http://"+host+"/x"); err != nil {
			t.Errorf("%s: %v, want no error", host, err)
		}
	}
}

func TestTheListIsACopy(t *testing.T) {
	t.Parallel()
	targetclient.DefaultDenyList()[0] = "changed"
	if targetclient.DefaultDenyList()[0] != "localhost" {
		t.Error("changed for everybody")
	}
}

func TestAllowListHoldsExceptions(t *testing.T) {
	t.Parallel()
	s := serve(t, func(http.ResponseWriter, *http.Request) {})
	_, port, _ := net.SplitHostPort(s.Listener.Addr().String())
	resolver := dns(t, func(name string) []string {
		switch name {
		case "inside.test":
			return []string{"127.0.0.1"}
		case "both.test":
			return []string{"::1", "127.0.0.1"}
		default:
			return nil
		}
	})
	tests := []struct {
		deny, allow []string
		host        string
		passes      bool
	}{
		{nil, nil, "127.0.0.1", true},
		{nil, []string{"10.0.0.1"}, "127.0.0.1", true},
		{[]string{"10.0.0.0/8"}, nil, "127.0.0.1", true},
		{[]string{"127.0.0.0/8"}, nil, "127.0.0.1", false},
		{[]string{"::ffff:127.0.0.0/104"}, nil, "127.0.0.1", false},
		{[]string{"::ffff:127.0.0.1"}, nil, "127.0.0.1", false},
		{[]string{"127.0.0.1"}, nil, "[::ffff:127.0.0.1]", false},
		{[]string{"127.0.0.77/8"}, nil, "127.0.0.1", false},
		{[]string{"127.0.0.1"}, []string{"127.0.0.1"}, "127.0.0.1", true},
		{[]string{"127.0.0.0/8"}, []string{"127.0.0.1"}, "[::ffff:7f00:1]", true},
		{[]string{"127.0.0.0/8"}, []string{"127.0.0.2"}, "127.0.0.1", false},
		{[]string{"127.0.0.0/8"}, []string{"inside.test"}, "127.0.0.1", false},
		{[]string{"127.0.0.0/8"}, []string{"Inside.Test."}, "inside.test", true},
		{[]string{"127.0.0.0/8"}, []string{"inside.test"}, "INSIDE.test.", true},
		{[]string{"127.0.0.0/8"}, []string{"127.0.0.0/8"}, "inside.test", true},
		{[]string{"127.0.0.0/8"}, []string{"test"}, "inside.test", false},
		{[]string{"inside.test"}, nil, "inside.test", false},
		{[]string{"INSIDE.TEST"}, nil, "inside.test.", false},
		{[]string{"inside.test"}, nil, "127.0.0.1", true},
		{[]string{"inside.test"}, []string{"127.0.0.1"}, "inside.test", true},
		{[]string{"inside.test"}, []string{"127.0.0.2"}, "inside.test", false},
		{[]string{"inside.test"}, []string{"inside.test"}, "inside.test", true},
		{[]string{"::1", "127.0.0.0/8"}, []string{"127.0.0.1"}, "both.test", true},
		{[]string{"::1", "127.0.0.0/8"}, nil, "both.test", false},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("deny %v allow %v host %s", tt.deny, tt.allow, tt.host), func(t *testing.T) {
			t.Parallel()
			c := newClient(t, targetclient.Options{DenyList: tt.deny, AllowList: tt.allow, Resolver: resolver})
			u := "http://" + tt.host + ":" + port
			checked := c.CheckURL(t.Context(), u)
			_, called := do(t, c, target(u), "{}")
			if tt.passes {
				if checked != nil || called != nil {
					t.Errorf("CheckURL: %v; Do: %v; want none", checked, called)
				}
				return
			}
			wantReason(t, called, targetclient.ReasonDeniedAddress)
			if !errors.Is(checked, targetclient.ErrDenied) {
				t.Errorf("CheckURL: %v, want denied", checked)
			}
		})
	}
}

func TestTheAddressThatIsDialledCounts(t *testing.T) {
	t.Parallel()
	var calls atomic.Int64
	s := serve(t, func(http.ResponseWriter, *http.Request) { calls.Add(1) })
	_, port, _ := net.SplitHostPort(s.Listener.Addr().String())
	var rebound atomic.Bool
	c := newClient(t, targetclient.Options{
		DenyList: targetclient.DefaultDenyList(),
		Resolver: dns(t, func(string) []string {
			if rebound.Load() {
				return []string{"127.0.0.1"}
			}
			return []string{"192.0.2.1"}
		}),
	})
	u := "http://rebinding.test:" + port
	if err := c.CheckURL(t.Context(), u); err != nil {
		t.Fatalf("CheckURL: %v", err)
	}
	rebound.Store(true)
	_, err := do(t, c, target(u), "{}")
	wantReason(t, err, targetclient.ReasonDeniedAddress)
	if calls.Load() != 0 {
		t.Error("the target was reached")
	}
}

func TestCheckURLResolvesOnlyIfSomethingIsDenied(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	resolver := dns(t, func(name string) []string {
		asked.Add(1)
		if name == "mixed.test" {
			return []string{"192.0.2.1", "10.0.0.1"}
		}
		return nil
	})
	open := newClient(t, targetclient.Options{Resolver: resolver, AllowList: []string{"10.0.0.1"}})
	if err := open.CheckURL(t.Context(), "https://unknown.test/"); err != nil || asked.Load() != 0 {
		t.Errorf("without deny list: %v, %d questions", err, asked.Load())
	}
	guarded := newClient(t, targetclient.Options{Resolver: resolver, DenyList: []string{"10.0.0.0/8", "named.test"}})
	if err := guarded.CheckURL(t.Context(), "https://named.test/"); !errors.Is(err, targetclient.ErrDenied) || asked.Load() != 0 {
		t.Errorf("denied name: %v, %d questions", err, asked.Load())
	}
	if err := guarded.CheckURL(t.Context(), "https://unknown.test/?secret"); err == nil || errors.Is(err, targetclient.ErrDenied) || strings.Contains(err.Error(), "secret") {
		t.Errorf("unresolvable: %v", err)
	}
	if err := guarded.CheckURL(t.Context(), "https://mixed.test/"); !errors.Is(err, targetclient.ErrDenied) {
		t.Errorf("one of two denied: %v", err)
	}
	for _, u := range []string{"", "relative", "ftp://x/", "http://", "http://u:secret@[/"} {
		for _, c := range []*targetclient.Client{open, guarded} {
			if err := c.CheckURL(t.Context(), u); err == nil || strings.Contains(err.Error(), "secret") {
				t.Errorf("%q: %v", u, err)
			}
		}
	}
}

func TestBadOptionsAreAllNamed(t *testing.T) {
	t.Parallel()
	bad := []string{
		"10.0.0.0/33", "*.example.com", "http://x", "localhost:80", "1.2.3", "256.1.1.1", "0x7f000001", "fe80::1%eth0", "::ffff:0:0/80",
		"a b", "", ".", "a..b", "[::1]", "10.0.0.0/", "/8",
	}
	good := []string{"xn--bcher-kva.example", "BÜCHER.example", "under_score.svc", "a.", "0x7f.example"}
	_, err := targetclient.New(targetclient.Options{
		DenyList: slices.Concat(good, bad), AllowList: []string{"?"}, MaxResponseBytes: -1, MaxConcurrency: -1,
		Breaker: targetclient.BreakerSettings{
			ConsecutiveFailures: -1, Window: -time.Second, MinCalls: -1, FailureRatio: 1.5, OpenFor: -1, HalfOpenCalls: -1,
		},
	})
	if err == nil {
		t.Fatal("no error")
	}
	for _, entry := range append(bad, "?") {
		if !strings.Contains(err.Error(), fmt.Sprintf("entry %q", entry)) {
			t.Errorf("%q is not named", entry)
		}
	}
	for _, entry := range good {
		if strings.Contains(err.Error(), fmt.Sprintf("entry %q", entry)) {
			t.Errorf("%q is refused", entry)
		}
	}
	for _, name := range []string{
		"deny_list", "allow_list", "max_response_bytes", "max_concurrency", "consecutive_failures", "window", "min_calls",
		"failure_ratio", "open_for", "half_open_calls",
	} {
		if !strings.Contains(err.Error(), name) {
			t.Errorf("%s is not named", name)
		}
	}
}

func TestInternationalNamesAreComparedAsLookedUp(t *testing.T) {
	t.Parallel()
	c := newClient(t, targetclient.Options{DenyList: []string{"bücher.example"}})
	for _, host := range []string{"bücher.example", "BÜCHER.example", "xn--bcher-kva.example", "XN--BCHER-KVA.example."} {
		_, err := do(t, c, &targetclient.Target{ID: host, URL: "http://" + host}, "{}")
		wantReason(t, err, targetclient.ReasonDeniedAddress)
	}
}

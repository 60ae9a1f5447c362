package certs_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/execgate/execgate/internal/certs"
	"github.com/execgate/execgate/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// place holds the files of a listener, under names that stay.
type place struct {
	t             *testing.T
	cert, key, ca string
}

func newPlace(t *testing.T) *place {
	dir := t.TempDir()
	return &place{t: t, cert: filepath.Join(dir, "tls.crt"), key: filepath.Join(dir, "tls.key"), ca: filepath.Join(dir, "ca.crt")}
}

// put replaces one of them with what is in another file, at once: half a file would be one more fault.
func (p *place) put(name, from string) {
	p.t.Helper()
	text, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(name+".new", text, 0o600)
	}
	if err == nil {
		err = os.Rename(name+".new", name)
	}
	if err != nil {
		p.t.Fatal(err)
	}
}

// serve answers over TLS, and watches.
func (p *place) serve(o certs.Options) string {
	p.t.Helper()
	o.Listener, o.CertFile, o.KeyFile, o.Interval = "admin.tls", p.cert, p.key, 5*time.Millisecond
	files, err := certs.Load(o)
	if err != nil {
		p.t.Fatal(err)
	}
	server := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if len(r.TLS.VerifiedChains) > 0 {
				_, _ = io.WriteString(w, r.TLS.PeerCertificates[0].Subject.CommonName)
			}
		}),
		TLSConfig: files.Config(),
		ErrorLog:  slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug),
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		p.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var watching sync.WaitGroup
	watching.Go(func() { files.Watch(ctx) })
	watching.Go(func() { _ = server.ServeTLS(ln, "", "") })
	p.t.Cleanup(func() {
		cancel()
		_ = server.Close()
		watching.Wait()
	})
	return "https://" + ln.Addr().String()
}

// get makes one connection, and returns the serial number of the server's certificate.
func get(client *tls.Config, url string, http2 bool, shown ...tls.Certificate) (serial int64, body string, err error) {
	client = client.Clone()
	client.Certificates = shown
	transport := &http.Transport{TLSClientConfig: client, DisableKeepAlives: !http2, ForceAttemptHTTP2: http2}
	defer transport.CloseIdleConnections()
	res, err := (&http.Client{Transport: transport}).Get(url)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if http2 != (res.ProtoMajor == 2) {
		text = append(text, res.Proto...)
	}
	return res.TLS.PeerCertificates[0].SerialNumber.Int64(), string(text), err
}

func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	deadline, tick := time.After(10*time.Second), time.NewTicker(5*time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-deadline:
			t.Fatalf("%s: not within 10 s", what)
		case <-tick.C:
		}
	}
}

type syncBuffer struct {
	mu  sync.Mutex
	log bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.log.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.log.String()
}

func TestANewPairIsUsedAndABadOneIsNot(t *testing.T) {
	t.Parallel()
	authority, p := testkit.NewCertificates(t), newPlace(t)
	p.put(p.cert, authority.CertFile)
	p.put(p.key, authority.KeyFile)
	log := new(syncBuffer)
	url := p.serve(certs.Options{Logger: slog.New(slog.NewTextHandler(log, nil))})
	serial := func() int64 {
		t.Helper()
		n, extra, err := get(authority.Client, url, true)
		if err != nil || extra != "" {
			t.Fatalf("%q %v", extra, err)
		}
		return n
	}
	if n := serial(); n != 2 {
		t.Fatalf("serial %d", n)
	}
	renewed, cert, key := authority.Issue(t, nil)
	p.put(p.cert, cert) // the key does not fit yet
	until(t, "the misfit is logged", func() bool { return strings.Contains(log.String(), "cannot be used") })
	if n := serial(); n != 2 {
		t.Errorf("a pair that does not fit is in use: serial %d", n)
	}
	p.put(p.key, key)
	until(t, "the new pair is used", func() bool { return serial() == renewed.Leaf.SerialNumber.Int64() })

	for name, breaks := range map[string]func(){
		"no PEM":  func() { p.put(p.cert, key) },
		"no file": func() { _ = os.Remove(p.key) },
	} {
		before := strings.Count(log.String(), "cannot be used")
		breaks()
		until(t, name, func() bool { return strings.Count(log.String(), "cannot be used") > before })
		if n := serial(); n != renewed.Leaf.SerialNumber.Int64() {
			t.Errorf("%s: serial %d", name, n)
		}
		if n := strings.Count(log.String(), "cannot be used"); n != before+1 {
			t.Errorf("%s: logged %d times", name, n-before)
		}
	}
	again, cert, key := authority.Issue(t, nil)
	p.put(p.key, key)
	p.put(p.cert, cert)
	until(t, "it recovers", func() bool { return serial() == again.Leaf.SerialNumber.Int64() })
	if strings.Contains(log.String(), "PRIVATE") {
		t.Error("a key is in the log")
	}
}

func TestClientsAreVerifiedByTheAuthoritiesOfTheFile(t *testing.T) {
	t.Parallel()
	authority, other := testkit.NewCertificates(t), testkit.NewCertificates(t)
	ours, _, _ := authority.Issue(t, nil)
	theirs, _, _ := other.Issue(t, nil)
	serverOnly, _, _ := authority.Issue(t, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} })
	expired, _, _ := authority.Issue(t, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })
	for name, auth := range map[string]certs.ClientAuth{"none": certs.NoClientCert, "optional": certs.OptionalClientCert, "required": certs.RequiredClientCert} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPlace(t)
			p.put(p.cert, authority.CertFile)
			p.put(p.key, authority.KeyFile)
			p.put(p.ca, authority.CAFile)
			url := p.serve(certs.Options{ClientAuth: auth, ClientCAFile: p.ca})
			asked := auth != certs.NoClientCert
			for who, row := range map[string]struct {
				shown []tls.Certificate
				ok    bool
				known bool
			}{
				"nobody":                   {nil, auth != certs.RequiredClientCert, false},
				"one of ours":              {[]tls.Certificate{ours}, true, asked},
				"one of another authority": {[]tls.Certificate{theirs}, !asked, false},
				"one that is for servers":  {[]tls.Certificate{serverOnly}, !asked, false},
				"one that has expired":     {[]tls.Certificate{expired}, !asked, false},
			} {
				for _, http2 := range []bool{true, false} {
					client := authority.Client.Clone()
					if len(row.shown) > 0 {
						// Shown whatever the server asks for.
						client.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &row.shown[0], nil }
					}
					_, body, err := get(client, url, http2)
					if (err == nil) != row.ok || row.ok && (body == "another") != row.known {
						t.Errorf("%s, HTTP/2 %v: %q %v", who, http2, body, err)
					}
				}
			}
			if !asked {
				return
			}
			p.put(p.ca, other.CAFile)
			until(t, "the new authority counts", func() bool {
				_, body, err := get(authority.Client, url, true, theirs)
				return err == nil && body == "another"
			})
			client := authority.Client.Clone()
			client.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &ours, nil }
			if _, _, err := get(client, url, true); err == nil {
				t.Error("the old authority counts still")
			}
			p.put(p.ca, authority.KeyFile) // no certificate in it
			if _, body, err := get(authority.Client, url, true, theirs); err != nil || body != "another" {
				t.Errorf("after a bad file: %q %v", body, err)
			}
		})
	}
}

func TestASessionIsNotResumedPastAChangeOfAuthorities(t *testing.T) {
	t.Parallel()
	authority, other, p := testkit.NewCertificates(t), testkit.NewCertificates(t), newPlace(t)
	p.put(p.cert, authority.CertFile)
	p.put(p.key, authority.KeyFile)
	p.put(p.ca, authority.CAFile)
	url := p.serve(certs.Options{ClientAuth: certs.RequiredClientCert, ClientCAFile: p.ca})
	ours, _, _ := authority.Issue(t, nil)
	client := authority.Client.Clone()
	client.ClientSessionCache = tls.NewLRUClientSessionCache(4)
	client.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &ours, nil }
	if _, _, err := get(client, url, false); err != nil {
		t.Fatal(err)
	}
	p.put(p.ca, other.CAFile)
	until(t, "the client is refused", func() bool { _, _, err := get(client, url, false); return err != nil })
	theirs, _, _ := other.Issue(t, nil)
	if _, _, err := get(authority.Client, url, false, theirs); err != nil {
		t.Errorf("one of the new authority: %v", err)
	}
}

func TestFilesThatCannotBeLoaded(t *testing.T) {
	t.Parallel()
	authority := testkit.NewCertificates(t)
	for name, o := range map[string]certs.Options{
		"no such file":      {CertFile: "nosuch.pem", KeyFile: authority.KeyFile},
		"no pair":           {CertFile: authority.CAFile, KeyFile: authority.KeyFile},
		"no authority file": {CertFile: authority.CertFile, KeyFile: authority.KeyFile, ClientAuth: certs.OptionalClientCert},
		"no authority":      {CertFile: authority.CertFile, KeyFile: authority.KeyFile, ClientAuth: certs.OptionalClientCert, ClientCAFile: authority.KeyFile},
	} {
		if _, err := certs.Load(o); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

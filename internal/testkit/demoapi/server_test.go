package demoapi_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/execgate/execgate/internal/testkit"
	"github.com/execgate/execgate/internal/testkit/demoapi"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// bundle is one running server and a client of each kind.
type bundle struct {
	*demoapi.Server
	scheme, addr string
	conn         *grpc.ClientConn
	http, h2     *http.Client // HTTP/1.1 and HTTP/2
}

func (b *bundle) url(path string) string { return b.scheme + "://" + b.addr + path }

func setup(t *testing.T, o demoapi.Options) *bundle {
	t.Helper()
	return setupTLS(t, o, nil)
}

func setupTLS(t *testing.T, o demoapi.Options, certs *testkit.Certificates) *bundle {
	t.Helper()
	o.Logger = testkit.Logger(t)
	h1 := &http.Transport{Protocols: new(http.Protocols)}
	h1.Protocols.SetHTTP1(true)
	h2 := &http.Transport{Protocols: new(http.Protocols)}
	b := &bundle{scheme: "http", http: &http.Client{Transport: h1}, h2: &http.Client{Transport: h2}}
	creds := insecure.NewCredentials()
	if certs == nil {
		h2.Protocols.SetUnencryptedHTTP2(true)
	} else {
		b.scheme, o.TLS = "https", certs.Server
		h2.Protocols.SetHTTP2(true)
		h1.TLSClientConfig, h2.TLSClientConfig = certs.Client.Clone(), certs.Client.Clone()
		creds = credentials.NewTLS(certs.Client.Clone())
	}
	b.Server = demoapi.New(o)
	addr, err := b.Start(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b.addr = addr
	b.conn, err = grpc.NewClient(addr, grpc.WithTransportCredentials(creds),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(256<<20), grpc.MaxCallSendMsgSize(256<<20)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = b.conn.Close()
		h1.CloseIdleConnections()
		h2.CloseIdleConnections()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := b.Stop(ctx); err != nil {
			t.Errorf("stop: %v", err)
		}
	})
	return b
}

// do sends a request over HTTP/1.1 and returns status, body and header.
func (b *bundle) do(t *testing.T, method, path, body string, header ...string) (int, string, http.Header) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, b.url(path), strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		if header[i] == "Host" {
			req.Host = header[i+1]
			continue
		}
		req.Header.Add(header[i], header[i+1])
	}
	resp, err := b.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	all, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(all), resp.Header
}

func wantCode(t *testing.T, err error, want codes.Code) {
	t.Helper()
	if got := status.Code(err); got != want {
		t.Errorf("code is %v, want %v (%v)", got, want, err)
	}
}

func TestStopBeforeStartAndTwice(t *testing.T) {
	t.Parallel()
	s := demoapi.New(demoapi.Options{})
	if err := s.Stop(t.Context()); err != nil {
		t.Errorf("stop before start: %v", err)
	}
	addr, err := s.Start(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Start(t.Context(), "127.0.0.1:0"); err == nil {
		t.Error("started twice")
	}
	for range 2 {
		if err := s.Stop(t.Context()); err != nil {
			t.Errorf("stop: %v", err)
		}
	}
	if c, err := net.Dial("tcp", addr); err == nil {
		_ = c.Close()
		t.Error("still listening after stop")
	}
	// The data outlives a stop, and so may the address.
	if _, err := s.Start(t.Context(), addr); err != nil {
		t.Errorf("start again: %v", err)
	}
	if err := s.Stop(t.Context()); err != nil {
		t.Errorf("stop: %v", err)
	}
}

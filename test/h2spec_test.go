package test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"

	"github.com/execgate/execgate/internal/testkit"
)

// TestTheListenersAreHTTP2 runs h2spec against the gateway's own listeners, as they are by default.
func TestTheListenersAreHTTP2(t *testing.T) {
	t.Parallel()
	bin := testkit.BuildH2spec(t)
	upstream := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			panic(http.ErrAbortHandler)
		}
		_, _ = w.Write([]byte("a few bytes\n"))
	})}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = upstream.Serve(ln) }()
	t.Cleanup(func() { _ = upstream.Close() })
	_, certFile, keyFile := testkit.NewCertificates(t, "127.0.0.1").Issue(t, nil)
	for name, sections := range map[string]string{
		"h2c": `proxy: {listen: "127.0.0.1:0"}`,
		"TLS": fmt.Sprintf(`proxy: {listen: "127.0.0.1:0", tls: {cert_file: %s, key_file: %s}}`, certFile, keyFile),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := startProcess(t, t.TempDir(), ln.Addr().String(), sections)
			testkit.RunH2spec(t, bin, p.proxy, name == "TLS")
		})
	}
}

// TestPlainHTTPToATLSPortIsTold shows what someone sees who forgot the s of https.
func TestPlainHTTPToATLSPortIsTold(t *testing.T) {
	t.Parallel()
	_, certFile, keyFile := testkit.NewCertificates(t, "127.0.0.1").Issue(t, nil)
	for _, engine := range []string{"h2", "nethttp"} {
		p := startProcess(t, t.TempDir(), "127.0.0.1:1",
			fmt.Sprintf(`proxy: {listen: "127.0.0.1:0", engine: %s, tls: {cert_file: %s, key_file: %s}}`, engine, certFile, keyFile))
		res, err := http.Get("http://" + p.proxy + "/")
		if err != nil {
			t.Fatalf("%s: %v", engine, err)
		}
		if res.StatusCode != http.StatusBadRequest {
			t.Errorf("%s: status %d", engine, res.StatusCode)
		}
		_ = res.Body.Close()
	}
}

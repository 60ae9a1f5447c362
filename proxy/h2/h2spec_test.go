package h2_test

import (
	"io"
	"net/http"
	"testing"

	"github.com/execgate/execgate/internal/testkit"
	"github.com/execgate/execgate/proxy/h2"
)

// TestH2spec runs all of h2spec, strictly, against the relay and against handled streams.
func TestH2spec(t *testing.T) {
	t.Parallel()
	bin := testkit.BuildH2spec(t)
	// h2spec's flow-control cases want a body of a few bytes, and others that the request is read before it is answered.
	web := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			panic(http.ErrAbortHandler)
		}
		_, _ = w.Write([]byte("a few bytes\n"))
	})
	for _, c := range []struct {
		name         string
		tls, handled bool
	}{
		{"h2c, relayed", false, false},
		{"TLS, relayed", true, false},
		{"h2c, handled", false, true},
		{"TLS, handled", true, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			server, _ := testTLS(t)
			d := newDirector()
			if c.handled {
				d.decide = func(*h2.Head) h2.Action { return h2.Action{Handler: web} }
			}
			f := newFront(t, startWeb(t, nil, web), func(o *h2.Options) {
				o.Director = d
				if c.tls {
					o.TLS = server
				}
			})
			testkit.RunH2spec(t, bin, f.address, c.tls)
		})
	}
}

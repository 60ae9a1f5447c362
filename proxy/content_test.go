package proxy_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/execgate/execgate/targetclient"
)

// TestConnectBodiesKeepTheirCoding: a changed message goes on in the coding that the other side has shown to know.
func TestConnectBodiesKeepTheirCoding(t *testing.T) {
	t.Parallel()
	for _, coding := range []string{"", "gzip", "deflate", "br"} {
		t.Run(coding, func(t *testing.T) {
			t.Parallel()
			type heard struct {
				body     string
				encoding string
				accepts  string
			}
			seen := make(chan heard, 1)
			upstream := startWeb(t, false, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				seen <- heard{readAll(t, r.Body), r.Header.Get("Content-Encoding"), r.Header.Get("Accept-Encoding")}
				w.Header().Set("Content-Type", "application/json")
				if coding != "" {
					w.Header().Set("Content-Encoding", coding)
				}
				_, _ = w.Write(encoded(t, coding, `{"echo":{"text":"b"}}`))
			}))
			in := rewriting(t, "in", func(m jsonObject) { m["text"] = "A" })
			out := rewriting(t, "out", func(m jsonObject) { m["protocol"] = "changed" })
			g := demoGateway(t, upstream, []*targetclient.Target{in.Target, out.Target}, on(t, "request", "in"), on(t, "response", "out"))
			header := []string{"Content-Type", "application/json", "Accept-Encoding", "zstd, br;q=0.9, gzip"}
			if coding != "" {
				header = append(header, "Content-Encoding", coding)
			}
			res := get(t, webClient(t), "POST", g.url()+echoMethod, strings.NewReader(string(encoded(t, coding, `{"text":"a"}`))), header...)
			got := <-seen
			if got.encoding != coding || decoded(t, coding, got.body) != `{"text":"A"}` {
				t.Errorf("upstream got %q in %q", got.body, got.encoding)
			}
			if got.accepts != "br;q=0.9, gzip" {
				t.Errorf("upstream may answer in %q", got.accepts)
			}
			body := readAll(t, res.Body)
			if res.Header.Get("Content-Encoding") != coding || decoded(t, coding, body) != `{"echo":{"text":"b"},"protocol":"changed"}` {
				t.Errorf("client got %q in %q", body, res.Header.Get("Content-Encoding"))
			}
		})
	}
}

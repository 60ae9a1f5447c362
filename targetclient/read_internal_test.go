package targetclient

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
)

// inPieces gives n bytes with each read.
type inPieces struct {
	r io.Reader
	n int
}

func (p inPieces) Read(b []byte) (int, error) { return p.r.Read(b[:min(len(b), p.n)]) }

const fuzzLimit = 100_000

// readOurs reads one answer as a call does.
func readOurs(raw []byte, piece int) (h head, body []byte, rest int, err error) {
	var in reader
	in.reset(inPieces{bytes.NewReader(raw), piece})
	h, err = readHead(&in)
	if err != nil {
		return h, nil, 0, err
	}
	body, err = readAnswerBody(&in, &h, fuzzLimit)
	return h, body, in.buffered(), err
}

// readNetHTTP reads one answer as net/http's transport does.
func readNetHTTP(raw []byte) (resp *http.Response, body []byte, err error) {
	r := bufio.NewReader(bytes.NewReader(raw))
	for {
		resp, err = http.ReadResponse(r, &http.Request{Method: http.MethodPost})
		if err != nil {
			return nil, nil, err
		}
		if resp.StatusCode < 100 || resp.StatusCode > 199 || resp.StatusCode == http.StatusSwitchingProtocols {
			break
		}
	}
	content := io.Reader(resp.Body)
	if strings.EqualFold(resp.Header.Get("Content-Encoding"), "gzip") && resp.ContentLength != 0 {
		content, err = gzip.NewReader(content)
		if errors.Is(err, io.EOF) {
			return resp, nil, nil
		}
		if err != nil {
			return resp, nil, err
		}
	}
	body, err = io.ReadAll(io.LimitReader(content, fuzzLimit+1))
	return resp, body, err
}

// Whatever a target sends: we read what net/http reads, or refuse it.
func FuzzAnswer(f *testing.F) {
	for _, s := range []string{
		ok200 + "Content-Length: 2\r\n\r\n{}", chunkedAns + chunks("{", "}"), ok200 + "\r\n{}",
		chunkedAns + "2;x\r\n{}\r\n0\r\nA: b\r\n\r\n", "HTTP/1.0 200\r\nConnection: keep-alive\r\n\r\n",
		"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 302 x\r\nLocation: /a\r\nRetry-After: 3\r\nDate: x\r\nContent-Length: 0\r\n\r\n",
		gzipAnswer(zipped("{}")), "HTTP/1.1 204 x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"HTTP/1.1 200 OK\nA: b\n c\nContent-Length: 1\n\nx", ok200 + "Content-Length: 2\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\nTrailer: A\r\n\r\n0\r\n\r\n",
		"HTTP/1.1 101 x\r\n\r\nabc", "HTTP/1.1 200 \r\nConnection: a, close\r\nContent-Length:\t07 \r\n\r\n1234567",
	} {
		f.Add([]byte(s), uint8(0))
		f.Add([]byte(s), uint8(1))
	}
	f.Fuzz(func(t *testing.T, raw []byte, piece uint8) {
		n := int(piece)
		if n == 0 {
			n = 1 << 20
		}
		h, body, _, err := readOurs(raw, n)
		if err != nil {
			return // refused
		}
		resp, want, wantErr := readNetHTTP(raw)
		if wantErr != nil {
			t.Fatalf("%q: we read %d %q, net/http says %v", raw, h.status, body, wantErr)
		}
		if h.status == http.StatusSwitchingProtocols {
			want = nil // net/http hands the rest over
		}
		if h.status != resp.StatusCode || !bytes.Equal(body, want) {
			t.Errorf("%q: %d %q, net/http reads %d %q", raw, h.status, body, resp.StatusCode, want)
		}
		if h.location != resp.Header.Get("Location") || h.retryAfter != resp.Header.Get("Retry-After") ||
			h.status >= 300 && h.date != resp.Header.Get("Date") {
			t.Errorf("%q: %+v, net/http reads %v", raw, h, resp.Header)
		}
		if resp.Close && !h.last {
			t.Errorf("%q: we would go on, net/http would not", raw)
		}
	})
}

// greedy remembers the largest read.
type greedy struct {
	r    io.Reader
	most int
}

func (g *greedy) Read(b []byte) (int, error) {
	g.most = max(g.most, len(b))
	return g.r.Read(b)
}

// The memory for an answer depends on what came, not on what is announced.
func TestAnnouncedSizesAreNotBelieved(t *testing.T) {
	t.Parallel()
	for name, raw := range map[string]string{
		"a length": ok200 + "Content-Length: 9999999999\r\n\r\nx",
		"a chunk":  chunkedAns + "fffffffff\r\nx",
	} {
		g := &greedy{r: strings.NewReader(raw)}
		var in reader
		in.reset(g)
		h, err := readHead(&in)
		if err != nil {
			t.Fatal(err)
		}
		_, err = readAnswerBody(&in, &h, 1<<40)
		if !errors.Is(err, io.ErrUnexpectedEOF) || g.most > 1<<20+1 {
			t.Errorf("%s: %v, read %d bytes at once", name, err, g.most)
		}
	}
}

func TestABufferThatGrewIsNotKept(t *testing.T) {
	t.Parallel()
	var in reader
	in.reset(strings.NewReader(ok200 + "A: " + strings.Repeat("x", 500_000) + "\r\n\r\n"))
	if _, err := readHead(&in); err != nil {
		t.Fatal(err)
	}
	if in.reset(nil); cap(in.buf) > maxPooledBuffer {
		t.Errorf("%d bytes", cap(in.buf))
	}
}

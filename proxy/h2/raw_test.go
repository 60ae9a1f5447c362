package h2_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// rawPeer is one end of an HTTP/2 connection, frame by frame: a client that may break the rules, or an upstream.
type rawPeer struct {
	*http2.Framer
	t   *testing.T
	nc  net.Conn
	enc *hpack.Encoder
	dec *hpack.Decoder
	buf bytes.Buffer
}

func newRawPeer(t *testing.T, nc net.Conn) *rawPeer {
	t.Helper()
	p := &rawPeer{t: t, nc: nc, Framer: http2.NewFramer(nc, nc)}
	p.AllowIllegalWrites = true
	p.enc = hpack.NewEncoder(&p.buf)
	p.dec = hpack.NewDecoder(4096, nil)
	p.ReadMetaHeaders = p.dec
	_ = nc.SetDeadline(time.Now().Add(testTimeout))
	t.Cleanup(func() { _ = nc.Close() })
	return p
}

// rawClient connects and exchanges SETTINGS.
func rawClient(t *testing.T, f *front, settings ...http2.Setting) *rawPeer {
	t.Helper()
	p := newRawPeer(t, connect(t, f))
	p.send(http2.ClientPreface)
	p.must(p.WriteSettings(settings...))
	return p
}

func connect(t *testing.T, f *front) net.Conn {
	t.Helper()
	nc, err := new(net.Dialer).DialContext(t.Context(), "tcp", f.address)
	if err != nil {
		t.Fatal(err)
	}
	return nc
}

func (p *rawPeer) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

func (p *rawPeer) send(s string) {
	p.t.Helper()
	_, err := io.WriteString(p.nc, s)
	p.must(err)
}

// block encodes fields, given as name, value, name, value.
func (p *rawPeer) block(fields ...string) []byte {
	p.buf.Reset()
	for i := 0; i < len(fields); i += 2 {
		_ = p.enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	return bytes.Clone(p.buf.Bytes())
}

func (p *rawPeer) headers(id uint32, end bool, fields ...string) {
	p.t.Helper()
	p.must(p.WriteHeaders(http2.HeadersFrameParam{StreamID: id, EndHeaders: true, EndStream: end, BlockFragment: p.block(fields...)}))
}

// request opens a stream.
func (p *rawPeer) request(id uint32, end bool, extra ...string) {
	p.t.Helper()
	p.headers(id, end, append([]string{":method", "POST", ":scheme", "http", ":path", "/pkg.Service/Method", ":authority", "a.test"}, extra...)...)
}

// next returns the next frame that is not about the connection's own affairs, as text. Pings and settings are answered.
func (p *rawPeer) next() (string, error) {
	for {
		f, err := p.ReadFrame()
		if err != nil {
			return "", err
		}
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				p.must(p.WriteSettingsAck())
			}
		case *http2.PingFrame:
			if !f.IsAck() {
				_ = p.WritePing(true, f.Data)
			}
		case *http2.WindowUpdateFrame:
		default:
			return describe(f), nil
		}
	}
}

// expect reads frames and compares them.
func (p *rawPeer) expect(want ...string) {
	p.t.Helper()
	for _, w := range want {
		got, err := p.next()
		if err != nil {
			p.t.Fatalf("got %v, want %q", err, w)
		}
		if got != w {
			p.t.Fatalf("got  %q\nwant %q", got, w)
		}
	}
}

// ended reads until the connection ends and returns the last GOAWAY's code.
func (p *rawPeer) ended() (code http2.ErrCode, told bool) {
	p.t.Helper()
	for {
		f, err := p.ReadFrame()
		if err != nil {
			var timeout net.Error
			if errors.As(err, &timeout) && timeout.Timeout() {
				p.t.Fatal("the connection was not ended")
			}
			return code, told
		}
		if g, ok := f.(*http2.GoAwayFrame); ok {
			code, told = g.ErrCode, true
		}
	}
}

// describe is a frame in a few words: "HEADERS 1 END :status=200", "DATA 1 5", "RST 1 CANCEL".
func describe(f http2.Frame) string {
	h := f.Header()
	end := ""
	if (h.Type == http2.FrameData || h.Type == http2.FrameHeaders) && h.Flags.Has(http2.FlagDataEndStream) {
		end = " END"
	}
	switch f := f.(type) {
	case *http2.MetaHeadersFrame:
		var b strings.Builder
		fmt.Fprintf(&b, "HEADERS %d%s", h.StreamID, end)
		for _, field := range f.Fields {
			if field.Name != "date" {
				fmt.Fprintf(&b, " %s=%s", field.Name, field.Value)
			}
		}
		return b.String()
	case *http2.DataFrame:
		data := f.Data()
		if len(data) > 20 {
			return fmt.Sprintf("DATA %d%s (%d)", h.StreamID, end, len(data))
		}
		return fmt.Sprintf("DATA %d%s %s", h.StreamID, end, data)
	case *http2.RSTStreamFrame:
		return fmt.Sprintf("RST %d %v", h.StreamID, f.ErrCode)
	case *http2.GoAwayFrame:
		return fmt.Sprintf("GOAWAY %d %v", f.LastStreamID, f.ErrCode)
	default:
		return fmt.Sprintf("%v %d", h.Type, h.StreamID)
	}
}

// rawUpstream is an upstream whose connections a test serves itself.
type rawUpstream struct {
	t     *testing.T
	ln    net.Listener
	conns chan *rawPeer
}

func newRawUpstream(t *testing.T, settings ...http2.Setting) *rawUpstream {
	t.Helper()
	u := &rawUpstream{t: t, ln: listen(t), conns: make(chan *rawPeer, 16)}
	t.Cleanup(func() { _ = u.ln.Close() })
	go func() {
		for {
			nc, err := u.ln.Accept()
			if err != nil {
				return
			}
			p := newRawPeer(t, nc)
			if _, err := io.ReadFull(nc, make([]byte, len(http2.ClientPreface))); err != nil {
				return
			}
			if err := p.WriteSettings(settings...); err != nil {
				return
			}
			u.conns <- p
		}
	}()
	return u
}

func (u *rawUpstream) address() string { return u.ln.Addr().String() }

// accept returns the next connection.
func (u *rawUpstream) accept() *rawPeer {
	u.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	defer cancel()
	select {
	case p := <-u.conns:
		return p
	case <-ctx.Done():
		u.t.Fatal("nobody connected")
		return nil
	}
}

// forwarded is how a request opened with rawPeer.request reaches the upstream.
func forwarded(id uint32, end bool, extra ...string) string {
	s := fmt.Sprintf("HEADERS %d", id)
	if end {
		s += " END"
	}
	s += " :method=POST :scheme=http :path=/pkg.Service/Method :authority=a.test"
	for i := 0; i < len(extra); i += 2 {
		s += " " + extra[i] + "=" + extra[i+1]
	}
	return s
}

package proxy_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// closedPort is an address that nobody listens on.
func closedPort(t *testing.T) string {
	t.Helper()
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	return ln.Addr().String()
}

func rawConn(t *testing.T, g *gateway) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(g.addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// dialTCP connects to addr; all reading and writing must be done within the test's patience.
func dialTCP(t *testing.T, addr string, config *tls.Config) net.Conn {
	t.Helper()
	conn, err := (&net.Dialer{}).DialContext(testContext(t), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	if config != nil {
		conn = tls.Client(conn, config)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(testTimeout)); err != nil {
		t.Fatal(err)
	}
	return conn
}

// h2Client speaks HTTP/2 frame by frame.
type h2Client struct {
	t      *testing.T
	framer *http2.Framer
	enc    *hpack.Encoder
	buf    bytes.Buffer
	stream uint32
}

func newH2Client(t *testing.T, conn net.Conn) *h2Client {
	t.Helper()
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	c := &h2Client{t: t, framer: http2.NewFramer(conn, conn), stream: 1}
	c.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	c.enc = hpack.NewEncoder(&c.buf)
	c.must(c.framer.WriteSettings())
	return c
}

func (c *h2Client) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

// headers opens the next stream with the given fields.
func (c *h2Client) headers(end bool, fields ...string) uint32 {
	c.t.Helper()
	id := c.stream
	c.stream += 2
	c.must(c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: c.block(fields...), EndStream: end, EndHeaders: true}))
	return id
}

func (c *h2Client) block(fields ...string) []byte {
	c.buf.Reset()
	for i := 0; i < len(fields); i += 2 {
		c.must(c.enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]}))
	}
	return bytes.Clone(c.buf.Bytes())
}

// grpc opens a gRPC call with one message.
func (c *h2Client) grpc(path string, message []byte, more ...string) uint32 {
	c.t.Helper()
	id := c.headers(false, append([]string{
		":method", "POST", ":scheme", "http", ":path", path, ":authority", "test", "content-type", "application/grpc", "te", "trailers",
	}, more...)...)
	c.must(c.framer.WriteData(id, true, message))
	return id
}

// event is one frame of a stream, in a form that can be compared.
type event struct {
	kind   string // "headers", "data", "reset"
	end    bool
	fields map[string]string
	data   string
	code   http2.ErrCode
}

// read returns the frames of a stream until it ends.
func (c *h2Client) read(id uint32) []event {
	c.t.Helper()
	var events []event
	for {
		f, err := c.framer.ReadFrame()
		c.must(err)
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				c.must(c.framer.WriteSettingsAck())
			}
			continue
		case *http2.PingFrame:
			if !f.IsAck() {
				c.must(c.framer.WritePing(true, f.Data))
			}
			continue
		}
		if f.Header().StreamID != id {
			continue
		}
		switch f := f.(type) {
		case *http2.MetaHeadersFrame:
			e := event{kind: "headers", end: f.StreamEnded(), fields: map[string]string{}}
			for _, field := range f.Fields {
				if prior, ok := e.fields[field.Name]; ok {
					field.Value = prior + "|" + field.Value
				}
				e.fields[field.Name] = field.Value
			}
			events = append(events, e)
		case *http2.DataFrame:
			events = append(events, event{kind: "data", end: f.StreamEnded(), data: string(f.Data())})
		case *http2.RSTStreamFrame:
			return append(events, event{kind: "reset", code: f.ErrCode})
		default:
			continue
		}
		if events[len(events)-1].end {
			return events
		}
	}
}

// h2Server is an upstream that is scripted frame by frame: it hands over each request with its connection.
type h2Server struct {
	url string
}

// startH2Server runs handle for each request, on the connection's goroutine; handle writes the answer.
func startH2Server(t *testing.T, handle func(c *h2Client, id uint32, fields map[string]string)) *h2Server {
	t.Helper()
	ln, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { _ = conn.Close() })
			go serveH2(t, conn, handle)
		}
	}()
	return &h2Server{url: "http://" + ln.Addr().String()}
}

func serveH2(t *testing.T, conn net.Conn, handle func(c *h2Client, id uint32, fields map[string]string)) {
	defer func() { _ = conn.Close() }()
	preface := make([]byte, len(http2.ClientPreface))
	if _, err := io.ReadFull(conn, preface); err != nil {
		return
	}
	c := &h2Client{t: t, framer: http2.NewFramer(conn, conn)}
	c.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	c.enc = hpack.NewEncoder(&c.buf)
	if c.framer.WriteSettings() != nil {
		return
	}
	for {
		f, err := c.framer.ReadFrame()
		if err != nil {
			return
		}
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() && c.framer.WriteSettingsAck() != nil {
				return
			}
		case *http2.PingFrame:
			if !f.IsAck() && c.framer.WritePing(true, f.Data) != nil {
				return
			}
		case *http2.MetaHeadersFrame:
			fields := map[string]string{}
			for _, field := range f.Fields {
				fields[field.Name] = field.Value
			}
			handle(c, f.StreamID, fields)
		}
	}
}

func (c *h2Client) respond(id uint32, end bool, fields ...string) {
	_ = c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: c.block(fields...), EndStream: end, EndHeaders: true})
}

package h2_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/execgate/execgate/proxy/h2"
)

// script turns fuzz input into frames: most of them nearly right, so that what follows is reached too. An input that
// begins with 0 is taken as it is.
func script(in []byte) []byte {
	if len(in) == 0 {
		return nil
	}
	if in[0] == 0 {
		return in[1:]
	}
	var out, block bytes.Buffer
	fr := http2.NewFramer(&out, nil)
	fr.AllowIllegalWrites = true
	enc := hpack.NewEncoder(&block)
	next := func() byte {
		if len(in) == 0 {
			return 0
		}
		b := in[0]
		in = in[1:]
		return b
	}
	take := func(n int) []byte {
		n = min(n, len(in))
		b := in[:n]
		in = in[n:]
		return b
	}
	for len(in) > 0 {
		op, id, flags := next(), uint32(next()), http2.Flags(next())
		switch op % 12 {
		case 0, 1, 2: // A request or a response, or something like it.
			block.Reset()
			fields := [][2]string{{":method", "POST"}, {":scheme", "http"}, {":path", "/a.B/C"}, {":authority", "a"}, {"content-type", "application/grpc"}}
			if op%12 == 1 {
				fields = [][2]string{{":status", "200"}, {"content-length", "3"}, {"grpc-status", "0"}}
			}
			for i, f := range fields {
				if op>>4&(1<<i) == 0 {
					_ = enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
				}
			}
			block.Write(take(int(next() % 8)))
			_ = fr.WriteRawFrame(http2.FrameHeaders, flags|http2.FlagHeadersEndHeaders&^(flags>>5), id, block.Bytes())
		case 3, 4:
			_ = fr.WriteRawFrame(http2.FrameData, flags, id, take(int(next())))
		case 5:
			_ = fr.WriteWindowUpdate(id, uint32(next())<<(flags%24))
		case 6:
			_ = fr.WriteSettings(http2.Setting{ID: http2.SettingID(flags % 8), Val: uint32(next()) << (id % 32)})
		case 7:
			_ = fr.WriteRSTStream(id, http2.ErrCode(flags))
		case 8:
			_ = fr.WriteRawFrame(http2.FrameContinuation, flags, id, take(int(next())))
		case 9:
			_ = fr.WriteGoAway(id, http2.ErrCode(flags), nil)
		default:
			_ = fr.WriteRawFrame(http2.FrameType(op), flags, id, take(int(next()%20)))
		}
	}
	return out.Bytes()
}

// strictUpstream answers every request and reports a gateway that breaks the rules.
type strictUpstream struct {
	mu  sync.Mutex
	bad error
}

func (u *strictUpstream) serve(nc net.Conn) {
	defer nc.Close()
	if _, err := io.ReadFull(nc, make([]byte, len(http2.ClientPreface))); err != nil {
		return
	}
	fr := http2.NewFramer(nc, nc)
	fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	_ = fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 200})
	open := map[uint32]bool{}
	var last uint32
	for {
		f, err := fr.ReadFrame()
		if err != nil {
			var ce http2.ConnectionError
			var se http2.StreamError
			if errors.As(err, &ce) || errors.As(err, &se) {
				u.fail(err)
			}
			return
		}
		id := f.Header().StreamID
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				_ = fr.WriteSettingsAck()
			}
		case *http2.MetaHeadersFrame:
			if id > last {
				last, open[id] = id, true
			} else if !open[id] || !f.StreamEnded() {
				u.fail(errors.New("HEADERS where there should be none"))
			}
			if f.StreamEnded() {
				delete(open, id)
				block.Reset()
				_ = enc.WriteField(hpack.HeaderField{Name: ":status", Value: "200"})
				_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, EndHeaders: true, BlockFragment: block.Bytes()})
				_ = fr.WriteData(id, true, make([]byte, 100))
			}
		case *http2.DataFrame:
			if !open[id] {
				u.fail(errors.New("DATA on a stream that is not open"))
			}
			if n := f.Header().Length; n > 0 {
				_ = fr.WriteWindowUpdate(0, n)
				_ = fr.WriteWindowUpdate(id, n)
			}
			if f.StreamEnded() {
				delete(open, id)
				block.Reset()
				_ = enc.WriteField(hpack.HeaderField{Name: ":status", Value: "200"})
				_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, EndHeaders: true, EndStream: true, BlockFragment: block.Bytes()})
			}
		case *http2.RSTStreamFrame:
			delete(open, id)
		case *http2.GoAwayFrame:
			u.fail(errors.New("GOAWAY " + f.ErrCode.String()))
		}
	}
}

func (u *strictUpstream) fail(err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.bad == nil {
		u.bad = err
	}
}

func (u *strictUpstream) check(t *testing.T) {
	t.Helper()
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.bad != nil {
		t.Fatalf("the gateway broke the rules towards the upstream: %v", u.bad)
	}
}

// FuzzClient sends whatever a client may send. Nothing must panic, no call may be left, and the connection to the
// upstream, which others share, must stay whole.
func FuzzClient(f *testing.F) {
	for _, seed := range [][]byte{
		{}, {0}, {1, 1, 4, 0},
		{12, 1, 5, 0, 12, 3, 5, 0, 7, 1, 8},
		{12, 1, 4, 0, 3, 1, 0, 3, 'a', 'b', 'c', 3, 1, 1, 3, 'd', 'e', 'f'},
		{12, 1, 4, 0, 5, 1, 0, 9, 5, 0, 20, 200, 3, 1, 9, 5, 2, 'x', 'y', 0, 0},
		{6, 4, 4, 0, 12, 1, 5, 0, 6, 8, 4, 1, 12, 3, 4, 0, 3, 3, 1, 100},
		{12, 1, 0x84, 0, 8, 1, 0, 3, 1, 2, 3, 8, 1, 4, 0},
		{2, 1, 4, 0, 2, 1, 5, 0, 9, 1, 0, 12, 5, 5, 0},
		{11, 1, 0, 5, 0, 0, 0, 0, 1, 10, 0, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8},
	} {
		f.Add(seed)
	}
	handled := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(w, r.Body)
		w.Header().Set(http.TrailerPrefix+"X", "y")
	})
	f.Fuzz(func(t *testing.T, in []byte) {
		var up strictUpstream
		d := newDirector()
		n := 0
		d.decide = func(*h2.Head) h2.Action {
			if n++; n%3 == 0 {
				return h2.Action{Handler: handled}
			}
			return h2.Action{}
		}
		e, err := h2.New(h2.Options{Director: d, Observer: d, MaxHeaderBytes: 4096, Upstream: h2.UpstreamOptions{
			Address: "upstream.test:1",
			Dial: func(context.Context, string) (net.Conn, error) {
				ours, theirs := net.Pipe()
				go up.serve(theirs)
				return ours, nil
			},
		}})
		if err != nil {
			t.Fatal(err)
		}
		ours, theirs := net.Pipe()
		served := make(chan struct{})
		go func() {
			defer close(served)
			e.ServeConn(ours, []byte(http2.ClientPreface))
		}()
		go func() { _, _ = io.Copy(io.Discard, theirs) }()
		_ = theirs.SetWriteDeadline(time.Now().Add(5 * time.Second))
		_, _ = theirs.Write([]byte("\x00\x00\x00\x04\x00\x00\x00\x00\x00"))
		_, _ = theirs.Write(script(in))
		_, _ = theirs.Write([]byte("\x00\x00\x08\x06\x00\x00\x00\x00\x00 PINGED "))
		_ = theirs.Close()
		<-served
		for deadline := time.Now().Add(5 * time.Second); e.InFlight() != 0; runtime.Gosched() {
			if time.Now().After(deadline) {
				t.Fatalf("%d calls are left", e.InFlight())
			}
		}
		// A well-behaved client is served over the same connection to the upstream.
		wellBehaved(t, e)
		e.Close()
		up.check(t)
	})
}

// wellBehaved makes one call and expects its answer.
func wellBehaved(t *testing.T, e *h2.Engine) {
	t.Helper()
	ours, theirs := net.Pipe()
	served := make(chan struct{})
	go func() {
		defer close(served)
		e.ServeConn(ours, nil)
	}()
	_ = theirs.SetDeadline(time.Now().Add(5 * time.Second))
	p := &rawPeer{Framer: http2.NewFramer(theirs, theirs), t: t, nc: theirs}
	p.enc = hpack.NewEncoder(&p.buf)
	p.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	go func() {
		_, _ = io.WriteString(theirs, http2.ClientPreface)
		_ = p.WriteSettings()
		for id := uint32(1); id < 7; id += 2 {
			_ = p.WriteHeaders(http2.HeadersFrameParam{StreamID: id, EndHeaders: true, EndStream: true, BlockFragment: requestBlock})
		}
	}()
	for ends := 0; ends < 3; {
		f, err := p.ReadFrame()
		if err != nil {
			t.Fatalf("a well-behaved client got %v", err)
		}
		switch f := f.(type) {
		case *http2.DataFrame:
			if f.StreamEnded() {
				ends++
			}
		case *http2.MetaHeadersFrame:
			if f.StreamEnded() {
				ends++
			}
			if status := f.PseudoValue("status"); status != "200" && status != "" {
				t.Fatalf("a well-behaved client got %s", status)
			}
		case *http2.RSTStreamFrame, *http2.GoAwayFrame:
			t.Fatalf("a well-behaved client got %s", describe(f))
		}
	}
	_ = theirs.Close()
	<-served
}

// FuzzUpstream sends whatever an upstream may send. Nothing must panic, every call must end, and the client's connection
// must stay whole.
func FuzzUpstream(f *testing.F) {
	for _, seed := range [][]byte{
		{}, {0},
		{13, 1, 4, 0, 3, 1, 1, 3, 'a', 'b', 'c'},
		{13, 1, 4, 0, 3, 1, 0, 1, 'a', 7, 1, 8},
		{13, 1, 5, 0, 13, 3, 5, 0, 9, 0, 0},
		{7, 1, 7, 9, 0, 0, 13, 1, 5, 0},
		{6, 4, 4, 0, 6, 0, 3, 0, 5, 1, 5, 200, 13, 1, 4, 0},
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		d := newDirector()
		e, err := h2.New(h2.Options{Director: d, Observer: d, Upstream: h2.UpstreamOptions{
			Address: "upstream.test:1", MaxHeaderBytes: 4096,
			Dial: func(context.Context, string) (net.Conn, error) {
				ours, theirs := net.Pipe()
				go func() { _, _ = io.Copy(io.Discard, theirs) }()
				go func() {
					defer theirs.Close()
					_ = theirs.SetWriteDeadline(time.Now().Add(5 * time.Second))
					_, _ = theirs.Write([]byte("\x00\x00\x00\x04\x00\x00\x00\x00\x00"))
					_, _ = theirs.Write(script(in))
				}()
				return ours, nil
			},
		}})
		if err != nil {
			t.Fatal(err)
		}
		ours, theirs := net.Pipe()
		served := make(chan struct{})
		go func() {
			defer close(served)
			e.ServeConn(ours, nil)
		}()
		_ = theirs.SetDeadline(time.Now().Add(5 * time.Second))
		fr := http2.NewFramer(theirs, theirs)
		fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
		go func() {
			_, _ = io.WriteString(theirs, http2.ClientPreface)
			_ = fr.WriteSettings()
			_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndHeaders: true, EndStream: true, BlockFragment: requestBlock})
			_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, EndHeaders: true, BlockFragment: requestBlock})
			_ = fr.WriteData(3, true, []byte("hello"))
		}()
		for ended := map[uint32]bool{}; len(ended) < 2; {
			f, err := fr.ReadFrame()
			if err != nil {
				t.Fatalf("the client got %v", err)
			}
			h := f.Header()
			switch f.(type) {
			case *http2.DataFrame, *http2.MetaHeadersFrame:
				if ended[h.StreamID] {
					t.Fatalf("%s after the end", describe(f))
				}
				if h.Flags.Has(http2.FlagDataEndStream) {
					ended[h.StreamID] = true
				}
			case *http2.RSTStreamFrame:
				ended[h.StreamID] = true
			case *http2.GoAwayFrame:
				t.Fatal("the client's connection was ended")
			}
		}
		_ = theirs.Close()
		<-served
		// The upstream's reader may be just about to note the end of one.
		for deadline := time.Now().Add(5 * time.Second); e.InFlight() != 0; runtime.Gosched() {
			if time.Now().After(deadline) {
				t.Fatalf("%d calls are left", e.InFlight())
			}
		}
		e.Close()
	})
}

package h2_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/net/http2"

	"github.com/execgate/execgate/proxy/h2"
)

// bodies reads frames until so many streams have ended and returns what came on each.
func (p *rawPeer) bodies(ends int) map[uint32]string {
	p.t.Helper()
	got := map[uint32]string{}
	for ends > 0 {
		frame, err := p.ReadFrame()
		p.must(err)
		switch f := frame.(type) {
		case *http2.DataFrame:
			got[f.StreamID] += string(f.Data())
			if f.StreamEnded() {
				ends--
			}
		case *http2.RSTStreamFrame:
			p.t.Fatalf("RST %d %v", f.StreamID, f.ErrCode)
		}
	}
	return got
}

// TestFramesThatAlternate: DATA of several streams that comes at once reaches each of them whole and in order, whichever
// connections they are on, and whether there is room or not.
func TestFramesThatAlternate(t *testing.T) {
	t.Parallel()
	// alternate is a part of each stream's text in turn; the first streams end earlier. One frame in ten is padded.
	alternate := func(ids []uint32) (all []byte, texts map[uint32]string) {
		var b bytes.Buffer
		f := http2.NewFramer(&b, nil)
		texts = map[uint32]string{}
		for i := range 200 {
			for j, id := range ids {
				last := 100 + 30*j
				if i > last {
					continue
				}
				part := fmt.Sprintf("%d.%d%s ", id, i, strings.Repeat("-", i%7))
				if i == last && j == 1 {
					part = "" // An empty frame ends it.
				}
				if i%10 == 9 {
					_ = f.WriteDataPadded(id, i == last, []byte(part), make([]byte, 3))
				} else {
					_ = f.WriteData(id, i == last, []byte(part))
				}
				texts[id] += part
			}
		}
		return b.Bytes(), texts
	}
	for _, window := range []uint32{0, 700, 65535} {
		t.Run(fmt.Sprint("window ", window), func(t *testing.T) {
			t.Parallel()
			setting := http2.Setting{ID: http2.SettingInitialWindowSize, Val: window}
			u := newRawUpstream(t, setting)
			f := newFront(t, u.address(), func(o *h2.Options) { o.Upstream.Conns = 1 })
			a, b, gone := rawClient(t, f, setting), rawClient(t, f, setting), rawClient(t, f)
			a.request(1, false)
			up := u.accept()
			up.expect(forwarded(1, false))
			for i, s := range []struct {
				client *rawPeer
				id     uint32
			}{{b, 1}, {a, 3}, {gone, 1}} {
				s.client.request(s.id, false)
				up.expect(forwarded(uint32(3+2*i), false))
			}
			for id := uint32(1); id <= 7; id += 2 {
				up.headers(id, false, ":status", "200")
			}
			a.expect("HEADERS 1 :status=200", "HEADERS 3 :status=200")
			b.expect("HEADERS 1 :status=200")
			gone.expect("HEADERS 1 :status=200")
			gone.must(gone.WriteRSTStream(1, http2.ErrCodeCancel))
			up.expect("RST 7 CANCEL")

			room := func(p *rawPeer, ids ...uint32) {
				for _, id := range ids {
					p.must(p.WriteWindowUpdate(id, 60_000))
				}
			}
			out, texts := alternate([]uint32{1, 3})
			a.send(string(out))
			room(up, 1, 5)
			if got := up.bodies(2); got[1] != texts[1] || got[5] != texts[3] {
				t.Errorf("the upstream got %v", got)
			}

			down, texts := alternate([]uint32{1, 3, 5, 7})
			up.send(string(down))
			room(a, 1, 3)
			room(b, 1)
			got := a.bodies(2)
			if got[1] != texts[1] || got[3] != texts[5] {
				t.Errorf("the first client got %v", got)
			}
			if got := b.bodies(1); got[1] != texts[3] {
				t.Errorf("the second client got %v", got)
			}
		})
	}
}

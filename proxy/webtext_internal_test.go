package proxy

import (
	"bytes"
	"encoding/base64"
	"io"
	"testing"
)

// FuzzWebText: bytes that were encoded in parts, each with its own padding, read as the same bytes, however they arrive;
// and whatever arrives, what was read of the source is kept.
func FuzzWebText(f *testing.F) {
	f.Add([]byte("hello world"), uint8(3), uint8(1))
	f.Add([]byte{0, 0, 0, 0, 1, 7}, uint8(0), uint8(5))
	f.Fuzz(func(t *testing.T, data []byte, part, chunk uint8) {
		size := int(part)%11 + 1
		var text []byte
		for rest := data; len(rest) > 0; {
			n := min(size, len(rest))
			text = base64.StdEncoding.AppendEncode(text, rest[:n])
			rest = rest[n:]
		}
		r := &textReader{source: &chunkReader{r: bytes.NewReader(text), n: int(chunk)%9 + 1}}
		got, err := io.ReadAll(r)
		if err != nil || !bytes.Equal(got, data) || !bytes.Equal(r.raw, text) {
			t.Fatalf("%q of %q, %v", got, data, err)
		}
		// Anything at all.
		source := bytes.NewReader(data)
		r = &textReader{source: &chunkReader{r: source, n: int(chunk)%9 + 1}}
		_, _ = io.ReadAll(r)
		rest, _ := io.ReadAll(source)
		if !bytes.Equal(append(bytes.Clone(r.raw), rest...), data) {
			t.Fatalf("read %q and left %q of %q", r.raw, rest, data)
		}
	})
}

// FuzzFrameStatus: the status is found however the answer arrives, and nothing else is taken for one.
func FuzzFrameStatus(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x00\x03abc"), uint8(1), false)
	f.Add([]byte("\x80\x00\x00\x00\x0egrpc-status: 5"), uint8(3), true)
	f.Fuzz(func(t *testing.T, message []byte, chunk uint8, text bool) {
		frame, err := newFrame(message, false)
		if err != nil {
			t.Fatal(err)
		}
		answer := append(frame.raw, webTrailer(&callError{code: 7, message: "no"}, false)...)
		if text {
			answer = base64.StdEncoding.AppendEncode(nil, answer)
		}
		watch := frameStatus{flag: flagTrailer, text: text}
		size := int(chunk)%13 + 1
		for rest := answer; len(rest) > 0; {
			n := min(size, len(rest))
			watch.write(rest[:n])
			rest = rest[n:]
		}
		if status, ok := trailerStatus(watch.last); !ok || status != "7" {
			t.Fatalf("status %q, %v", status, ok)
		}
		watch = frameStatus{flag: flagTrailer, text: text}
		watch.write(message) // Anything at all.
	})
}

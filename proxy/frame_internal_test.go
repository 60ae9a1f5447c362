package proxy

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/iotest"
)

func TestSingleFrame(t *testing.T) {
	t.Parallel()
	big := bytes.Repeat([]byte("x"), 300_000)
	bigFrame, err := newFrame(big, false)
	if err != nil {
		t.Fatal(err)
	}
	full, err := newFrame(big[:firstRead-frameHeaderSize], false)
	if err != nil {
		t.Fatal(err)
	}
	broken := errors.New("connection lost")
	for _, test := range []struct {
		name string
		in   io.Reader
		read string
		err  error
	}{
		{"empty message", bytes.NewReader([]byte{0, 0, 0, 0, 0}), "\x00\x00\x00\x00\x00", nil},
		{"a message", bytes.NewReader([]byte("\x00\x00\x00\x00\x03abc")), "\x00\x00\x00\x00\x03abc", nil},
		{"byte by byte", iotest.OneByteReader(bytes.NewReader([]byte("\x01\x00\x00\x00\x03abc"))), "\x01\x00\x00\x00\x03abc", nil},
		{"end with the last bytes", iotest.DataErrReader(bytes.NewReader([]byte("\x00\x00\x00\x00\x03abc"))), "\x00\x00\x00\x00\x03abc", nil},
		{"larger than any buffer", iotest.HalfReader(bytes.NewReader(bigFrame.raw)), string(bigFrame.raw), nil},
		{"nothing", bytes.NewReader(nil), "", errNoMessage},
		{"half a header", bytes.NewReader([]byte{0, 0}), "\x00\x00", errTruncated},
		{"half a message", bytes.NewReader([]byte("\x00\x00\x00\x00\x03a")), "\x00\x00\x00\x00\x03a", errTruncated},
		{"second message", bytes.NewReader([]byte("\x00\x00\x00\x00\x01a\x00\x00\x00\x00\x01b")), "\x00\x00\x00\x00\x01a\x00\x00\x00\x00\x01b", errManyMessages},
		{"second message, byte by byte", iotest.OneByteReader(bytes.NewReader([]byte("\x00\x00\x00\x00\x01a\x00\x00\x00\x00\x01b"))), "\x00\x00\x00\x00\x01a\x00", errManyMessages},
		{"second message behind a full buffer", bytes.NewReader(append(full.raw[:len(full.raw):len(full.raw)], 'b')), string(full.raw) + "b", errManyMessages},
		{"a message that fills the buffer", bytes.NewReader(full.raw), string(full.raw), nil},
		{"too large", bytes.NewReader([]byte("\x00\x00\x10\x00\x00a")), "\x00\x00\x10\x00\x00a", errMessageTooLarge},
		{"unknown flags", bytes.NewReader([]byte("\x80\x00\x00\x00\x00")), "\x80\x00\x00\x00\x00", errFrameFlags},
		{"lost in the header", io.MultiReader(bytes.NewReader([]byte{0}), iotest.ErrReader(broken)), "\x00", broken},
		{"lost in the message", io.MultiReader(bytes.NewReader([]byte("\x00\x00\x00\x00\x03a")), iotest.ErrReader(broken)), "\x00\x00\x00\x00\x03a", broken},
		{"lost after the message", io.MultiReader(bytes.NewReader([]byte("\x00\x00\x00\x00\x01a")), iotest.ErrReader(broken)), "\x00\x00\x00\x00\x01a", broken},
		{"cut by the transport", io.MultiReader(bytes.NewReader([]byte{0}), iotest.ErrReader(io.ErrUnexpectedEOF)), "\x00", io.ErrUnexpectedEOF},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			f, read, err := readSingleFrame(test.in, 1<<20-1)
			if !errors.Is(err, test.err) || string(read) != test.read {
				t.Fatalf("%q, %v; want %q, %v", read, err, test.read, test.err)
			}
			if err == nil && !bytes.Equal(f.raw, read) {
				t.Errorf("frame %q", f.raw)
			}
		})
	}
}

func TestClaimedLengthAllocatesNothing(t *testing.T) {
	t.Parallel()
	_, read, err := readSingleFrame(bytes.NewReader([]byte{0, 0x7f, 0xff, 0xff, 0xff, 1}), 1<<31)
	if !errors.Is(err, errTruncated) || cap(read) > 256<<10 {
		t.Errorf("%d bytes allocated, %v", cap(read), err)
	}
}

func TestCompressionKeepsTheLimit(t *testing.T) {
	t.Parallel()
	message := bytes.Repeat([]byte{7}, 1<<20)
	f, err := newFrame(message, true)
	if err != nil || !f.compressed() || len(f.raw) > 10_000 {
		t.Fatalf("%d bytes, %v", len(f.raw), err)
	}
	if got, err := f.decode(encodingGzip, 1<<20); err != nil || !bytes.Equal(got, message) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if _, err := f.decode(encodingGzip, 1<<20-1); !errors.Is(err, errMessageTooLarge) {
		t.Errorf("over the limit: %v", err)
	}
	cut := frame{raw: f.raw[:len(f.raw)-3]}
	if _, err := cut.decode(encodingGzip, 1<<20); !errors.Is(err, errCorrupt) {
		t.Errorf("cut: %v", err)
	}
}

// FuzzSingleFrame: whatever comes, what was read and what was left are the input; a frame is well formed; and framing
// what was decoded gives the same message again.
func FuzzSingleFrame(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x00\x03abc"), uint8(1))
	f.Add([]byte("\x01\x00\x00\x00\x00"), uint8(3))
	f.Add([]byte("\x00\x00\x00\x00\x01ab"), uint8(0))
	f.Fuzz(func(t *testing.T, in []byte, chunk uint8) {
		const limit = 1 << 10
		r := bytes.NewReader(in)
		fr, read, err := readSingleFrame(&chunkReader{r: r, n: int(chunk)%7 + 1}, limit)
		rest, _ := io.ReadAll(r)
		if !bytes.Equal(append(bytes.Clone(read), rest...), in) {
			t.Fatalf("read %x and left %x of %x", read, rest, in)
		}
		if err != nil {
			return
		}
		if len(rest) > 0 || len(fr.payload()) > limit {
			t.Fatalf("frame %x, left %x", fr.raw, rest)
		}
		for _, encoding := range []string{"", encodingGzip} {
			message, err := fr.decode(encoding, limit)
			if err != nil {
				continue
			}
			again, err := newFrame(message, fr.compressed())
			if err != nil {
				t.Fatal(err)
			}
			if back, err := again.decode(encoding, limit); err != nil || !bytes.Equal(back, message) {
				t.Fatalf("%x became %x, %v", message, back, err)
			}
		}
	})
}

type chunkReader struct {
	r io.Reader
	n int
}

func (c *chunkReader) Read(p []byte) (int, error) { return c.r.Read(p[:min(len(p), c.n)]) }

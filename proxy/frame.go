package proxy

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"io"
	"sync"
)

// frameHeaderSize is the length of the header before each gRPC message: one flag byte and a 32-bit length.
const frameHeaderSize = 5

// flagCompressed says that the message is compressed with the stream's grpc-encoding.
const flagCompressed = 1

// frameError says how a stream that must carry exactly one message does not.
type frameError string

const (
	errMessageTooLarge frameError = "message exceeds the size limit"
	errNoMessage       frameError = "stream ended without a message"
	errTruncated       frameError = "stream ended within a message"
	errManyMessages    frameError = "stream carries more than one message"
	errFrameFlags      frameError = "message has unknown frame flags"
	errNotCompressed   frameError = "message is marked as compressed in a stream without compression"
	errCorrupt         frameError = "message cannot be decompressed"
	errEncoding        frameError = "message encoding is not supported"
)

func (e frameError) Error() string { return string(e) }

// ends reports whether the error was found at the end of the stream, so that nothing follows what was read.
func (e frameError) ends() bool { return e == errNoMessage || e == errTruncated }

// frame is one gRPC message as it lies on the wire.
type frame struct {
	raw []byte // header and payload
}

func (f frame) compressed() bool { return f.raw[0] == flagCompressed }
func (f frame) payload() []byte  { return f.raw[frameHeaderSize:] }

// readSingleFrame reads a stream that is to carry exactly one message of at most limit bytes, up to its end.
//
// read is what was taken from r, whatever happened, so that a stream that cannot be evaluated can be passed on whole:
// read, then the rest of r. The error is a frameError, or r's own.
func readSingleFrame(r io.Reader, limit int64) (f frame, read []byte, err error) {
	buf := make([]byte, 0, firstRead)
	want := frameHeaderSize
	for sized := false; ; {
		if !sized && len(buf) >= frameHeaderSize {
			if buf[0]&^flagCompressed != 0 {
				return frame{}, buf, errFrameFlags
			}
			size := int64(binary.BigEndian.Uint32(buf[1:]))
			if size > limit {
				return frame{}, buf, errMessageTooLarge
			}
			want, sized = want+int(size), true
		}
		switch {
		case len(buf) > want:
			// A byte after the message is a second message; none is the proper end.
			return frame{}, buf, errManyMessages
		case err == io.EOF && len(buf) == want && sized:
			return frame{raw: buf}, buf, nil
		case err == io.EOF && len(buf) == 0:
			return frame{}, buf, errNoMessage
		case err == io.EOF:
			return frame{}, buf, errTruncated
		case err != nil:
			return frame{}, buf, err
		}
		if len(buf) == cap(buf) && len(buf) == want {
			var more [1]byte
			var n int
			n, err = r.Read(more[:])
			buf = append(buf, more[:n]...)
			continue
		}
		if len(buf) == cap(buf) {
			// The length is a claim: memory grows with what really came.
			buf = growTowards(buf, want)
		}
		var n int
		n, err = r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
	}
}

// firstRead is how much of a message is asked for before its length is known.
const firstRead = 512

// growTowards returns buf with more room: doubled, but not beyond what is wanted.
func growTowards(buf []byte, want int) []byte {
	const step = 64 << 10
	size := min(want, max(2*cap(buf), step))
	grown := make([]byte, len(buf), size)
	copy(grown, buf)
	return grown
}

// decode returns the message that f carries under the stream's encoding ("" and "identity" mean none). The result may
// be f's own memory. Errors: errEncoding, errNotCompressed, errMessageTooLarge, errCorrupt.
func (f frame) decode(encoding string, limit int64) ([]byte, error) {
	if !f.compressed() {
		return f.payload(), nil
	}
	switch encoding {
	case encodingGzip:
		return gunzip(f.payload(), limit)
	case "", encodingIdentity:
		return nil, errNotCompressed
	default:
		return nil, errEncoding
	}
}

// newFrame frames message, compressed when asked to.
func newFrame(message []byte, compress bool) (frame, error) {
	if !compress {
		raw := make([]byte, frameHeaderSize+len(message))
		binary.BigEndian.PutUint32(raw[1:], uint32(len(message)))
		copy(raw[frameHeaderSize:], message)
		return frame{raw: raw}, nil
	}
	var b bytes.Buffer
	b.Grow(frameHeaderSize + len(message)/2)
	b.Write([]byte{flagCompressed, 0, 0, 0, 0})
	if err := gzipTo(&b, message); err != nil {
		return frame{}, err
	}
	raw := b.Bytes()
	binary.BigEndian.PutUint32(raw[1:], uint32(len(raw)-frameHeaderSize))
	return frame{raw: raw}, nil
}

// Encodings of messages that the gateway can read and write.
const (
	encodingIdentity = "identity"
	encodingGzip     = "gzip"
	// acceptedEncodings is what the gateway says in grpc-accept-encoding.
	acceptedEncodings = "identity,gzip"
)

var (
	gzipReaders sync.Pool
	gzipWriters = sync.Pool{New: func() any { return gzip.NewWriter(io.Discard) }}
)

// gunzip decompresses data, which may become at most limit bytes long. Errors: errMessageTooLarge, errCorrupt.
func gunzip(data []byte, limit int64) ([]byte, error) {
	source := bytes.NewReader(data)
	zr, _ := gzipReaders.Get().(*gzip.Reader)
	var err error
	if zr == nil {
		zr, err = gzip.NewReader(source)
	} else {
		err = zr.Reset(source)
	}
	if err != nil {
		return nil, errCorrupt
	}
	defer gzipReaders.Put(zr)
	var b bytes.Buffer
	n, err := b.ReadFrom(io.LimitReader(zr, limit+1))
	switch {
	case n > limit:
		return nil, errMessageTooLarge
	case err != nil:
		return nil, errCorrupt
	}
	return b.Bytes(), nil
}

// gzipTo compresses data onto b.
func gzipTo(b *bytes.Buffer, data []byte) error {
	zw := gzipWriters.Get().(*gzip.Writer)
	defer gzipWriters.Put(zw)
	zw.Reset(b)
	if _, err := zw.Write(data); err != nil {
		return err
	}
	return zw.Close()
}

package h2

import (
	"encoding/binary"

	"golang.org/x/net/http2"
)

// The frame layer is our own: x/net's Framer allocates for every frame that is not DATA, copies every payload, and
// cannot say whether another whole frame has arrived already, which is what decides when output is written. Its types
// and constants are used throughout.

const (
	frameHeaderLen = 9
	// maxFrameSize is the largest payload that is accepted, on every connection: the protocol's default, so that a frame
	// that is too large is one whatever the state of our SETTINGS.
	maxFrameSize = 16 << 10
	// maxWindow is the largest flow-control window (RFC 9113 6.9.1).
	maxWindow = 1<<31 - 1
	// defaultWindow is every window's size before anybody said otherwise.
	defaultWindow = 65535
	streamIDMask  = 1<<31 - 1
)

// frameHeader is the head of one frame.
type frameHeader struct {
	length int
	kind   http2.FrameType
	flags  http2.Flags
	stream uint32
}

func (h frameHeader) has(f http2.Flags) bool { return h.flags&f != 0 }

// parseFrameHeader reads the first frameHeaderLen bytes of b.
func parseFrameHeader(b []byte) frameHeader {
	_ = b[frameHeaderLen-1]
	return frameHeader{
		length: int(b[0])<<16 | int(b[1])<<8 | int(b[2]),
		kind:   http2.FrameType(b[3]),
		flags:  http2.Flags(b[4]),
		stream: binary.BigEndian.Uint32(b[5:]) & streamIDMask,
	}
}

// putFrameHeader writes a frame's head into the first frameHeaderLen bytes of b.
func putFrameHeader(b []byte, length int, kind http2.FrameType, flags http2.Flags, stream uint32) {
	_ = b[frameHeaderLen-1]
	b[0], b[1], b[2] = byte(length>>16), byte(length>>8), byte(length)
	b[3], b[4] = byte(kind), byte(flags)
	binary.BigEndian.PutUint32(b[5:], stream)
}

// unpad takes the padding off a DATA or HEADERS payload. ok is false when the padding is longer than what there is.
func unpad(h frameHeader, p []byte) (data []byte, ok bool) {
	if !h.has(http2.FlagDataPadded) {
		return p, true
	}
	if len(p) == 0 || int(p[0]) >= len(p) {
		return nil, false
	}
	return p[1 : len(p)-int(p[0])], true
}

// connError ends a connection: GOAWAY with code, and why for those who watch.
type connError struct {
	code   http2.ErrCode
	reason Reason // not zero: a limit was hit
	text   string
}

func (e *connError) Error() string { return "http2: " + e.code.String() + ": " + e.text }

func protocolError(text string) error {
	return &connError{code: http2.ErrCodeProtocol, text: text}
}

func frameSizeError(text string) error {
	return &connError{code: http2.ErrCodeFrameSize, text: text}
}

func calm(reason Reason) error {
	return &connError{code: http2.ErrCodeEnhanceYourCalm, reason: reason, text: reason.String()}
}

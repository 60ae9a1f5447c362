package proxy

// frameStatus sees an answer of frames pass, and keeps the last one, which carries the status (gRPC-Web, and Connect
// streams).
type frameStatus struct {
	flag byte // marks the last frame
	text bool // the frames are in base64
	dec  textDecoder
	tmp  []byte

	header [frameHeaderSize]byte
	n      int    // of header
	left   uint32 // of the frame's payload
	final  bool   // the frame is the last
	last   []byte // its payload, as far as it is kept
}

// maxLastFrame is how much of it is looked at.
const maxLastFrame = 16 << 10

// Flags of last frames.
const (
	flagTrailer   = 0x80 // gRPC-Web: trailers
	flagEndStream = 0x02 // Connect: JSON
)

func (s *frameStatus) write(p []byte) {
	if s.text {
		s.tmp = s.dec.decode(s.tmp[:0], p)
		p = s.tmp
	}
	for len(p) > 0 {
		if s.left == 0 && s.n < frameHeaderSize {
			n := copy(s.header[s.n:], p)
			s.n, p = s.n+n, p[n:]
			if s.n < frameHeaderSize {
				return
			}
			s.left = uint32(s.header[1])<<24 | uint32(s.header[2])<<16 | uint32(s.header[3])<<8 | uint32(s.header[4])
			s.final = s.header[0]&s.flag != 0
			if s.left == 0 {
				s.n = 0
			}
			continue
		}
		n := min(uint64(s.left), uint64(len(p)))
		if s.final && len(s.last) < maxLastFrame {
			s.last = append(s.last, p[:n]...)
		}
		s.left, p = s.left-uint32(n), p[n:]
		if s.left == 0 {
			s.n = 0
		}
	}
}

// between reports whether a frame may follow what was seen.
func (s *frameStatus) between() bool { return s.n == 0 && s.left == 0 && !s.final && s.dec.clean() }

// bodyStatus keeps the beginning of an answer's body: an error says in it what it is.
type bodyStatus struct{ body []byte }

// maxErrorBody is how much of an error's body is looked at.
const maxErrorBody = 16 << 10

func (s *bodyStatus) write(p []byte) {
	if room := maxErrorBody - len(s.body); room > 0 {
		s.body = append(s.body, p[:min(room, len(p))]...)
	}
}

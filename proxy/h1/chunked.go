package h1

// chunks takes a body in chunked coding apart, strictly (RFC 9112 7.1). The zero value is at its beginning.
type chunks struct {
	// lenient lets white space stand behind a size, as old servers put it there.
	lenient bool

	state   chunkState
	left    int64 // of the size, while it is read; of the data, then
	digits  int
	ext     int
	trailer []byte // the trailer section, with the empty line; nil if it is empty
	from    int    // of trailer: where headEnd goes on
}

type chunkState uint8

const (
	inSize chunkState = iota
	inExtension
	afterSize // CR was seen
	inData
	afterData   // CR comes
	afterDataCR // LF comes
	atTrailer
	atEmptyLine // CR was seen
	inTrailer
	atEnd
)

const (
	maxSizeDigits = 16
	maxChunkSize  = 1 << 60
	maxExtension  = 1 << 10 // bytes of extensions in one line
	maxTrailer    = 16 << 10
)

// ended reports whether the body has been seen to its end, trailers included.
func (d *chunks) ended() bool { return d.state == atEnd }

// next takes the first piece off b: n bytes, in which data is what they carry. data is nil for framing. n is 0 when more
// is needed, or at the end.
func (d *chunks) next(b []byte) (data []byte, n int, err error) {
	for n < len(b) {
		if d.state == inData {
			size := int(min(d.left, int64(len(b)-n)))
			data = b[n : n+size]
			if d.left -= int64(size); d.left == 0 {
				d.state = afterData
			}
			return data, n + size, nil
		}
		if d.state == atEnd {
			return nil, n, nil
		}
		if err := d.step(b[n]); err != nil {
			return nil, n, err
		}
		n++
	}
	return nil, n, nil
}

// step takes in one byte of framing.
func (d *chunks) step(c byte) error {
	switch d.state {
	case inSize:
		return d.size(c)
	case inExtension:
		if c == '\r' {
			d.state = afterSize
			return nil
		}
		if d.ext++; class[c]&isText == 0 || d.ext > maxExtension {
			return errChunk
		}
	case afterSize:
		if c != '\n' {
			return errChunk
		}
		d.state = inData
		if d.left == 0 {
			d.state = atTrailer
		}
		d.digits, d.ext = 0, 0
	case afterData:
		if c != '\r' {
			return errChunk
		}
		d.state = afterDataCR
	case afterDataCR:
		if c != '\n' {
			return errChunk
		}
		d.state = inSize
	case atTrailer:
		if c == '\r' {
			d.state = atEmptyLine
			return nil
		}
		d.state = inTrailer
		return d.inTrailer(c)
	case atEmptyLine:
		if c != '\n' {
			return errChunk
		}
		d.state = atEnd
	case inTrailer:
		return d.inTrailer(c)
	default:
	}
	return nil
}

func (d *chunks) size(c byte) error {
	switch {
	case c >= '0' && c <= '9':
		c -= '0'
	case c >= 'a' && c <= 'f':
		c -= 'a' - 10
	case c >= 'A' && c <= 'F':
		c -= 'A' - 10
	case d.digits == 0:
		return errChunk
	case c == '\r':
		d.state = afterSize
		return nil
	case c == ';', d.lenient && (c == ' ' || c == '\t'):
		d.state = inExtension
		return nil
	default:
		return errChunk
	}
	if d.digits++; d.digits > maxSizeDigits || d.left >= maxChunkSize>>4 {
		return errChunk
	}
	d.left = d.left<<4 | int64(c)
	return nil
}

func (d *chunks) inTrailer(c byte) error {
	if len(d.trailer) == maxTrailer {
		return errTooLarge
	}
	d.trailer = append(d.trailer, c)
	if c != '\n' {
		return nil
	}
	end, next, err := headEnd(d.trailer, d.from)
	if err != nil {
		return err
	}
	d.from = next
	if end > 0 {
		d.state = atEnd
	}
	return nil
}

// appendTrailer writes the trailer fields that may travel on, and the empty line behind them.
func (d *chunks) appendTrailer(out []byte) ([]byte, error) {
	for b := d.trailer; len(b) > 2; {
		end, colon, err := splitField(b)
		if err != nil {
			return out, err
		}
		if name := text(b[:colon]); mayTrail(name) {
			out = appendField(out, name, text(trim(b[colon+1:end])))
		}
		b = b[end+2:]
	}
	return append(out, '\r', '\n'), nil
}

// mayTrail reports whether a field may come as a trailer (RFC 9110 6.5.1): what frames, routes or changes the meaning of
// the message may not.
func mayTrail(name string) bool {
	switch name {
	case "Connection", "Keep-Alive", "Proxy-Connection", "Proxy-Authenticate", "Proxy-Authorization", "Te", "Trailer",
		"Transfer-Encoding", "Upgrade", "Http2-Settings", "Content-Length", "Content-Encoding", "Content-Type", "Content-Range",
		"Host", "Expect", "Authorization", "Cookie", "Set-Cookie", "Www-Authenticate", "Age", "Cache-Control", "Expires", "Date",
		"Location", "Retry-After", "Vary", "Warning", "Max-Forwards", "Pragma", "Range", "If-Match", "If-None-Match",
		"If-Modified-Since", "If-Unmodified-Since", "If-Range", "Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto":
		return false
	}
	return true
}

// appendField writes one field line.
func appendField(out []byte, name, value string) []byte {
	out = append(out, name...)
	out = append(out, ": "...)
	out = append(out, value...)
	return append(out, '\r', '\n')
}

// appendChunk writes one chunk.
func appendChunk(out, data []byte) []byte {
	if len(data) == 0 {
		return out
	}
	out = appendHex(out, len(data))
	out = append(out, '\r', '\n')
	out = append(out, data...)
	return append(out, '\r', '\n')
}

func appendHex(out []byte, n int) []byte {
	const digits = "0123456789abcdef"
	shift := 0
	for n>>shift > 15 {
		shift += 4
	}
	for ; shift >= 0; shift -= 4 {
		out = append(out, digits[n>>shift&15])
	}
	return out
}

package proxy

import (
	"bytes"
	"compress/flate"
	"compress/zlib"
	"errors"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/andybalholm/brotli"
)

// readWhole reads a body of at most limit bytes to its end. read is what was taken from r, whatever happened. The error
// is errMessageTooLarge, or r's own.
func readWhole(r io.Reader, limit int64) (read []byte, err error) {
	var b bytes.Buffer
	n, err := b.ReadFrom(io.LimitReader(r, limit+1))
	if err == nil && n > limit {
		err = errMessageTooLarge
	}
	return b.Bytes(), err
}

// Content codings that the gateway can read and write.
const (
	codingDeflate = "deflate" // zlib, RFC 9110 8.4.1.2; some senders leave the wrapper out
	codingBrotli  = "br"
	// acceptedCodings is what the gateway says in Accept-Encoding.
	acceptedCodings = "gzip, deflate, br"
)

// brotliQuality costs about what gzip does and is not larger. What the upstream may have spent on a page that it keeps
// does not pay for one message.
const brotliQuality = 4

// contentCoding returns the one coding of a body ("" when it has none), or a list that nobody here can read.
func contentCoding(h http.Header) string {
	coding := strings.ToLower(strings.TrimSpace(strings.Join(h["Content-Encoding"], ",")))
	switch coding {
	case encodingIdentity:
		return ""
	case "x-gzip":
		return encodingGzip
	}
	return coding
}

// decodeContent undoes a content coding. Errors: errEncoding, errMessageTooLarge, errCorrupt.
func decodeContent(coding string, data []byte, limit int64) ([]byte, error) {
	switch coding {
	case "":
		return data, nil
	case encodingGzip:
		return gunzip(data, limit)
	case codingDeflate:
		return inflate(data, limit)
	case codingBrotli:
		return unbrotli(data, limit)
	}
	return nil, errEncoding
}

// encodeContent applies a content coding that decodeContent has undone.
func encodeContent(coding string, data []byte) ([]byte, error) {
	var b bytes.Buffer
	switch coding {
	case encodingGzip:
		if err := gzipTo(&b, data); err != nil {
			return nil, err
		}
	case codingDeflate:
		return finish(&b, zlib.NewWriter(&b), data)
	case codingBrotli:
		return finish(&b, brotli.NewWriterLevel(&b, brotliQuality), data)
	default:
		return data, nil
	}
	return b.Bytes(), nil
}

// finish writes data through w, which writes to b.
func finish(b *bytes.Buffer, w io.WriteCloser, data []byte) ([]byte, error) {
	if _, err := w.Write(data); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

func unbrotli(data []byte, limit int64) ([]byte, error) {
	out, err := readWhole(brotli.NewReader(bytes.NewReader(data)), limit)
	switch {
	case errors.Is(err, errMessageTooLarge):
		return nil, err
	case err != nil:
		return nil, errCorrupt
	}
	return out, nil
}

func inflate(data []byte, limit int64) ([]byte, error) {
	var zr io.ReadCloser
	zr, err := zlib.NewReader(bytes.NewReader(data))
	if err != nil {
		zr = flate.NewReader(bytes.NewReader(data))
	}
	defer func() { _ = zr.Close() }()
	out, err := readWhole(zr, limit)
	if err != nil && !errors.Is(err, errMessageTooLarge) {
		return nil, errCorrupt
	}
	return out, err
}

// limitCodings keeps of an Accept-Encoding what the gateway can read. The result is never empty if h had the header.
func limitCodings(h http.Header) {
	const name = "Accept-Encoding"
	accepted := h[name]
	if len(accepted) == 0 {
		return
	}
	var kept []string
	for _, list := range accepted {
		for element := range strings.SplitSeq(list, ",") {
			coding, _, _ := strings.Cut(element, ";")
			switch strings.ToLower(strings.TrimSpace(coding)) {
			case encodingGzip, "x-gzip", codingDeflate, codingBrotli, encodingIdentity:
				kept = append(kept, strings.TrimSpace(element))
			}
		}
	}
	if len(kept) == 0 {
		kept = []string{encodingIdentity}
	}
	h[name] = []string{strings.Join(kept, ", ")}
}

// setRequestBody makes body the whole body of a request.
func setRequestBody(out *http.Request, body []byte) {
	out.TransferEncoding = nil
	out.Trailer = nil
	out.ContentLength = int64(len(body))
	if len(body) == 0 {
		out.Body, out.GetBody = http.NoBody, func() (io.ReadCloser, error) { return http.NoBody, nil }
	} else {
		out.Body, out.GetBody = replayable(body)
	}
	delete(out.Header, headerContentLength) // The transport states it.
	dropDigests(out.Header)
}

// setResponseBody makes body the whole body of an answer, whose old one is only closed.
func setResponseBody(res *http.Response, body []byte) {
	res.Body = &joined{Reader: bytes.NewReader(body), Closer: res.Body}
	res.ContentLength = int64(len(body))
	res.Header[headerContentLength] = []string{strconv.Itoa(len(body))}
	dropDigests(res.Header)
	for _, name := range [...]string{"Etag", "Last-Modified", "Accept-Ranges"} {
		delete(res.Header, name) // They speak of what the upstream made, byte for byte.
	}
}

// dropDigests removes what vouches for a body that is no longer that.
func dropDigests(h http.Header) {
	for _, name := range [...]string{"Content-Md5", "Digest", "Content-Digest", "Repr-Digest"} {
		delete(h, name)
	}
}

// readBody reads an answer's body and puts it back. whole is false when it goes on after what was read.
func readBody(res *http.Response, limit int64) (body []byte, err error) {
	rest := res.Body
	body, err = readWhole(rest, limit)
	if errors.Is(err, errMessageTooLarge) {
		res.Body = &joined{Reader: io.MultiReader(bytes.NewReader(body), rest), Closer: rest}
		return nil, err
	}
	res.Body = &joined{Reader: bytes.NewReader(body), Closer: rest}
	return body, err
}

// mediaType is the media type of a Content-Type value, in lower case.
func mediaType(values []string) string {
	if len(values) == 0 {
		return ""
	}
	t, _, _ := strings.Cut(values[0], ";")
	return strings.ToLower(strings.TrimSpace(t))
}

// oneOf reports whether s is one of the given strings.
func oneOf(s string, all ...string) bool { return slices.Contains(all, s) }

package targetclient

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash"
	"strconv"
	"strings"
	"sync"
	"time"
)

// SignatureHeaderName is the header that carries the signature of the body.
const SignatureHeaderName = "ZITADEL-Signature"

// DefaultTolerance is how old a signature may be unless the receiver says
// otherwise.
const DefaultTolerance = 300 * time.Second

// What Verify returns.
var (
	// ErrNotSigned says that the header is absent or empty.
	ErrNotSigned = errors.New("body is not signed")
	// ErrInvalidHeader says that the header is not a list of key=value parts, or
	// its time is no number.
	ErrInvalidHeader = errors.New("signature header is invalid")
	// ErrSignatureTooOld says that the signature was made too long ago, or does
	// not say when.
	ErrSignatureTooOld = errors.New("signature is too old")
	// ErrNoValidSignature says that no signature in the header is the body's.
	ErrNoValidSignature = errors.New("no valid signature")
)

// Sign returns the signature of the body at the time t: the lower-case hex of
// HMAC-SHA256 over the Unix seconds in decimal, a dot and the body. The key's
// bytes are used as they are.
func Sign(key string, t time.Time, body []byte) string {
	return hex.EncodeToString(mac(key, t.Unix(), body))
}

// SignatureHeader returns the header value for the body: the time and one v1
// part per key, in order. Without a key it is empty: nothing is to be sent.
func SignatureHeader(keys []string, t time.Time, body []byte) string {
	signers := make([]*signer, 0, len(keys))
	for _, key := range keys {
		signers = append(signers, newSigner(key))
	}
	return string(appendSignature(nil, signers, t, body))
}

// appendSignature appends the header value; nothing when nobody signs.
func appendSignature(b []byte, signers []*signer, t time.Time, body []byte) []byte {
	if len(signers) == 0 {
		return b
	}
	b = append(b, "t="...)
	start := len(b)
	b = strconv.AppendInt(b, t.Unix(), 10)
	end := len(b)
	for _, s := range signers {
		b = append(b, ",v1="...)
		b = s.appendHex(b, b[start:end], body)
	}
	return b
}

// signer signs with one key. What the key alone decides is computed once.
type signer struct{ states sync.Pool }

// macState is an HMAC in the making.
type macState struct {
	hash.Hash
	sum [sha256.Size]byte
}

func newSigner(key string) *signer {
	s := &signer{}
	s.states.New = func() any { return &macState{Hash: hmac.New(sha256.New, []byte(key))} }
	return s
}

// appendHex appends the signature of a body at the time, which is in Unix seconds.
func (s *signer) appendHex(b, unix, body []byte) []byte {
	m, _ := s.states.Get().(*macState)
	defer s.states.Put(m)
	m.Reset()
	_, _ = m.Write(unix)
	_, _ = m.Write(dot)
	_, _ = m.Write(body)
	return hex.AppendEncode(b, m.Sum(m.sum[:0]))
}

var dot = []byte{'.'}

// Verify checks a received header value as receivers of ZITADEL's actions do:
// any one v1 part may match; a time in the future is fine; with several times
// the last one counts. The errors are ErrNotSigned, ErrInvalidHeader,
// ErrSignatureTooOld and ErrNoValidSignature.
func Verify(header, key string, body []byte, now time.Time, tolerance time.Duration) error {
	h, err := parseSignatureHeader(header)
	if err != nil {
		return err
	}
	if len(h.v1) == 0 {
		return ErrNoValidSignature
	}
	oldest := now.Add(-tolerance)
	if !h.hasTime || h.unix < oldest.Unix() || (h.unix == oldest.Unix() && oldest.Nanosecond() > 0) {
		return ErrSignatureTooOld
	}
	want := mac(key, h.unix, body)
	for _, got := range h.v1 {
		if hmac.Equal(got, want) {
			return nil
		}
	}
	return ErrNoValidSignature
}

func mac(key string, unix int64, body []byte) []byte {
	m := hmac.New(sha256.New, []byte(key))
	var prefix [24]byte
	_, _ = m.Write(append(strconv.AppendInt(prefix[:0], unix, 10), '.'))
	_, _ = m.Write(body)
	return m.Sum(nil)
}

// signatureHeader is a parsed header value.
type signatureHeader struct {
	unix    int64
	hasTime bool
	v1      [][]byte
}

// String returns the header value, without the parts that parsing skipped.
func (h signatureHeader) String() string {
	b := make([]byte, 0, 24+len(h.v1)*(len(",v1=")+2*sha256.Size))
	if h.hasTime {
		b = append(b, "t="...)
		b = strconv.AppendInt(b, h.unix, 10)
	}
	for _, sig := range h.v1 {
		if len(b) > 0 {
			b = append(b, ',')
		}
		b = append(b, "v1="...)
		b = hex.AppendEncode(b, sig)
	}
	return string(b)
}

func parseSignatureHeader(value string) (signatureHeader, error) {
	var h signatureHeader
	if value == "" {
		return h, ErrNotSigned
	}
	for part := range strings.SplitSeq(value, ",") {
		key, val, ok := strings.Cut(part, "=")
		if !ok || strings.Contains(val, "=") {
			return signatureHeader{}, ErrInvalidHeader
		}
		switch key {
		case "t":
			unix, err := strconv.ParseInt(val, 10, 64)
			if err != nil {
				return signatureHeader{}, ErrInvalidHeader
			}
			h.unix, h.hasTime = unix, true
		case "v1":
			if sig, err := hex.DecodeString(val); err == nil {
				h.v1 = append(h.v1, sig)
			}
		}
	}
	return h, nil
}

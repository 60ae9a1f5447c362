package queue

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"strings"
	"sync"
	"time"
)

// idLength is the length of an id: 16 bytes in lower-case base32hex, whose order
// is that of the bytes.
const idLength = 26

var idEncoding = base32.HexEncoding.WithPadding(base32.NoPadding)

// ids makes ids that grow within one process, also within one millisecond.
var ids struct {
	mu   sync.Mutex
	last [16]byte
}

// NewID returns an id for a delivery: 26 characters 0-9a-v that sort by the time
// at which they were made, and cannot be guessed.
func NewID(t time.Time) string {
	var id [16]byte
	putMillis(id[:], t)
	_, _ = rand.Read(id[6:]) // never fails
	id[6] &= 0x7f            // room to count up

	ids.mu.Lock()
	defer ids.mu.Unlock()
	if string(id[:6]) <= string(ids.last[:6]) {
		// The same millisecond, or a clock that went back: one more than the last,
		// by a random step so that ids cannot be guessed from their neighbours.
		step := uint64(binary.BigEndian.Uint32(id[12:])) + 1
		id = ids.last
		low := binary.BigEndian.Uint64(id[8:])
		binary.BigEndian.PutUint64(id[8:], low+step)
		if low+step < low {
			binary.BigEndian.PutUint16(id[6:], binary.BigEndian.Uint16(id[6:])+1)
		}
	}
	ids.last = id
	return encodeID(id)
}

// IDFor returns the id that always stands for the same thing: its time and the
// parts that name it. A source that may repeat itself gives such ids, and the
// queue drops the repetitions as long as it knows the delivery.
func IDFor(t time.Time, parts ...string) string {
	h := sha256.New()
	for _, part := range parts {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(part)))
		h.Write(n[:])
		h.Write([]byte(part))
	}
	var id [16]byte
	putMillis(id[:], t)
	copy(id[6:], h.Sum(nil))
	return encodeID(id)
}

// firstID sorts before every id that is made at the time or later.
func firstID(t time.Time) string {
	var id [16]byte
	putMillis(id[:], t)
	return encodeID(id)
}

// timeOf returns the time that an id was made for.
func timeOf(id string) time.Time {
	raw, err := idEncoding.DecodeString(strings.ToUpper(id))
	if err != nil || len(raw) != 16 {
		return time.Time{}
	}
	return time.UnixMilli(int64(binary.BigEndian.Uint64(append([]byte{0, 0}, raw[:6]...))))
}

func putMillis(to []byte, t time.Time) {
	var ms [8]byte
	binary.BigEndian.PutUint64(ms[:], uint64(max(t.UnixMilli(), 0)))
	copy(to[:6], ms[2:])
}

func encodeID(id [16]byte) string { return strings.ToLower(idEncoding.EncodeToString(id[:])) }

// ValidID reports whether an id has the form of those that NewID makes.
func ValidID(id string) bool {
	if len(id) != idLength {
		return false
	}
	for _, c := range []byte(id) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'v') {
			return false
		}
	}
	return true
}

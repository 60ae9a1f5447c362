package h2

import (
	"errors"
	"math"
	"strings"
	"sync"
)

// hpackDecoder is the receiving end of HPACK (RFC 7541). x/net's decoder says the same of every block, which a fuzz target
// sees to; this one keeps with each entry of its table what a Field knows of itself.
type hpackDecoder struct {
	ring  []Field // entry id is at id&(len(ring)-1)
	added uint32  // ids that were given out: the newest entry's
	n     int     // entries that there are
	size  int
	max   int // as the peer chose; headerTableSize at most
}

const fewDecoded = 16 // places in a new ring

var (
	errTruncated   = errors.New("truncated headers")
	errIndex       = errors.New("no such entry in the header table")
	errInteger     = errors.New("integer is too large")
	errTableUpdate = errors.New("table size update is too large, or misplaced")
)

// at returns the entry that an index names, nil if there is none. It is valid until the table changes.
func (d *hpackDecoder) at(i int) *Field {
	if i <= len(staticTable) {
		if i == 0 {
			return nil
		}
		return &staticTable[i-1]
	}
	if i -= len(staticTable); i > d.n {
		return nil
	}
	return &d.ring[int(d.added-uint32(i-1))&(len(d.ring)-1)]
}

// add puts a field, whose strings are nobody else's, into the table.
func (d *hpackDecoder) add(f *Field) {
	size := f.size()
	d.evict(size)
	if size > d.max {
		return
	}
	if d.n == len(d.ring) {
		old := d.ring
		d.ring = make([]Field, max(fewDecoded, 2*len(old)))
		for i := range d.n {
			id := int(d.added) - i
			d.ring[id&(len(d.ring)-1)] = old[id&(len(old)-1)]
		}
	}
	d.added++
	d.n++
	d.size += size
	d.ring[int(d.added)&(len(d.ring)-1)] = *f
}

// evict makes room for n bytes.
func (d *hpackDecoder) evict(n int) {
	for d.n > 0 && d.size+n > d.max {
		oldest := &d.ring[(int(d.added)-d.n+1)&(len(d.ring)-1)]
		d.size -= oldest.size()
		*oldest = Field{}
		d.n--
	}
}

// resize acts on a table size update.
func (d *hpackDecoder) resize(n int) {
	d.max = n
	d.evict(0)
}

// readInt reads an integer with a prefix of so many bits, whose first byte is p[0].
func readInt(p []byte, prefix uint) (n int, rest []byte, err error) {
	limit := 1<<prefix - 1
	if n = int(p[0]) & limit; n < limit {
		return n, p[1:], nil
	}
	return readLongInt(p[1:], uint64(limit))
}

// readLongInt reads what follows a prefix that is full.
func readLongInt(p []byte, sum uint64) (n int, rest []byte, err error) {
	for shift := uint(0); len(p) > 0; shift += 7 {
		if shift > 56 {
			return 0, nil, errInteger
		}
		b := p[0]
		p = p[1:]
		sum += uint64(b&0x7f) << shift
		if b&0x80 != 0 {
			continue
		}
		if sum > math.MaxInt32 { // There is nothing of that size.
			return 0, nil, errInteger
		}
		return int(sum), p, nil
	}
	return 0, nil, errTruncated
}

// readString finds the bytes of a string, which may be in Huffman's code.
func readString(p []byte) (s []byte, coded bool, rest []byte, err error) {
	if len(p) == 0 {
		return nil, false, nil, errTruncated
	}
	coded = p[0]&0x80 != 0
	n, rest, err := readInt(p, 7)
	if err != nil {
		return nil, false, nil, err
	}
	if n > len(rest) {
		return nil, false, nil, errTruncated
	}
	return rest[:n], coded, rest[n:], nil
}

// texts holds strings that are in no table. They are cut from one larger piece of memory, which lives as long as any
// of them.
type texts struct {
	b       strings.Builder
	scratch []byte
}

const (
	textBytes = 2 << 10
	// longText is what gets memory of its own.
	longText = 256
)

var allTexts = sync.Pool{New: func() any { return new(texts) }}

// make makes a string; own says that it must not share memory with others.
func (t *texts) make(p []byte, coded, own bool) (string, error) {
	if coded {
		var err error
		t.scratch, err = appendHuffman(t.scratch[:0], p)
		if p = t.scratch; cap(p) > textBytes {
			t.scratch = nil
		}
		if err != nil {
			return "", err
		}
	}
	switch {
	case len(p) == 0:
		return "", nil
	case own || len(p) > longText:
		return string(p), nil
	}
	if t.b.Cap()-t.b.Len() < len(p) {
		t.b.Reset()
		t.b.Grow(textBytes)
	}
	at := t.b.Len()
	t.b.Write(p)
	return t.b.String()[at:], nil
}

// take takes a field into the list, unless that is full.
func (r *headerReader) take(f *Field) {
	if r.over {
		return
	}
	if r.size += f.size(); r.size > r.limit {
		r.over = true
		return
	}
	r.fields = append(r.fields, *f)
}

// readBlock reads one whole block.
func (r *headerReader) readBlock(p []byte) error {
	d := &r.table
	for first := true; len(p) > 0; first = false {
		b := p[0]
		switch {
		case b&0x80 != 0: // RFC 7541 6.1
			i, rest, err := readInt(p, 7)
			if err != nil {
				return err
			}
			p = rest
			f := d.at(i)
			if f == nil {
				return errIndex
			}
			r.take(f)
		case b&0xe0 == 0x20: // 6.3
			if !first && d.size > 0 {
				return errTableUpdate
			}
			n, rest, err := readInt(p, 5)
			if err != nil {
				return err
			}
			if n > headerTableSize {
				return errTableUpdate
			}
			p = rest
			d.resize(n)
		default:
			var err error
			if p, err = r.readLiteral(p); err != nil {
				return err
			}
		}
	}
	return nil
}

// readLiteral reads a field that is no entry of the table, or not only (RFC 7541 6.2).
func (r *headerReader) readLiteral(p []byte) (rest []byte, err error) {
	d := &r.table
	prefix, indexed := uint(4), p[0]&0xc0 == 0x40
	if indexed {
		prefix = 6
	}
	f := Field{Sensitive: p[0]&0xf0 == 0x10}
	i, p, err := readInt(p, prefix)
	if err != nil {
		return nil, err
	}
	var name []byte
	nameCoded := false
	if i > 0 {
		entry := d.at(i)
		if entry == nil {
			return nil, errIndex
		}
		f.Name, f.known, f.flaws = entry.Name, entry.known, entry.flaws&^flawValue
		if f.known == nameTE {
			f.flaws &^= flawConnection
		}
	} else if name, nameCoded, p, err = readString(p); err != nil {
		return nil, err
	}
	value, coded, p, err := readString(p)
	if err != nil {
		return nil, err
	}
	if r.over && !indexed {
		return p, nil // Nobody will see it.
	}
	if i == 0 {
		if known, ok := fieldsByName[string(name)]; ok && !nameCoded {
			f.Name, f.known, f.flaws = namesOfFields[known], known, flawsOfName(namesOfFields[known])
		} else {
			if f.Name, err = r.texts().make(name, nameCoded, indexed); err != nil {
				return nil, err
			}
			f.known, f.flaws = nameOf(f.Name), flawsOfName(f.Name)
			if f.known.whole() {
				f.Name = namesOfFields[f.known]
			}
		}
	}
	if f.Value, err = r.texts().make(value, coded, indexed); err != nil {
		return nil, err
	}
	f.checkValue()
	if indexed {
		f.workOut()
		d.add(&f)
	}
	r.take(&f)
	return p, nil
}

package h2

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

func (q *chunkQueue) text() (s string) {
	for c := q.head; c != nil; c = c.next {
		s += string(c.buf[c.r:c.w])
	}
	return s
}

func (q *chunkQueue) chunks() (n int) {
	for c := q.head; c != nil; c = c.next {
		n++
	}
	return n
}

// TestBorrowedOutput: whatever is appended, borrowed, taken off and kept, the bytes and their number are right, and each
// block is let go of in the end.
func TestBorrowedOutput(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		var q chunkQueue
		var want []byte
		var blocks []*block
		for range 30 {
			switch rng.IntN(6) {
			case 0:
				p := bytes.Repeat([]byte{byte('a' + rng.IntN(26))}, rng.IntN(50_000))
				q.append(p)
				want = append(want, p...)
			case 1:
				copy(q.reserve(9), "reserved.")
				want = append(want, "reserved."...)
			case 2:
				b := getInput(largeInput)
				blocks = append(blocks, b)
				at := rng.IntN(100)
				for range rng.IntN(5) {
					s := span{block: b, from: at, to: at + rng.IntN(12_000)}
					for i := range s.bytes() {
						s.bytes()[i] = byte('A' + rng.IntN(26))
					}
					q.borrow(s)
					want = append(want, s.bytes()...)
					at = s.to + rng.IntN(2)
				}
			case 3:
				n := min(rng.IntN(30_000), q.size)
				q.drop(n)
				want = want[n:]
			case 4:
				q.keep()
				for _, b := range blocks {
					if b.shared() {
						t.Fatal("a block is shared when everything was kept")
					}
				}
			case 5:
				var front chunkQueue
				q.cut(&front, 1+rng.IntN(60_000))
				front.prepend(&chunkQueue{})
				q.prepend(&front)
			}
			if q.size != len(want) || q.text() != string(want) {
				t.Fatalf("%d bytes, want %d", q.size, len(want))
			}
		}
		q.clear()
		for _, b := range blocks {
			if b.shared() {
				t.Fatal("a block is shared when nothing is left")
			}
			b.release()
		}
	}
}

func TestBorrowedOutputIsFew(t *testing.T) {
	t.Parallel()
	b := getInput(largeInput)
	defer b.release()
	var q chunkQueue
	q.borrow(span{block: b, from: 0, to: worthBorrowing - 1})
	if b.shared() {
		t.Error("a few bytes are borrowed")
	}
	q.borrow(span{block: b, from: worthBorrowing, to: 3 * worthBorrowing})
	q.borrow(span{block: b, from: 3 * worthBorrowing, to: 3*worthBorrowing + 10})
	if n := q.chunks(); n != 2 {
		t.Errorf("what stands side by side makes %d chunks", n)
	}
	q.clear()
}

// TestInputThatIsBorrowedStays: the reader does not write over what it gave out.
func TestInputThatIsBorrowedStays(t *testing.T) {
	t.Parallel()
	payload := bytes.Repeat([]byte("x"), 10_000)
	var in inputBuffer
	defer in.free()
	var q chunkQueue
	var want string
	for i := range 40 {
		frame := make([]byte, frameHeaderLen, frameHeaderLen+len(payload))
		putFrameHeader(frame, len(payload), 0, 0, uint32(2*i+1))
		frame = append(frame, payload...)
		frame[len(frame)-1] = byte(i)
		for len(frame) > 0 {
			n := copy(in.room(), frame)
			in.filled(n)
			frame = frame[n:]
		}
		h, p, ok, err := in.next()
		if !ok || err != nil || int(p[len(p)-1]) != i {
			t.Fatalf("frame %d: %v, %v, %v", i, h, ok, err)
		}
		if i%3 != 0 {
			s := in.last(len(p))
			q.borrow(s)
			want += string(s.bytes())
		}
	}
	if q.text() != want {
		t.Error("what was given out has changed")
	}
	q.clear()
}

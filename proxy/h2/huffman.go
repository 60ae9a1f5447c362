package h2

import (
	"encoding/binary"
	"errors"
	"math"
	"strings"

	"golang.org/x/net/http2/hpack"
)

var errHuffman = errors.New("invalid Huffman-encoded string")

// The Huffman code of RFC 7541 B is canonical: codes of one length are consecutive numbers, in the order of the symbols.
// Codes of shortCode bits at most, which is what text is made of, are found in one look.
const (
	shortCode = 10
	longCode  = 30
)

type huffmanTable struct {
	short [1 << shortCode]struct{ symbol, bits uint8 } // bits 0: the code is longer

	// By the length of longer codes.
	first, count [longCode + 1]uint32
	symbols      [longCode + 1][]uint8
}

// huffman is made from what x/net's encoder writes.
var huffman = func() *huffmanTable {
	t := new(huffmanTable)
	for symbol := range 256 {
		eight := strings.Repeat(string([]byte{byte(symbol)}), 8)
		bits := hpack.HuffmanEncodeLength(eight) // Eight times the code are as many bytes as it has bits.
		var code uint64
		for _, b := range hpack.AppendHuffmanString(nil, eight)[:min(bits, 4)] {
			code = code<<8 | uint64(b)
		}
		code >>= 32 - bits
		if bits <= shortCode {
			for rest := range 1 << (shortCode - bits) {
				at := &t.short[int(code)<<(shortCode-bits)|rest]
				at.symbol, at.bits = uint8(symbol), uint8(bits)
			}
			continue
		}
		if t.count[bits] == 0 {
			t.first[bits] = uint32(code)
		}
		t.count[bits]++
		t.symbols[bits] = append(t.symbols[bits], uint8(symbol))
	}
	return t
}()

// appendHuffman appends what p stands for to out.
func appendHuffman(out, p []byte) ([]byte, error) {
	t := huffman
	acc, n := ^uint64(0), 0 // The upper n bits of acc are what was read of p; below are ones, as padding is.
	for len(p) >= 4 {
		word := uint64(binary.BigEndian.Uint32(p))
		acc = acc&^(math.MaxUint32<<(32-n)) | word<<(32-n)
		n += 32
		p = p[4:]
		for n >= longCode {
			at := t.short[acc>>(64-shortCode)]
			symbol, bits := at.symbol, int(at.bits)
			if bits == 0 {
				if symbol, bits = t.long(acc); bits == 0 {
					return out, errHuffman
				}
			}
			out = append(out, symbol)
			acc = acc<<(bits&63) | (1<<(bits&63) - 1)
			n -= bits
		}
	}
	for {
		for n <= 56 && len(p) > 0 {
			acc = acc&^(0xff<<(56-n)) | uint64(p[0])<<(56-n)
			n += 8
			p = p[1:]
		}
		at := t.short[acc>>(64-shortCode)]
		symbol, bits := at.symbol, int(at.bits)
		if bits == 0 {
			symbol, bits = t.long(acc)
		}
		if bits == 0 || bits > n {
			break
		}
		out = append(out, symbol)
		acc = acc<<bits | (1<<bits - 1)
		n -= bits
	}
	// What is left is padding: less than a byte, of ones (RFC 7541 5.2). EOS itself must not be there.
	if n > 7 || ^acc>>(64-n) != 0 {
		return out, errHuffman
	}
	return out, nil
}

// long finds a code of more than shortCode bits. bits is 0 if there is none.
func (t *huffmanTable) long(acc uint64) (symbol uint8, bits int) {
	for bits = shortCode + 1; bits <= longCode; bits++ {
		if at := uint32(acc>>(64-bits)) - t.first[bits]; at < t.count[bits] {
			return t.symbols[bits][at], bits
		}
	}
	return 0, 0
}

package queue

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"
)

// Sealer encrypts payloads at rest with AES-256-GCM, each under a random nonce
// and bound to the id and the target of its delivery. The first key encrypts, all
// of them decrypt: to rotate, put a new key first, and remove the old one when
// nothing sealed with it is left. One key is good for some 2^32 payloads.
//
// Only payloads are sealed. The names of targets and executions, times and
// outcomes stay readable, and order keys are kept as hashes.
type Sealer struct {
	keys []sealKey
}

type sealKey struct {
	id   [4]byte // the first bytes of the key's hash
	aead cipher.AEAD
}

// The first byte of a stored payload.
const (
	formPlain  = 0
	formSealed = 1
)

// NewSealer returns a sealer with keys of 32 bytes.
func NewSealer(keys ...[]byte) (*Sealer, error) {
	if len(keys) == 0 {
		return nil, errors.New("no encryption key")
	}
	s := &Sealer{}
	for i, key := range keys {
		if len(key) != 32 {
			return nil, fmt.Errorf("encryption key %d has %d bytes, not 32", i+1, len(key))
		}
		block, err := aes.NewCipher(key)
		if err != nil {
			return nil, fmt.Errorf("encryption key %d: %w", i+1, err)
		}
		aead, err := cipher.NewGCM(block)
		if err != nil {
			return nil, fmt.Errorf("encryption key %d: %w", i+1, err)
		}
		hash := sha256.Sum256(key)
		s.keys = append(s.keys, sealKey{id: [4]byte(hash[:4]), aead: aead})
	}
	return s, nil
}

// ReadSealer reads the keys from a file: one per line, 32 bytes in base64 or hex.
// Empty lines and lines that start with # do not count.
func ReadSealer(path string) (*Sealer, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read encryption keys: %w", err)
	}
	var keys [][]byte
	number := 0
	for line := range strings.Lines(string(text)) {
		number++
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		key, err := hex.DecodeString(line)
		if err != nil {
			key, err = base64.StdEncoding.DecodeString(line)
		}
		if err != nil || len(key) != 32 {
			return nil, fmt.Errorf("%s, line %d: not a key: 32 bytes in base64 (head -c 32 /dev/urandom | base64) or hex", path, number)
		}
		keys = append(keys, key)
	}
	s, err := NewSealer(keys...)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return s, nil
}

// seal returns the stored form of the record's body. A nil Sealer stores it as it
// is.
func (s *Sealer) seal(r *Record) []byte {
	if s == nil {
		return append([]byte{formPlain}, r.Body...)
	}
	key := s.keys[0]
	nonce := make([]byte, key.aead.NonceSize())
	_, _ = rand.Read(nonce) // never fails
	stored := make([]byte, 0, 1+len(key.id)+len(nonce)+len(r.Body)+key.aead.Overhead())
	stored = append(stored, formSealed)
	stored = append(stored, key.id[:]...)
	stored = append(stored, nonce...)
	return key.aead.Seal(stored, nonce, r.Body, sealedFor(r))
}

// open returns the body of the record from its stored form, which it does not
// keep: ErrSealed if no key fits, ErrDamaged.
func (s *Sealer) open(r *Record, stored []byte) ([]byte, error) {
	if len(stored) == 0 {
		return nil, fmt.Errorf("%w: a payload is missing", ErrDamaged)
	}
	switch stored[0] {
	case formPlain:
		return bytes.Clone(stored[1:]), nil
	case formSealed:
		if s == nil {
			return nil, ErrSealed
		}
	default:
		return nil, fmt.Errorf("%w: a payload has an unknown form", ErrDamaged)
	}
	rest := stored[1:]
	known := false
	for _, key := range s.keys {
		if !bytes.HasPrefix(rest, key.id[:]) {
			continue
		}
		known = true
		sealed := rest[len(key.id):]
		if len(sealed) < key.aead.NonceSize() {
			break
		}
		nonce, text := sealed[:key.aead.NonceSize()], sealed[key.aead.NonceSize():]
		if body, err := key.aead.Open(nil, nonce, text, sealedFor(r)); err == nil {
			if body == nil {
				body = []byte{}
			}
			return body, nil
		}
	}
	if known {
		return nil, fmt.Errorf("%w: a payload was changed", ErrDamaged)
	}
	return nil, ErrSealed
}

func sealedFor(r *Record) []byte { return []byte("execgate delivery\x00" + r.ID + "\x00" + r.Target) }

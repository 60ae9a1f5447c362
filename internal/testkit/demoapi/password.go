package demoapi

import (
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"strings"
)

// hashRounds is small: tests log in often, and nothing here is worth cracking.
const hashRounds = 100

// hashPassword returns a password in modular crypt format.
func hashPassword(password string) string {
	salt := make([]byte, 12)
	_, _ = rand.Read(salt)
	return fmt.Sprintf("$pbkdf2-sha256$%d$%s$%s", hashRounds, encode64(salt), encode64(derive(password, salt)))
}

// checkPassword compares a password with a hash. Hashes of other kinds than
// hashPassword makes never match.
func checkPassword(hash, password string) bool {
	parts := strings.Split(hash, "$")
	if len(parts) != 5 || parts[1] != "pbkdf2-sha256" || parts[2] != fmt.Sprint(hashRounds) {
		return false
	}
	salt, err := base64.RawStdEncoding.DecodeString(parts[3])
	if err != nil {
		return false
	}
	return subtle.ConstantTimeCompare([]byte(parts[4]), []byte(encode64(derive(password, salt)))) == 1
}

func derive(password string, salt []byte) []byte {
	key, err := pbkdf2.Key(sha256.New, password, salt, hashRounds, sha256.Size)
	if err != nil {
		panic(fmt.Sprintf("derive a key: %v", err)) // sizes are constants
	}
	return key
}

func encode64(b []byte) string { return base64.RawStdEncoding.EncodeToString(b) }

package hooks

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/execgate/execgate/targetclient"
)

// guard knows who may send. What nothing is configured for, is not looked at.
type guard struct {
	keys   []string
	tokens [][sha256.Size]byte // hashes, so that comparing takes the same time for all
}

func newGuard(keys, tokens []string) guard {
	g := guard{keys: keys}
	for _, t := range tokens {
		g.tokens = append(g.tokens, sha256.Sum256([]byte(t)))
	}
	return g
}

// open says that nobody is asked for anything.
func (g guard) open() bool { return len(g.keys)+len(g.tokens) == 0 }

// mayBecome says whether the header brings anything that check could accept.
func (g guard) mayBecome(header http.Header) bool {
	return g.open() || g.token(header) || len(g.keys) > 0 && header.Get(targetclient.SignatureHeaderName) != ""
}

var errNoCredentials = errors.New("no valid credentials")

// check returns nil for a body that is signed with one of the keys, or comes with
// one of the tokens.
func (g guard) check(header http.Header, body []byte, now time.Time) error {
	if g.open() || g.token(header) {
		return nil
	}
	err := errNoCredentials
	for _, key := range g.keys {
		err = targetclient.Verify(header.Get(targetclient.SignatureHeaderName), key, body, now, targetclient.DefaultTolerance)
		if err == nil {
			return nil
		}
	}
	return err
}

// token says whether the header brings one of the tokens.
func (g guard) token(header http.Header) bool {
	scheme, token, _ := strings.Cut(header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") || token == "" {
		return false
	}
	hash, found := sha256.Sum256([]byte(strings.TrimSpace(token))), 0
	for i := range g.tokens {
		found |= subtle.ConstantTimeCompare(hash[:], g.tokens[i][:])
	}
	return found == 1
}

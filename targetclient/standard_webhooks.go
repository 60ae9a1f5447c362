package targetclient

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"
)

// The headers of a delivery. The first three are those of the Standard Webhooks
// specification.
const (
	// WebhookIDHeader names the delivery: the same on every attempt and replay.
	WebhookIDHeader = "webhook-id"
	// WebhookTimestampHeader is the time of the attempt, in Unix seconds.
	WebhookTimestampHeader = "webhook-timestamp"
	// WebhookSignatureHeader holds the signatures, separated by spaces.
	WebhookSignatureHeader = "webhook-signature"
	// AttemptHeader counts the attempts of the delivery: 1, 2, ...
	AttemptHeader = "execgate-attempt"
)

// The prefixes that tell what a key of Standard Webhooks is.
const (
	symmetricPrefix = "whsec_" // HMAC-SHA256, scheme v1
	privatePrefix   = "whsk_"  // ed25519 private key, scheme v1a
	publicPrefix    = "whpk_"  // ed25519 public key, what receivers are given
)

// StandardWebhooks signs calls as the Standard Webhooks specification says, with
// one signature per key, so that receivers can change keys one after the other.
// It does not change and is safe for concurrent use.
type StandardWebhooks struct {
	secrets [][]byte
	keys    []ed25519.PrivateKey
}

// NewStandardWebhooks takes the secrets of a target: "whsec_" and 24 to 64 bytes
// in base64 sign as v1, "whsk_" and an ed25519 private key (the seed of 32 bytes,
// or seed and public key) in base64 as v1a. The schemes that are not asked for
// leave their secrets unused; one that is asked for needs a secret. Errors tell
// the position of a bad secret, never its text.
func NewStandardWebhooks(v1, v1a bool, secrets []string) (*StandardWebhooks, error) {
	s := &StandardWebhooks{}
	for i, text := range secrets {
		encoded, asymmetric := strings.CutPrefix(text, privatePrefix)
		if !asymmetric {
			encoded = strings.TrimPrefix(text, symmetricPrefix)
		}
		raw, err := base64.StdEncoding.DecodeString(encoded)
		switch {
		case err != nil:
			return nil, fmt.Errorf("signing secret %d: it is not base64 after %q or %q", i+1, symmetricPrefix, privatePrefix)
		case !asymmetric && (len(raw) < 24 || len(raw) > 64):
			return nil, fmt.Errorf("signing secret %d: %d bytes, not 24 to 64", i+1, len(raw))
		case !asymmetric:
			if v1 {
				s.secrets = append(s.secrets, raw)
			}
			continue
		}
		key, err := privateKey(raw)
		if err != nil {
			return nil, fmt.Errorf("signing secret %d: %w", i+1, err)
		}
		if v1a {
			s.keys = append(s.keys, key)
		}
	}
	switch {
	case v1 && len(s.secrets) == 0:
		return nil, fmt.Errorf("standard_v1 needs a signing secret that starts with %q", symmetricPrefix)
	case v1a && len(s.keys) == 0:
		return nil, fmt.Errorf("standard_v1a needs a signing secret that starts with %q", privatePrefix)
	}
	return s, nil
}

func privateKey(raw []byte) (ed25519.PrivateKey, error) {
	switch len(raw) {
	case ed25519.SeedSize:
		return ed25519.NewKeyFromSeed(raw), nil
	case ed25519.PrivateKeySize:
		key := ed25519.NewKeyFromSeed(raw[:ed25519.SeedSize])
		if !key.Equal(ed25519.PrivateKey(raw)) {
			return nil, errors.New("the public half of the ed25519 key is not that of the private half")
		}
		return key, nil
	default:
		return nil, fmt.Errorf("%d bytes, but an ed25519 private key has 32 or 64", len(raw))
	}
}

// Header returns the value of webhook-signature for a body that is sent under the
// id at the time: the v1 signatures, then the v1a ones, each in the order of the
// secrets.
func (s *StandardWebhooks) Header(id string, t time.Time, body []byte) string {
	signed := make([]byte, 0, len(id)+24+len(body))
	signed = append(signed, id...)
	signed = append(signed, '.')
	signed = strconv.AppendInt(signed, t.Unix(), 10)
	signed = append(signed, '.')
	signed = append(signed, body...)

	var value []byte
	add := func(scheme string, signature []byte) {
		if len(value) > 0 {
			value = append(value, ' ')
		}
		value = append(value, scheme...)
		value = append(value, ',')
		value = base64.StdEncoding.AppendEncode(value, signature)
	}
	for _, secret := range s.secrets {
		m := hmac.New(sha256.New, secret)
		_, _ = m.Write(signed)
		add("v1", m.Sum(nil))
	}
	for _, key := range s.keys {
		add("v1a", ed25519.Sign(key, signed))
	}
	return string(value)
}

// PublicKeys returns what receivers need to check the v1a signatures: "whpk_" and
// the ed25519 public key in base64, in the order of the secrets.
func (s *StandardWebhooks) PublicKeys() []string {
	keys := make([]string, 0, len(s.keys))
	for _, key := range s.keys {
		public, _ := key.Public().(ed25519.PublicKey)
		keys = append(keys, publicPrefix+base64.StdEncoding.EncodeToString(public))
	}
	return keys
}

// delivery is what names and signs a delivery: its headers' values.
type delivery struct {
	id        string // empty: there are none
	unix      int64
	attempt   int    // 0: not sent
	signature string // empty: not signed
}

// deliveryOf returns the headers that name the call, if it has a name or needs
// one to be signed.
func deliveryOf(t *Target, call *Call, now time.Time, payload []byte) delivery {
	d := delivery{id: call.ID, unix: now.Unix(), attempt: call.Attempt}
	if t.StandardWebhooks == nil {
		return d
	}
	if d.id == "" {
		d.id = rand.Text()
	}
	d.signature = t.StandardWebhooks.Header(d.id, now, payload)
	return d
}

// set sets the headers.
func (d *delivery) set(h map[string][]string) {
	if d.id == "" {
		return
	}
	h[canonicalWebhookID] = []string{d.id}
	h[canonicalWebhookTimestamp] = []string{strconv.FormatInt(d.unix, 10)}
	if d.attempt > 0 {
		h[canonicalAttempt] = []string{strconv.Itoa(d.attempt)}
	}
	if d.signature != "" {
		h[canonicalWebhookSignature] = []string{d.signature}
	}
}

// valid says whether the headers can be sent.
func (d *delivery) valid() bool { return httpguts.ValidHeaderFieldValue(d.id) }

// appendTo writes the headers.
func (d *delivery) appendTo(b []byte) []byte {
	if d.id == "" {
		return b
	}
	b = append(append(b, canonicalWebhookID+": "...), d.id...)
	b = append(b, "\r\n"+canonicalWebhookTimestamp+": "...)
	b = strconv.AppendInt(b, d.unix, 10)
	if d.attempt > 0 {
		b = append(b, "\r\n"+canonicalAttempt+": "...)
		b = strconv.AppendInt(b, int64(d.attempt), 10)
	}
	if d.signature != "" {
		b = append(append(b, "\r\n"+canonicalWebhookSignature+": "...), d.signature...)
	}
	return append(b, "\r\n"...)
}

// The headers as net/http spells them.
const (
	canonicalWebhookID        = "Webhook-Id"
	canonicalWebhookTimestamp = "Webhook-Timestamp"
	canonicalWebhookSignature = "Webhook-Signature"
	canonicalAttempt          = "Execgate-Attempt"
)

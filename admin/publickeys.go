package admin

import (
	"context"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"slices"
	"time"

	"github.com/execgate/execgate/store"
)

// errNoSuchKey ends an update that has nothing to do.
var errNoSuchKey = errors.New("no such public key")

// addPublicKey adds an inactive key to a target. The PEM must have been checked.
func (c *core) addPublicKey(ctx context.Context, targetID string, pemBytes []byte, expires time.Time) (store.PublicKey, error) {
	var added store.PublicKey
	_, err := c.updateTarget(ctx, "AddPublicKey", targetID, errKeyTargetUnknown, func(t *store.Target) error {
		now := c.changeTime(t.ChangedAt)
		added = store.PublicKey{ID: c.ids.next(), PEM: pemBytes, ExpiresAt: expires, CreatedAt: now, ChangedAt: now}
		for indexOfKey(t, added.ID) >= 0 {
			added.ID = c.ids.next()
		}
		t.PublicKeys = append(slices.Clip(t.PublicKeys), added)
		return nil
	})
	return added, err
}

// activatePublicKey makes a key the one in use, and the one that was so far inactive.
func (c *core) activatePublicKey(ctx context.Context, targetID, keyID string) (store.PublicKey, error) {
	return c.editPublicKeys(ctx, "ActivatePublicKey", targetID, keyID, func(keys []store.PublicKey, i int, now time.Time) error {
		if keys[i].Active {
			return nil
		}
		if !keys[i].ExpiresAt.IsZero() && !keys[i].ExpiresAt.After(c.now()) {
			return errKeyExpired
		}
		for j := range keys {
			if keys[j].Active != (j == i) {
				keys[j].Active, keys[j].ChangedAt = j == i, now
			}
		}
		return nil
	})
}

// deactivatePublicKey leaves a target without a key in use if it is this one.
func (c *core) deactivatePublicKey(ctx context.Context, targetID, keyID string) (store.PublicKey, error) {
	return c.editPublicKeys(ctx, "DeactivatePublicKey", targetID, keyID, func(keys []store.PublicKey, i int, now time.Time) error {
		if keys[i].Active {
			keys[i].Active, keys[i].ChangedAt = false, now
		}
		return nil
	})
}

// editPublicKeys changes the keys of a target through edit, which is given a copy of them and the index of the wanted
// one, and returns that one afterwards.
func (c *core) editPublicKeys(ctx context.Context, action, targetID, keyID string,
	edit func(keys []store.PublicKey, i int, now time.Time) error,
) (store.PublicKey, error) {
	var after store.PublicKey
	_, err := c.updateTarget(ctx, action, targetID, errKeyTargetUnknown, func(t *store.Target) error {
		i := indexOfKey(t, keyID)
		if i < 0 {
			return errKeyUnknown
		}
		t.PublicKeys = slices.Clone(t.PublicKeys)
		if err := edit(t.PublicKeys, i, c.changeTime(t.ChangedAt)); err != nil {
			return err
		}
		after = t.PublicKeys[i]
		return nil
	})
	return after, err
}

// removePublicKey removes an inactive key and returns when the target last changed: now, if the key was there. Zero if
// there is no such target.
func (c *core) removePublicKey(ctx context.Context, targetID, keyID string) (time.Time, error) {
	t, err := c.updateTarget(ctx, "RemovePublicKey", targetID, errNoSuchKey, func(t *store.Target) error {
		i := indexOfKey(t, keyID)
		if i < 0 {
			return nil
		}
		if t.PublicKeys[i].Active {
			return errKeyActive
		}
		t.PublicKeys = slices.Delete(slices.Clone(t.PublicKeys), i, i+1)
		return nil
	})
	switch {
	case errors.Is(err, errNoSuchKey):
		return time.Time{}, nil
	case err != nil:
		return time.Time{}, err
	}
	return t.ChangedAt, nil
}

func indexOfKey(t *store.Target, keyID string) int {
	return slices.IndexFunc(t.PublicKeys, func(k store.PublicKey) bool { return k.ID == keyID })
}

// checkPublicKey refuses what is not one PEM block with an RSA or elliptic curve public key.
func checkPublicKey(pemBytes []byte) error {
	block, _ := pem.Decode(pemBytes)
	if block == nil {
		return errors.New("not PEM")
	}
	if _, err := x509.ParsePKCS1PublicKey(block.Bytes); err == nil {
		return nil
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return errors.New("not a public key")
	}
	switch key.(type) {
	case *rsa.PublicKey, *ecdsa.PublicKey:
		return nil
	}
	return errors.New("neither RSA nor elliptic curve")
}

// fingerprint is "SHA256:" and the unpadded base64 of the digest of the DER form.
func fingerprint(pemBytes []byte) string {
	block, _ := pem.Decode(pemBytes)
	if block == nil {
		return ""
	}
	digest := sha256.Sum256(block.Bytes)
	return "SHA256:" + base64.RawStdEncoding.EncodeToString(digest[:])
}

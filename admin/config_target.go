package admin

import (
	"bytes"
	"encoding/pem"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/execgate/execgate/configfile"
	"github.com/execgate/execgate/store"
)

const maxSigningKeyRunes = 1000

func itoa(i int) string { return strconv.Itoa(i) }

func lineText(in item) string { return itoa(in.Line()) }

// target plans one target of the document.
func (p *planner) target(doc *configfile.Target) {
	v := p.begin(store.KindTarget, doc.Name, doc)
	if doc.Name == "" {
		return // it has a fault already
	}
	name := strings.ToLower(doc.Name)
	if other := p.byName[name]; other != nil {
		p.fault(v, doc, "name", "a second target of this name, the first is on line "+lineText(other.doc), "names are compared without case; keep one")
		return
	}
	before := p.state.TargetByName(doc.Name)
	var t store.Target
	if before != nil {
		t = *before
	} else {
		t = store.Target{ID: p.core.freeTargetID(p.state), Sequence: 1}
	}
	p.byName[name] = &plannedTarget{id: t.ID, name: doc.Name, doc: doc}
	p.named[t.ID] = doc.Name
	if doc.Broken() {
		return
	}
	p.targetFields(v, doc, before, &t)
	if before == nil {
		if t.SigningKey == "" {
			t.SigningKey = newSigningKey()
		}
		t.CreatedAt = p.core.changeTime(p.state.Time())
		t.ChangedAt = t.CreatedAt
		p.write(t.Item())
		p.verdicts[v].result = changeOf(false)
	} else if !sameTarget(before, &t) {
		t.Sequence++
		t.ChangedAt = p.core.changeTime(before.ChangedAt)
		p.write(t.Item())
		p.verdicts[v].result = changeOf(true)
	}
	p.targetPolicy(v, doc, t.ID)
}

// targetFields makes t what the document says and checks what is new in it. What is stored already stays as it is, even
// when it could not be written today.
func (p *planner) targetFields(v int, doc *configfile.Target, before, t *store.Target) {
	t.Name, t.Type, t.Endpoint = doc.Name, store.TargetType(doc.Type), doc.URL
	t.Timeout, t.Async, t.InterruptOnError = doc.Timeout, doc.Async, doc.InterruptOnError
	if same := doc.PayloadType == "" && t.PayloadType == "json" || doc.PayloadType == "json" && t.PayloadType == "" && before != nil; !same {
		t.PayloadType = doc.PayloadType
	}
	if doc.SigningKey != "" {
		t.SigningKey = doc.SigningKey
	}
	p.publicKeys(v, doc, before, t)
	if before != nil && sameTarget(before, t) {
		return
	}
	if err := checkRunes("name", t.Name, maxNameRunes); err != nil {
		p.fault(v, doc, "name", "longer than "+itoa(maxNameRunes)+" characters", "shorten it")
	}
	p.checkURL(v, doc, before)
	if t.Timeout == 0 || checkTimeout(durationpb.New(t.Timeout)) != nil {
		p.fault(v, doc, "timeout", t.Timeout.String()+" is not above 0s and at most "+maxTimeout.String(), "write one like 10s")
	}
	if t.Async && t.InterruptOnError {
		p.fault(v, doc, "interrupt_on_error", "given together with async", "keep one: nobody waits for an asynchronous target")
	}
	if !slices.Contains([]string{"", "json", "jwt", "jwe"}, t.PayloadType) {
		p.fault(v, doc, "payload_type", quoted(t.PayloadType)+" is not known", "write json, jwt or jwe")
	}
	if err := checkRunes("signing_key", doc.SigningKey, maxSigningKeyRunes); doc.SigningKey != "" && (err != nil || !printable(doc.SigningKey)) {
		p.fault(v, doc, "signing_key", "not one line of at most "+itoa(maxSigningKeyRunes)+" characters", "correct it, or leave the key out: the gateway keeps the one it has, or makes one")
	}
}

// checkURL checks a URL that the target does not have yet.
func (p *planner) checkURL(v int, doc *configfile.Target, before *store.Target) {
	if before != nil && before.Endpoint == doc.URL {
		return
	}
	path := string(doc.Type) + ".url"
	if err := checkRunes("url", doc.URL, maxEndpointRunes); err != nil {
		p.fault(v, doc, path, "longer than "+itoa(maxEndpointRunes)+" characters", "shorten it")
		return
	}
	if err := checkAbsoluteURL(doc.URL); err != nil {
		p.fault(v, doc, path, err.Error(), "write an absolute http or https URL")
		return
	}
	switch refused, known := p.urls[doc.URL]; {
	case !known:
		p.missing = true
	case refused != nil:
		p.fault(v, doc, path, "no target may be there: the host cannot be resolved, or targetclient.deny_list covers it", "correct the host, or add it to targetclient.allow_list of the gateway")
	}
}

// publicKeys makes the keys of t those of the document. A key that the target has already, by its content, keeps its
// record.
func (p *planner) publicKeys(v int, doc *configfile.Target, before, t *store.Target) {
	if doc.PublicKeys == nil {
		return
	}
	now := p.core.changeTime(p.state.Time())
	if before != nil {
		now = p.core.changeTime(before.ChangedAt)
	}
	keys := make([]store.PublicKey, 0, len(doc.PublicKeys))
	taken := make(map[string]bool)
	active := 0
	for i, k := range doc.PublicKeys {
		path := "public_keys[" + itoa(i) + "]"
		if len(k.PEM) > maxPublicKey {
			p.fault(v, doc, path+".pem", "longer than "+itoa(maxPublicKey)+" bytes", "write one public key")
			continue
		}
		key, stored := storedKey(before, k)
		if !stored {
			if err := checkPublicKey([]byte(k.PEM)); err != nil {
				p.fault(v, doc, path+".pem", err.Error(), "write an RSA or elliptic curve public key in PEM form")
				continue
			}
			key = store.PublicKey{ID: k.ID, PEM: []byte(k.PEM), CreatedAt: now, ChangedAt: now}
		}
		if k.ID != "" {
			key.ID = k.ID
		}
		for key.ID == "" || taken[key.ID] && k.ID == "" {
			key.ID = p.core.ids.next()
		}
		if checkRunes("id", key.ID, maxIDRunes) != nil || taken[key.ID] {
			p.fault(v, doc, path+".id", "not an id of its own of at most "+itoa(maxIDRunes)+" characters", "leave it out: the gateway chooses one")
		}
		taken[key.ID] = true
		if key.Active != k.Active || !key.ExpiresAt.Equal(k.Expires) {
			if k.Active && !k.Expires.IsZero() && !k.Expires.After(p.core.now()) {
				p.fault(v, doc, path+".active", "the key is expired", "activate another one")
			}
			if stored {
				key.ChangedAt = now
			}
			key.Active, key.ExpiresAt = k.Active, k.Expires
		}
		if key.Active {
			active++
		}
		keys = append(keys, key)
	}
	if active > 1 {
		p.fault(v, doc, "public_keys", "more than one is active", "keep one active")
	}
	t.PublicKeys = keys
}

// storedKey finds the record of a key by its content.
func storedKey(t *store.Target, k configfile.PublicKey) (store.PublicKey, bool) {
	if t == nil {
		return store.PublicKey{}, false
	}
	block, _ := pem.Decode([]byte(k.PEM))
	i := slices.IndexFunc(t.PublicKeys, func(stored store.PublicKey) bool {
		if string(stored.PEM) == k.PEM {
			return k.ID == "" || k.ID == stored.ID
		}
		other, _ := pem.Decode(stored.PEM)
		return block != nil && other != nil && bytes.Equal(block.Bytes, other.Bytes) && (k.ID == "" || k.ID == stored.ID)
	})
	if i < 0 {
		return store.PublicKey{}, false
	}
	return t.PublicKeys[i], true
}

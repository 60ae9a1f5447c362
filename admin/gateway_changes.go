package admin

import (
	"bytes"
	"encoding/json"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/durationpb"

	gatewaypb "github.com/execgate/execgate/gen/execgate/v1"
	"github.com/execgate/execgate/store"
)

// A record is the stored JSON of an item, field by field.
type record map[string]json.RawMessage

// bookkeeping are the fields that move with every change and say nothing of what a record does.
var bookkeeping = []string{"id", "sequence", "created_at", "changed_at", "revision"}

func decodeRecord(value []byte) record {
	var r record
	if value != nil && json.Unmarshal(value, &r) != nil {
		return record{"record": json.RawMessage(`"not valid"`)}
	}
	for _, field := range bookkeeping {
		delete(r, field)
	}
	return r
}

// sameSaid says whether two stored values of one kind say the same, bookkeeping aside; nil is absent.
func sameSaid(a, b []byte) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	return maps.EqualFunc(decodeRecord(a), decodeRecord(b), func(x, y json.RawMessage) bool { return bytes.Equal(x, y) })
}

// shown are the fields whose values may be read by who may read the audit log, per kind, and how. Every other field is
// shown as a secret: also those of later versions and of kinds that are not named.
var shown = map[store.Kind]map[string]func(json.RawMessage) string{
	store.KindTarget: {
		"name": asStored, "endpoint": withoutURLSecrets, "type": asStored, "async": asStored, "interrupt_on_error": asStored,
		"timeout": asStored, "payload_type": asStored, "public_keys": keyIDs,
	},
	store.KindExecution: {"targets": asStored, "includes": asStored},
	store.KindTargetPolicy: {
		"enabled": asStored, "max_concurrency": asStored, "allowed_hosts": asStored,
		"breaker.consecutive_failures": asStored, "breaker.window": asStored, "breaker.min_calls": asStored,
		"breaker.failure_ratio": asStored, "breaker.open_for": asStored, "breaker.half_open_calls": asStored,
		"retry.max_attempts": asStored, "retry.first_delay": asStored, "retry.max_delay": asStored, "retry.max_age": asStored,
		"signatures": asStored, "order_by": asStored, "on_full": asStored,
	},
	store.KindExecutionPolicy: {"enabled": asStored, "mode": asStored, "per_message": asStored},
	store.KindSwitch:          {"on": asStored},
	store.KindDeliveries:      {"delivery": asStored, "state": asStored, "target": asStored, "count": asStored},
}

func asStored(v json.RawMessage) string { return string(v) }

// withoutURLSecrets hides what in a URL may be a credential: the user info and the query.
func withoutURLSecrets(v json.RawMessage) string {
	var raw string
	if json.Unmarshal(v, &raw) != nil {
		return quoted(secretValue)
	}
	u, err := url.Parse(raw)
	if err != nil {
		return quoted(secretValue)
	}
	var user, query string
	if u.User != nil {
		user, u.User = secretValue+"@", nil
	}
	if u.RawQuery != "" {
		query, u.RawQuery = "?"+secretValue, ""
	}
	u.Fragment, u.RawFragment = "", ""
	text := u.String()
	if user != "" {
		text = strings.Replace(text, "//", "//"+user, 1)
	}
	return quoted(text + query)
}

// keyIDs shows public keys without the keys.
func keyIDs(v json.RawMessage) string {
	var keys []struct {
		ID     string `json:"id"`
		Active bool   `json:"active,omitempty"`
	}
	if json.Unmarshal(v, &keys) != nil {
		return quoted(secretValue)
	}
	text, err := json.Marshal(keys)
	if err != nil {
		return quoted(secretValue)
	}
	return string(text)
}

func quoted(s string) string {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(s) // a string always encodes
	return strings.TrimSuffix(b.String(), "\n")
}

// flatten makes the fields of nested objects fields with a dot, and nanoseconds durations.
func (r record) flatten() record {
	flat := make(record, len(r))
	for name, value := range r {
		var nested record
		if len(value) > 0 && value[0] == '{' && json.Unmarshal(value, &nested) == nil {
			for inner, v := range nested.flatten() {
				flat[name+"."+inner] = v
			}
			continue
		}
		if span, ok := strings.CutSuffix(name, "_ns"); ok {
			var ns int64
			if json.Unmarshal(value, &ns) == nil {
				if text, err := protojson.Marshal(durationpb.New(time.Duration(ns))); err == nil {
					name, value = span, text
				}
			}
		}
		flat[name] = value
	}
	return flat
}

// outdated says whether an item only removes what was done to deliveries before.
func outdated(it store.RevisionItem) bool { return it.Kind == store.KindDeliveries && it.After == nil }

// describeChange says what changed in one item, field by field and without secrets. Nil for what is only remembered.
func describeChange(it store.RevisionItem, nameOf func(targetID string) string) *gatewaypb.ItemChange {
	if it.Kind == store.KindTargetTombstone || it.Kind == store.KindExecutionTombstone || outdated(it) {
		return nil
	}
	if it.Kind == store.KindDeliveries {
		it.Before = nil // of what was done to deliveries before
	}
	c := &gatewaypb.ItemChange{Change: gatewaypb.ChangeKind_CHANGE_KIND_UPDATE, Kind: string(it.Kind), Id: it.ID}
	switch {
	case it.Before == nil:
		c.Change = gatewaypb.ChangeKind_CHANGE_KIND_CREATE
	case it.After == nil:
		c.Change = gatewaypb.ChangeKind_CHANGE_KIND_DELETE
	}
	switch it.Kind {
	case store.KindTarget:
		if c.Name = targetName(it.After); c.Name == "" {
			c.Name = targetName(it.Before)
		}
	case store.KindTargetPolicy, store.KindDeliveries:
		c.Name = nameOf(it.ID)
	}
	before, after := decodeRecord(it.Before).flatten(), decodeRecord(it.After).flatten()
	names := maps.Clone(before)
	maps.Copy(names, after)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if bytes.Equal(before[name], after[name]) {
			continue
		}
		c.Fields = append(c.Fields, &gatewaypb.FieldChange{
			Field: name, Before: show(it.Kind, name, before[name]), After: show(it.Kind, name, after[name]),
		})
	}
	return c
}

func show(kind store.Kind, field string, value json.RawMessage) string {
	if value == nil {
		return ""
	}
	if how := shown[kind][field]; how != nil {
		return how(value)
	}
	return quoted(secretValue)
}

func targetName(value []byte) string {
	var t struct {
		Name string `json:"name"`
	}
	_ = json.Unmarshal(value, &t) // without a value there is no name
	return t.Name
}

// describeChanges describes the items of one revision. s tells the names of targets that the items do not.
func describeChanges(items []store.RevisionItem, s *store.State) []*gatewaypb.ItemChange {
	names := make(map[string]string)
	for _, it := range items {
		if it.Kind == store.KindTarget {
			if names[it.ID] = targetName(it.After); it.After == nil {
				names[it.ID] = targetName(it.Before)
			}
		}
	}
	nameOf := func(id string) string {
		if name, ok := names[id]; ok {
			return name
		}
		if t := s.Target(id); t != nil {
			return t.Name
		}
		return ""
	}
	var changes []*gatewaypb.ItemChange
	for _, it := range items {
		if c := describeChange(it, nameOf); c != nil {
			changes = append(changes, c)
		}
	}
	return changes
}

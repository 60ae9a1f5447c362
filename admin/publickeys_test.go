package admin_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/google/go-cmp/cmp"

	"github.com/execgate/execgate/admin"
	actionv2 "github.com/execgate/execgate/gen/zitadel/action/v2"
	filterv2 "github.com/execgate/execgate/gen/zitadel/filter/v2"
)

var testKeys = sync.OnceValue(func() (keys struct{ ec, rsa, pkcs1, ed25519, private []byte }) {
	encode := func(kind string, der []byte, err error) []byte {
		if err != nil {
			panic(err)
		}
		return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	}
	pkix := func(key any) []byte {
		der, err := x509.MarshalPKIXPublicKey(key)
		return encode("PUBLIC KEY", der, err)
	}
	ec, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	rsaKey, _ := rsa.GenerateKey(rand.Reader, 2048)
	ed, _, _ := ed25519.GenerateKey(rand.Reader)
	keys.ec, keys.rsa, keys.ed25519 = pkix(ec.Public()), pkix(rsaKey.Public()), pkix(ed)
	keys.pkcs1 = encode("RSA PUBLIC KEY", x509.MarshalPKCS1PublicKey(&rsaKey.PublicKey), nil)
	der, err := x509.MarshalECPrivateKey(ec)
	keys.private = encode("EC PRIVATE KEY", der, err)
	return keys
})

// addKey adds a key that expires at a time, or never, and returns its id.
func (f *fixture) addKey(target string, expires time.Time) string {
	f.t.Helper()
	req := &actionv2.AddPublicKeyRequest{TargetId: target, PublicKey: testKeys().ec}
	if !expires.IsZero() {
		req.ExpirationDate = timestamppb.New(expires)
	}
	return f.must(req).(*actionv2.AddPublicKeyResponse).GetKeyId()
}

// keys lists the keys of a target.
func (f *fixture) keys(target string) []*actionv2.PublicKey {
	f.t.Helper()
	return f.must(&actionv2.ListPublicKeysRequest{TargetId: target, Pagination: &filterv2.PaginationRequest{Asc: true}}).(*actionv2.ListPublicKeysResponse).GetPublicKeys()
}

// clock is a time that a test moves.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: time.Now()} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(time.Microsecond)
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func withClock(c *clock) func(*admin.Options) { return func(o *admin.Options) { o.Now = c.Now } }

func TestPublicKeyRequestsThatAreRefused(t *testing.T) {
	t.Parallel()
	const invalid, failed = codes.InvalidArgument, codes.FailedPrecondition
	add := func(key []byte) func(*fixture) proto.Message {
		return func(f *fixture) proto.Message {
			return &actionv2.AddPublicKeyRequest{TargetId: f.target("a"), PublicKey: key}
		}
	}
	list := func(filter *actionv2.PublicKeySearchFilter) func(*fixture) proto.Message {
		return func(f *fixture) proto.Message {
			return &actionv2.ListPublicKeysRequest{TargetId: f.target("a"), Filters: []*actionv2.PublicKeySearchFilter{filter}}
		}
	}
	ids := func(ids ...string) *actionv2.PublicKeySearchFilter {
		return &actionv2.PublicKeySearchFilter{Filter: &actionv2.PublicKeySearchFilter_KeyIdsFilter{KeyIdsFilter: &filterv2.InIDsFilter{Ids: ids}}}
	}
	long := strings.Repeat("1", 201)
	runFailures(t, []failure{
		{name: "add nothing", given: add(nil), code: invalid, text: "public_key"},
		{name: "add more than 8192 bytes", given: add(append(slices.Clone(testKeys().ec), make([]byte, 8193-len(testKeys().ec))...)), code: invalid, text: "public_key"},
		{name: "add what is not PEM", given: add([]byte("key")), code: invalid, text: "PEM"},
		{name: "add PEM of something else", given: add(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: []byte("x")})), code: invalid, text: "public_key"},
		{name: "add a private key", given: add(testKeys().private), code: invalid, text: "public_key"},
		{name: "add an Ed25519 key", given: add(testKeys().ed25519), code: invalid, text: "neither RSA nor elliptic curve"},
		{name: "add a key that is expired", given: func(f *fixture) proto.Message {
			return &actionv2.AddPublicKeyRequest{TargetId: f.target("a"), PublicKey: testKeys().ec, ExpirationDate: timestamppb.New(time.Now().Add(-time.Second))}
		}, code: invalid, text: "expiration_date"},
		{name: "add to an unknown target", given: ask(&actionv2.AddPublicKeyRequest{TargetId: "1", PublicKey: testKeys().ec}), code: failed, text: "target"},
		{name: "add with a target id of 201 characters", given: ask(&actionv2.AddPublicKeyRequest{TargetId: long, PublicKey: testKeys().ec}), code: invalid, text: "target_id"},

		{name: "activate with a key id of 201 characters", given: ask(&actionv2.ActivatePublicKeyRequest{TargetId: "1", KeyId: long}), code: invalid, text: "key_id"},
		{name: "activate a key of an unknown target", given: ask(&actionv2.ActivatePublicKeyRequest{TargetId: "1", KeyId: "1"}), code: failed},
		{name: "activate an unknown key", given: func(f *fixture) proto.Message {
			return &actionv2.ActivatePublicKeyRequest{TargetId: f.target("a"), KeyId: "1"}
		}, code: failed},
		{name: "deactivate a key of an unknown target", given: ask(&actionv2.DeactivatePublicKeyRequest{TargetId: "1", KeyId: "1"}), code: failed},
		{name: "deactivate an unknown key", given: func(f *fixture) proto.Message {
			return &actionv2.DeactivatePublicKeyRequest{TargetId: f.target("a"), KeyId: "1"}
		}, code: failed},
		{name: "deactivate without ids", given: ask(&actionv2.DeactivatePublicKeyRequest{}), code: invalid, only: []protocol{overGRPC}},
		{name: "remove the active key", given: func(f *fixture) proto.Message {
			target := f.target("a")
			key := f.addKey(target, time.Time{})
			f.must(&actionv2.ActivatePublicKeyRequest{TargetId: target, KeyId: key})
			return &actionv2.RemovePublicKeyRequest{TargetId: target, KeyId: key}
		}, code: failed, text: "active"},
		{name: "remove without ids", given: ask(&actionv2.RemovePublicKeyRequest{}), code: invalid, only: []protocol{overGRPC}},

		{name: "list with an empty filter", given: list(&actionv2.PublicKeySearchFilter{}), code: invalid, text: "filter"},
		{name: "list with no ids", given: list(ids()), code: invalid, text: "ids"},
		{name: "list with an id twice", given: list(ids("1", "2", "1")), code: invalid, text: "unique"},
		{name: "list with an empty id", given: list(ids("1", "")), code: invalid, text: "ids"},
		{name: "list with an id of 201 characters", given: list(ids(long)), code: invalid, text: "ids"},
		{name: "list with a time filter without time", given: list(&actionv2.PublicKeySearchFilter{Filter: &actionv2.PublicKeySearchFilter_ExpirationDateFilter{ExpirationDateFilter: &filterv2.TimestampFilter{}}}), code: invalid, text: "timestamp"},
		{name: "list with an unknown time method", given: list(expires(time.Now(), 5)), code: invalid, text: "method"},
		{name: "list above the limit", given: ask(&actionv2.ListPublicKeysRequest{TargetId: "1", Pagination: &filterv2.PaginationRequest{Limit: 1001}}), code: invalid, id: "QUERY-4M0fs", text: "Limit exceeded"},
	})
}

func expires(at time.Time, method filterv2.TimestampFilterMethod) *actionv2.PublicKeySearchFilter {
	return &actionv2.PublicKeySearchFilter{Filter: &actionv2.PublicKeySearchFilter_ExpirationDateFilter{
		ExpirationDateFilter: &filterv2.TimestampFilter{Timestamp: timestamppb.New(at), Method: method},
	}}
}

func TestAPublicKeyIsAddedInactiveAndReadBack(t *testing.T) {
	t.Parallel()
	each(t, tableProtocols, func(t *testing.T, p protocol) {
		for name, key := range map[string][]byte{"EC": testKeys().ec, "RSA": testKeys().rsa, "PKCS #1": testKeys().pkcs1} {
			f := start(t)
			target := f.target("a")
			expiration := timestamppb.New(time.Now().Add(time.Hour))
			res, out := f.call(p, &actionv2.AddPublicKeyRequest{TargetId: target, PublicKey: key, ExpirationDate: expiration})
			if out.code != codes.OK || p == overREST && out.http != 200 {
				t.Fatalf("%s: %+v", name, out)
			}
			added := res.(*actionv2.AddPublicKeyResponse)
			block, _ := pem.Decode(key)
			digest := sha256.Sum256(block.Bytes)
			want := &actionv2.ListPublicKeysResponse{
				Pagination: &filterv2.PaginationResponse{TotalResult: 1, AppliedLimit: 100},
				PublicKeys: []*actionv2.PublicKey{{
					KeyId: added.GetKeyId(), PublicKey: key, ExpirationDate: expiration,
					Fingerprint:  "SHA256:" + base64.RawStdEncoding.EncodeToString(digest[:]),
					CreationDate: added.GetCreationDate(), ChangeDate: added.GetCreationDate(),
				}},
			}
			got, _ := f.call(p, &actionv2.ListPublicKeysRequest{TargetId: target})
			if diff := cmp.Diff(proto.Message(want), got, protocmp.Transform()); diff != "" {
				t.Errorf("%s: %s", name, diff)
			}
		}
	})
}

func TestOnePublicKeyIsActiveAtATime(t *testing.T) {
	t.Parallel()
	each(t, tableProtocols, func(t *testing.T, p protocol) {
		c := newClock()
		f := start(t, withClock(c))
		target := f.target("a")
		one, two := f.addKey(target, time.Time{}), f.addKey(target, c.Now().Add(time.Hour))
		active := func() string {
			var ids []string
			for _, k := range f.keys(target) {
				if k.GetActive() {
					ids = append(ids, k.GetKeyId())
				}
			}
			return strings.Join(ids, " ")
		}
		activate := func(key string) (*actionv2.ActivatePublicKeyResponse, codes.Code) {
			res, out := f.call(p, &actionv2.ActivatePublicKeyRequest{TargetId: target, KeyId: key})
			return res.(*actionv2.ActivatePublicKeyResponse), out.code
		}
		deactivate := func(key string) *actionv2.DeactivatePublicKeyResponse {
			t.Helper()
			res, out := f.call(p, &actionv2.DeactivatePublicKeyRequest{TargetId: target, KeyId: key})
			if out.code != codes.OK {
				t.Fatalf("%+v", out)
			}
			return res.(*actionv2.DeactivatePublicKeyResponse)
		}
		first, _ := activate(one)
		if got := active(); got != one {
			t.Errorf("active: %q, want %q", got, one)
		}
		if again, code := activate(one); code != codes.OK || !proto.Equal(first, again) {
			t.Errorf("activating again: %v %v, first %v", code, again, first)
		}
		if _, code := activate(two); code != codes.OK || active() != two {
			t.Errorf("activating another: %v, active %q", code, active())
		}
		changed := f.keys(target)[0].GetChangeDate().AsTime()
		if !changed.After(first.GetChangeDate().AsTime()) {
			t.Errorf("the key that was active changed at %s", changed)
		}
		off := deactivate(two)
		if got := active(); got != "" || !proto.Equal(off, deactivate(two)) {
			t.Errorf("active: %q", got)
		}
		c.advance(2 * time.Hour)
		if _, code := activate(two); code != codes.FailedPrecondition {
			t.Errorf("activating an expired key: %v", code)
		}
		if _, code := activate(one); code != codes.OK {
			t.Errorf("activating a key that never expires: %v", code)
		}
	})
}

func TestRemovingAPublicKey(t *testing.T) {
	t.Parallel()
	each(t, tableProtocols, func(t *testing.T, p protocol) {
		f := start(t)
		target := f.target("a")
		key := f.addKey(target, time.Time{})
		remove := func(target, key string) *actionv2.RemovePublicKeyResponse {
			t.Helper()
			res, out := f.call(p, &actionv2.RemovePublicKeyRequest{TargetId: target, KeyId: key})
			if out.code != codes.OK || p == overREST && out.http != 200 {
				t.Fatalf("%+v", out)
			}
			return res.(*actionv2.RemovePublicKeyResponse)
		}
		if got := remove("1", key).GetDeletionDate(); got != nil {
			t.Errorf("of an unknown target: %v", got)
		}
		if got := remove(target, "1").GetDeletionDate(); !proto.Equal(got, f.getV2(target).GetChangeDate()) {
			t.Errorf("of an unknown key: %v", got)
		}
		before := f.getV2(target).GetChangeDate().AsTime()
		removed := remove(target, key).GetDeletionDate()
		if !removed.AsTime().After(before) || len(f.keys(target)) != 0 {
			t.Errorf("removed at %v, left %v", removed, f.keys(target))
		}
		if got := remove(target, key).GetDeletionDate(); !proto.Equal(got, removed) {
			t.Errorf("again: %v, first %v", got, removed)
		}
	})
}

func TestPublicKeysGoWithTheirTarget(t *testing.T) {
	t.Parallel()
	f := start(t)
	target := f.target("a")
	key := f.addKey(target, time.Time{})
	f.must(&actionv2.ActivatePublicKeyRequest{TargetId: target, KeyId: key})
	f.must(&actionv2.DeleteTargetRequest{Id: target})
	if got := f.keys(target); len(got) != 0 {
		t.Errorf("left: %v", got)
	}
	if _, out := f.call(overREST, &actionv2.ActivatePublicKeyRequest{TargetId: target, KeyId: key}); out.code != codes.FailedPrecondition {
		t.Errorf("%+v", out)
	}
}

func TestPublicKeysAreListedByFilterAndColumn(t *testing.T) {
	t.Parallel()
	each(t, tableProtocols, func(t *testing.T, p protocol) {
		f := start(t)
		target, other := f.target("a"), f.target("b")
		soon, late := time.Now().Add(time.Hour).Truncate(time.Second), time.Now().Add(2*time.Hour).Truncate(time.Second)
		names := map[string]string{
			f.addKey(target, late):        "L",
			f.addKey(target, time.Time{}): "N",
			f.addKey(target, soon):        "S",
		}
		f.addKey(other, soon)
		var l string
		for id, name := range names {
			if name == "L" {
				l = id
			}
		}
		f.must(&actionv2.ActivatePublicKeyRequest{TargetId: target, KeyId: l})
		isActive := func(active bool) *actionv2.PublicKeySearchFilter {
			return &actionv2.PublicKeySearchFilter{Filter: &actionv2.PublicKeySearchFilter_ActiveFilter{ActiveFilter: active}}
		}
		ids := func(ids ...string) *actionv2.PublicKeySearchFilter {
			return &actionv2.PublicKeySearchFilter{Filter: &actionv2.PublicKeySearchFilter_KeyIdsFilter{KeyIdsFilter: &filterv2.InIDsFilter{Ids: ids}}}
		}
		const (
			equals   = filterv2.TimestampFilterMethod_TIMESTAMP_FILTER_METHOD_EQUALS
			after    = filterv2.TimestampFilterMethod_TIMESTAMP_FILTER_METHOD_AFTER
			fromHere = filterv2.TimestampFilterMethod_TIMESTAMP_FILTER_METHOD_AFTER_OR_EQUALS
			before   = filterv2.TimestampFilterMethod_TIMESTAMP_FILTER_METHOD_BEFORE
			upToHere = filterv2.TimestampFilterMethod_TIMESTAMP_FILTER_METHOD_BEFORE_OR_EQUALS
		)
		for name, row := range map[string]struct {
			column  actionv2.PublicKeyFieldName
			filters []*actionv2.PublicKeySearchFilter
			want    string
		}{
			"all":                  {want: "LNS"},
			"by creation":          {column: actionv2.PublicKeyFieldName_PUBLIC_KEY_FIELD_NAME_CREATION_DATE, want: "LNS"},
			"by change":            {column: actionv2.PublicKeyFieldName_PUBLIC_KEY_FIELD_NAME_CHANGE_DATE, want: "NSL"},
			"by expiration":        {column: actionv2.PublicKeyFieldName_PUBLIC_KEY_FIELD_NAME_EXPIRATION_DATE, want: "SLN"},
			"active":               {filters: []*actionv2.PublicKeySearchFilter{isActive(true)}, want: "L"},
			"not active":           {filters: []*actionv2.PublicKeySearchFilter{isActive(false)}, want: "NS"},
			"ids":                  {filters: []*actionv2.PublicKeySearchFilter{ids(l, "x")}, want: "L"},
			"expires at":           {filters: []*actionv2.PublicKeySearchFilter{expires(soon, equals)}, want: "S"},
			"expires after":        {filters: []*actionv2.PublicKeySearchFilter{expires(soon, after)}, want: "LN"},
			"expires after or at":  {filters: []*actionv2.PublicKeySearchFilter{expires(soon, fromHere)}, want: "LNS"},
			"expires before":       {filters: []*actionv2.PublicKeySearchFilter{expires(late, before)}, want: "S"},
			"expires before or at": {filters: []*actionv2.PublicKeySearchFilter{expires(late, upToHere)}, want: "LS"},
			"two filters":          {filters: []*actionv2.PublicKeySearchFilter{expires(soon, after), isActive(false)}, want: "N"},
		} {
			for _, asc := range []bool{true, false} {
				res, out := f.call(p, &actionv2.ListPublicKeysRequest{
					TargetId: target, SortingColumn: row.column, Filters: row.filters, Pagination: &filterv2.PaginationRequest{Asc: asc},
				})
				if out.code != codes.OK {
					t.Fatalf("%s: %+v", name, out)
				}
				var got []byte
				for _, k := range res.(*actionv2.ListPublicKeysResponse).GetPublicKeys() {
					got = append(got, names[k.GetKeyId()]...)
				}
				if !asc {
					slices.Reverse(got)
				}
				if string(got) != row.want {
					t.Errorf("%s, ascending %t: %s, want %s", name, asc, got, row.want)
				}
			}
		}
		if got := f.keys("unknown"); len(got) != 0 {
			t.Errorf("keys of an unknown target: %v", got)
		}
	})
}

package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/execgate/execgate/configfile"
	"github.com/execgate/execgate/policy"
	"github.com/execgate/execgate/store"
)

// words are parts of what a random state is made of: everything that a file could misread.
var words = []string{
	"a", "Zitadel", "true", "null", "~", "1", "0x1f", "1e3", ":", " ", "#", "-", "- ", "{", "}", "[", "]", ",", "&", "*", "!", "|", ">", "'", "\"", "\\",
	"%", "@", "`", "\n", "\r\n", "\t", "\x00", "\x7f", "\u0085", "\u00a0", "\u2028", "\ufeff", "é", "☃", "😀", "---", "...", "on", "2026-01-02", "=", "<<", "\u00dc", "İ", "ß", "***",
}

func randomText(r *rand.Rand) string {
	var b strings.Builder
	for range 1 + r.IntN(5) {
		b.WriteString(words[r.IntN(len(words))])
	}
	return b.String()
}

// randomState is any state that a store can hold: a valid one, or one that could not be written today.
func randomState(t testing.TB, r *rand.Rand, valid bool) *store.State {
	t.Helper()
	var items []store.Item
	add := func(it store.Item, err error) {
		if err != nil {
			t.Fatal(err)
		}
		items = append(items, it)
	}
	now := time.Date(2026, 1, 2, 3, 4, 5, 678901234, time.UTC)
	maybe := func(s string) string {
		if r.IntN(2) == 0 {
			return ""
		}
		return s
	}
	var ids []string
	names := make(map[string]bool)
	for i := range r.IntN(8) {
		name := randomText(r)
		if names[strings.ToLower(name)] {
			continue
		}
		names[strings.ToLower(name)] = true
		target := &store.Target{
			ID: strconv.Itoa(1000 + i), Name: name, Endpoint: "https://a.example/" + randomText(r), Type: store.TargetWebhook,
			Timeout: time.Duration(1 + r.Int64N(int64(time.Hour))), SigningKey: maybe(randomText(r)), Async: r.IntN(2) == 0, InterruptOnError: r.IntN(2) == 0,
			PayloadType: []string{"", "json", "jwt", "jwe"}[r.IntN(4)], Sequence: r.Uint64N(100), CreatedAt: now, ChangedAt: now,
		}
		if r.IntN(2) == 0 {
			target.Type, target.Endpoint = store.TargetRequestResponse, randomText(r)
		}
		keys := r.IntN(3)
		if valid {
			target.Endpoint, target.Timeout = "http://a.example/?x="+url.QueryEscape(target.Endpoint), target.Timeout%maxTimeout+1
			target.InterruptOnError = target.InterruptOnError && !target.Async
			target.SigningKey = strings.Map(func(r rune) rune {
				if unicode.IsControl(r) {
					return -1
				}
				return r
			}, target.SigningKey)
			keys = 0
		}
		for k := range keys {
			key := store.PublicKey{ID: strconv.Itoa(k), PEM: []byte(randomText(r)), Active: k == 1, CreatedAt: now, ChangedAt: now}
			if r.IntN(2) == 0 {
				key.PEM = []byte("-----BEGIN PUBLIC KEY-----\nAAAA" + strconv.Itoa(k) + "aaa\n-----END PUBLIC KEY-----\n")
			}
			if r.IntN(2) == 0 {
				key.ExpiresAt = now.Add(time.Duration(r.Int64N(1000)))
			}
			target.PublicKeys = append(target.PublicKeys, key)
		}
		add(target.Item())
		ids = append(ids, target.ID)
		if r.IntN(2) == 0 {
			p := &policy.Target{Revision: 1, ChangedAt: now}
			if r.IntN(2) == 0 {
				p.Enabled = new(r.IntN(2) == 0)
			}
			if r.IntN(2) == 0 {
				p.Headers = map[string]string{"X-A": randomText(r), "X-B": ""}
			}
			if valid && p.Headers != nil {
				p.Headers["X-A"] = "é \"x\": # y"
			}
			if r.IntN(2) == 0 {
				p.AllowedHosts = []string{"a.example", "[::1]:80", randomText(r)}[:2+r.IntN(2)]
				if valid {
					p.AllowedHosts = p.AllowedHosts[:2]
				}
			}
			if r.IntN(2) == 0 && !valid {
				p.Breaker = &policy.Breaker{FailureRatio: new(r.Float64()), Window: new(time.Duration(r.Int64N(1e12))), MinCalls: new(r.Uint32())}
			}
			value, err := p.Encode()
			add(store.Item{Kind: store.KindTargetPolicy, ID: target.ID, Value: value}, err)
		}
	}
	if valid && len(ids) > 0 {
		e := &store.Execution{ID: "request/a.B/C", Targets: ids, Sequence: 1, CreatedAt: now, ChangedAt: now}
		add(e.Item())
		e = &store.Execution{ID: "request", Includes: []string{e.ID}, Sequence: 1, CreatedAt: now, ChangedAt: now}
		add(e.Item())
	}
	all := []string{"request", "request/a.B", "request/a.B/C", "response", "response/x y", "event", "event/a.*", "event/a.b", "event/ü", "function/preuserinfo", "function/" + strings.ReplaceAll(randomText(r), "/", "")}
	seen := make(map[string]bool)
	for range r.IntN(8) {
		if valid {
			break
		}
		id, err := executionID(all[r.IntN(len(all))])
		if err != nil || seen[id] {
			continue
		}
		seen[id] = true
		e := &store.Execution{ID: id, Sequence: 1, CreatedAt: now, ChangedAt: now}
		for range r.IntN(3) {
			switch r.IntN(2) {
			case 0:
				if included, err := executionID(all[r.IntN(len(all))]); err == nil && len(e.Targets) == 0 {
					e.Includes = append(e.Includes, included) // may not be there, may go in circles, may be there twice
				}
			default:
				if len(ids) > 0 && len(e.Includes) == 0 {
					if n := ids[r.IntN(len(ids))]; !strings.Contains(fmt.Sprint(e.Targets), n) {
						e.Targets = append(e.Targets, n)
					}
				}
			}
		}
		add(e.Item())
		if r.IntN(3) == 0 {
			p := &policy.Execution{Mode: []policy.Mode{"", "shadow", "enforce"}[r.IntN(3)], Enabled: new(r.IntN(2) == 0), Revision: 1, ChangedAt: now}
			value, err := p.Encode()
			add(store.Item{Kind: store.KindExecutionPolicy, ID: id, Value: value}, err)
		}
	}
	s, err := store.NewState(store.Dump{Head: store.Head{Revision: 1, Time: now}, Items: items})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func planningCore() *core {
	return &core{
		ids: newIDGenerator(time.Now), now: time.Now,
		schema:     func() ([]string, []string, bool) { return []string{"/a.B/C"}, []string{"a.B"}, true },
		eventTypes: func() ([]string, bool) { return nil, true },
	}
}

// FuzzApplyingAnExportChangesNothing holds for every state, with and without the secrets.
func FuzzApplyingAnExportChangesNothing(f *testing.F) {
	for seed := range uint64(200) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		s := randomState(t, rand.New(rand.NewPCG(seed, 1)), false)
		for _, secrets := range []bool{false, true} {
			doc, err := exported(s, "i", secrets)
			if err != nil {
				t.Fatal(err)
			}
			text := configfile.Print(doc)
			parsed, err := configfile.Parse(text, configfile.ParseOptions{})
			if err != nil {
				t.Fatalf("%v\n%s", err, text)
			}
			p := planningCore().newPlanner(s, true, nil)
			p.run(parsed)
			items, err := p.items.done()
			if err != nil || len(items) > 0 || len(p.faults) > 0 || p.missing {
				shown, _ := json.MarshalIndent(p.describe(true), "", " ")
				t.Fatalf("%v %v\n%s\n%s", err, p.faults, shown, text)
			}
		}
	})
}

// FuzzImportIntoNothingGivesTheSame exports what was imported into an empty store.
func FuzzImportIntoNothingGivesTheSame(f *testing.F) {
	for seed := range uint64(200) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		doc, err := exported(randomState(t, rand.New(rand.NewPCG(seed, 2)), true), "i", true)
		if err != nil {
			t.Fatal(err)
		}
		text := configfile.Print(doc)
		empty, err := store.NewState(store.Dump{})
		if err != nil {
			t.Fatal(err)
		}
		p := planningCore().newPlanner(empty, false, map[string]error{})
		if err := p.core.judgeURLs(context.Background(), unknownURLs(doc, empty, nil), p.urls); err != nil {
			t.Fatal(err)
		}
		p.run(doc)
		if len(p.faults) > 0 {
			t.Fatal(p.faults)
		}
		next, err := empty.Apply(1, p.items.items)
		if err != nil {
			t.Fatal(err)
		}
		again, err := exported(next, "i", true)
		if err != nil {
			t.Fatal(err)
		}
		again.Export = doc.Export
		for _, target := range again.Targets { // made, where the document has none
			for _, given := range doc.Targets {
				if given.Name == target.Name && given.SigningKey == "" {
					target.SigningKey = ""
				}
			}
		}
		if got := configfile.Print(again); string(got) != string(text) {
			t.Errorf("%s\nwant\n%s", got, text)
		}
	})
}

// largeDocument is one of n targets and n executions.
func largeDocument(n int) []byte {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "---\nkind: Target\nname: target-%05d\nwebhook:\n  url: https://hooks.example.com/%d\ntimeout: 10s\n", i, i)
		fmt.Fprintf(&b, "---\nkind: Execution\ncondition: request/pkg.Service/Method%05d\ntargets:\n  - target-%05d\n", i, i)
	}
	return []byte(b.String())
}

// memory is a store of one state.
type memory struct{ s *store.State }

func (m *memory) Fresh(context.Context) (*store.State, error) { return m.s, nil }

func (m *memory) Update(_ context.Context, _, _ string, fn func(*store.State) ([]store.Item, error)) (*store.State, error) {
	items, err := fn(m.s)
	if err == nil && len(items) > 0 {
		m.s, err = m.s.Apply(m.s.Revision()+1, items)
	}
	return m.s, err
}

func BenchmarkPlan10000(b *testing.B) {
	empty, err := store.NewState(store.Dump{})
	if err != nil {
		b.Fatal(err)
	}
	text := largeDocument(10_000)
	c := planningCore()
	c.schema = func() ([]string, []string, bool) { return nil, nil, false }
	run := func(b *testing.B, s *store.State, w wanted, changes int) {
		for b.Loop() {
			c.store = &memory{s}
			w.doc = want(text, configfile.ParseOptions{}).doc
			d, err := c.bring(b.Context(), w)
			if err != nil || len(d.plan.faults) > 0 || len(d.changes) != changes {
				b.Fatal(err, d)
			}
		}
	}
	b.Run("all new", func(b *testing.B) { run(b, empty, wanted{dryRun: true}, 20_000) })
	b.Run("apply all", func(b *testing.B) { run(b, empty, wanted{}, 20_000) })
	m := &memory{empty}
	c.store = m
	if _, err := c.bring(b.Context(), wanted{doc: want(text, configfile.ParseOptions{}).doc}); err != nil {
		b.Fatal(err)
	}
	b.Run("nothing new", func(b *testing.B) { run(b, m.s, wanted{dryRun: true, prune: true}, 0) })
}

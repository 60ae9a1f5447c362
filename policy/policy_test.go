package policy_test

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/execgate/execgate/policy"
)

var defaults = policy.TargetDefaults{MaxConcurrency: 7, Breaker: policy.BreakerSettings{
	ConsecutiveFailures: 10, Window: 30 * time.Second, MinCalls: 20, FailureRatio: .5, OpenFor: 10 * time.Second, HalfOpenCalls: 3,
}}

func TestUnknownFieldsSurvive(t *testing.T) {
	t.Parallel()
	stored := `{"enabled":false,"breaker":{"min_calls":3,"mystery":[1]},"redo":{"max_attempts":3},"later_by":"userID","revision":4,"changed_at":"2026-01-02T03:04:05Z"}`
	p, err := policy.DecodeTarget([]byte(stored))
	if err != nil {
		t.Fatal(err)
	}
	p.Merge(&policy.Target{MaxConcurrency: new(uint32(2)), Breaker: &policy.Breaker{MinCalls: new(uint32(4))}})
	again, err := p.Encode()
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"enabled":false,"max_concurrency":2,"breaker":{"min_calls":4,"mystery":[1]},"revision":4,"changed_at":"2026-01-02T03:04:05Z","later_by":"userID","redo":{"max_attempts":3}}`
	if string(again) != want {
		t.Errorf("got  %s\nwant %s", again, want)
	}
	if err := p.Reset("enabled", "maxConcurrency", "breaker"); err != nil || p.Empty() {
		t.Errorf("what is not known is not nothing: %v", err)
	}
	if err := p.Reset(); err != nil || !p.Empty() {
		t.Errorf("a reset of all: %v", err)
	}
	e, err := policy.DecodeExecution([]byte(`{"mode":"shadow","masks":{"password":true},"revision":1,"changed_at":"2026-01-02T03:04:05Z"}`))
	if err != nil {
		t.Fatal(err)
	}
	if b, _ := e.Encode(); !strings.Contains(string(b), `"masks":{"password":true}`) {
		t.Errorf("%s", b)
	}
	s, err := policy.DecodeSwitch([]byte(`{"on":false,"why":"incident"}`))
	if err != nil {
		t.Fatal(err)
	}
	if b, _ := s.Encode(); s.IsOn() || !strings.Contains(string(b), `"why":"incident"`) {
		t.Errorf("%s", b)
	}
}

func TestDecodeRefusesWithoutRepeatingValues(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{``, `null`, `[]`, `"secret"`, `{"headers":"secret"}`, `{"breaker":{"min_calls":"secret"}}`} {
		if _, err := policy.DecodeTarget([]byte(bad)); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", bad, err)
		}
	}
	if _, err := policy.DecodeExecution([]byte(`{"mode":"mirror"}`)); err == nil {
		t.Error("a mode of a later version was accepted")
	}
}

func TestMergeChangesTheGivenFieldsOnly(t *testing.T) {
	t.Parallel()
	p := &policy.Target{AllowedHosts: []string{"a.example"}, Headers: map[string]string{"X-A": "1"}, Breaker: &policy.Breaker{Window: new(time.Minute)}}
	p.Merge(&policy.Target{Enabled: new(false), Breaker: &policy.Breaker{MinCalls: new(uint32(5))}})
	want := &policy.Target{
		Enabled: new(false), AllowedHosts: []string{"a.example"}, Headers: map[string]string{"X-A": "1"},
		Breaker: &policy.Breaker{Window: new(time.Minute), MinCalls: new(uint32(5))},
	}
	if !p.Same(want) {
		t.Errorf("%+v", p)
	}
	p.Merge(&policy.Target{AllowedHosts: []string{}, Headers: map[string]string{}})
	if p.AllowedHosts != nil || p.Headers != nil || p.IsEnabled() {
		t.Errorf("empty lists take away: %+v", p)
	}
	if err := p.Reset("breaker.minCalls", "breaker.window", "enabled"); err != nil || !p.Empty() {
		t.Errorf("%v %+v", err, p)
	}
	if err := p.Reset("colour"); err == nil || !strings.Contains(err.Error(), "max_concurrency") {
		t.Errorf("an unknown field: %v", err)
	}
	if policy.CheckTargetFields([]string{"allowedHosts", "breaker.open_for"}) != nil || policy.CheckExecutionFields([]string{"breaker"}) == nil {
		t.Error("names of fields")
	}
}

func TestAChangeOfACloneIsNoChange(t *testing.T) {
	t.Parallel()
	p := &policy.Target{Headers: map[string]string{"X-A": "1"}, AllowedHosts: []string{"a"}, Breaker: &policy.Breaker{MinCalls: new(uint32(1))}}
	c := p.Clone()
	c.Headers["X-A"], c.AllowedHosts[0] = "2", "b"
	c.Breaker.MinCalls = new(uint32(2))
	if p.Headers["X-A"] != "1" || p.AllowedHosts[0] != "a" || *p.Breaker.MinCalls != 1 {
		t.Errorf("%+v", p)
	}
}

func TestDefaultsFillTheGaps(t *testing.T) {
	t.Parallel()
	var none *policy.Target
	if !none.IsEnabled() || none.Concurrency(defaults) != 7 || none.BreakerSettings(defaults) != defaults.Breaker {
		t.Error("no policy is the default")
	}
	p := &policy.Target{MaxConcurrency: new(uint32(0)), Breaker: &policy.Breaker{OpenFor: new(time.Second)}}
	want := defaults.Breaker
	want.OpenFor = time.Second
	if p.Concurrency(defaults) != 0 || p.BreakerSettings(defaults) != want {
		t.Errorf("%d %+v", p.Concurrency(defaults), p.BreakerSettings(defaults))
	}
	var e *policy.Execution
	if !e.IsEnabled() || e.EffectiveMode() != policy.ModeEnforce || !(*policy.Switch)(nil).IsOn() {
		t.Error("no policy is the default")
	}
}

func TestValidate(t *testing.T) {
	t.Parallel()
	breaker := func(b policy.Breaker) policy.Target { return policy.Target{Breaker: &b} }
	hosts := func(h ...string) policy.Target { return policy.Target{AllowedHosts: h} }
	header := func(name, value string) policy.Target { return policy.Target{Headers: map[string]string{name: value}} }
	for name, c := range map[string]struct {
		p    policy.Target
		want string // in the error, empty: none
	}{
		"nothing":                 {policy.Target{}, ""},
		"cap":                     {policy.Target{MaxConcurrency: new(uint32(1_000_000))}, ""},
		"cap too large":           {policy.Target{MaxConcurrency: new(uint32(1_000_001))}, "max_concurrency"},
		"failures of zero":        {breaker(policy.Breaker{ConsecutiveFailures: new(uint32(0))}), "breaker.consecutive_failures"},
		"window of zero":          {breaker(policy.Breaker{Window: new(time.Duration(0))}), "breaker.window"},
		"negative window":         {breaker(policy.Breaker{Window: new(-time.Second)}), "breaker.window"},
		"open for days":           {breaker(policy.Breaker{OpenFor: new(25 * time.Hour)}), "breaker.open_for"},
		"ratio of zero":           {breaker(policy.Breaker{FailureRatio: new(0.0)}), "breaker.failure_ratio"},
		"ratio above one":         {breaker(policy.Breaker{FailureRatio: new(1.01)}), "breaker.failure_ratio"},
		"ratio that is no number": {breaker(policy.Breaker{FailureRatio: new(math.NaN())}), "breaker.failure_ratio"},
		"ratio of one":            {breaker(policy.Breaker{FailureRatio: new(1.0), HalfOpenCalls: new(uint32(1))}), ""},
		"no probes":               {breaker(policy.Breaker{HalfOpenCalls: new(uint32(0))}), "breaker.half_open_calls"},
		"hosts":                   {hosts("hooks.example.com", "HOOKS.example", "10.0.0.1", "2001:db8::1", "[2001:db8::1]", "[2001:db8::1]:8443", "a.b:8080", "localhost", "bücher.example", "a_b.svc."), ""},
		"empty host":              {hosts("ok", ""), "allowed_hosts[1]"},
		"a URL":                   {hosts("https://a.example/x"), "is a URL"},
		"a pattern":               {hosts("*.example.com"), "is a pattern"},
		"a range":                 {hosts("10.0.0.0/8"), "range"},
		"no port":                 {hosts("a.example:"), "port"},
		"port too large":          {hosts("a.example:70000"), "port"},
		"a zone":                  {hosts("fe80::1%eth0"), "zone"},
		"a mistyped address":      {hosts("10.0.0.256"), "neither"},
		"spaces":                  {hosts("a b"), "neither"},
		"user info":               {hosts("user@a.example"), "neither"},
		"too many hosts":          {hosts(strings.Split(strings.Repeat("a ", 100)+"a", " ")...), "at most 100"},
		"header":                  {header("x-api-key", "s3cret"), ""},
		"authorization":           {header("Authorization", "Bearer s3cret"), ""},
		"header without a name":   {header("", "s3cret"), "not the name"},
		"name with a space":       {header("X A", "s3cret"), "not the name"},
		"name with a colon":       {header("X:A", "s3cret"), "not the name"},
		"value with a line":       {header("X-A", "s3cret\r\nX-B: 1"), "no header can carry"},
		"value with a NUL":        {header("X-A", "s3cret\x00"), "no header can carry"},
		"value with space":        {header("X-A", " s3cret"), "space"},
		"value too long":          {header("X-A", strings.Repeat("s3cret", 2000)), "more than"},
		"content type":            {header("content-type", "s3cret"), "gateway itself"},
		"host header":             {header("HOST", "s3cret"), "gateway itself"},
		"signature":               {header("ZITADEL-Signature", "s3cret"), "gateway itself"},
		"webhook id":              {header("webhook-id", "s3cret"), "gateway itself"},
		"transfer encoding":       {header("transfer-encoding", "s3cret"), "gateway itself"},
		"the same header twice":   {policy.Target{Headers: map[string]string{"X-A": "s3cret", "x-a": "other"}}, "twice"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := c.p.Validate()
			switch {
			case c.want == "" && err != nil:
				t.Error(err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("got %v, want %q in it", err, c.want)
			case err != nil && strings.Contains(err.Error(), "s3cret"):
				t.Errorf("the error repeats a value: %v", err)
			}
		})
	}
	p := header("x-api-key", "1")
	if err := p.Validate(); err != nil || p.Headers["X-Api-Key"] != "1" {
		t.Errorf("names are stored in their canonical form: %v %v", p.Headers, err)
	}
	p = policy.Target{MaxConcurrency: new(uint32(math.MaxUint32)), AllowedHosts: []string{""}, Headers: map[string]string{"": ""}}
	if err := p.Validate(); strings.Count(err.Error(), "\n") != 2 {
		t.Errorf("all faults at once: %v", err)
	}
}

func TestPerMessageIsOffUnlessSet(t *testing.T) {
	t.Parallel()
	var none *policy.Execution
	e := new(policy.Execution)
	if none.IsPerMessage() || e.IsPerMessage() {
		t.Error("on by default")
	}
	e.Merge(&policy.Execution{PerMessage: new(true)})
	e.Merge(&policy.Execution{Enabled: new(true)})
	if !e.IsPerMessage() || e.Empty() {
		t.Errorf("%+v", e)
	}
	if err := e.Reset("perMessage", "enabled"); err != nil || e.IsPerMessage() || !e.Empty() {
		t.Errorf("%+v, %v", e, err)
	}
}

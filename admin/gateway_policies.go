package admin

import (
	"context"
	"errors"
	"fmt"
	"net/textproto"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	gatewaypb "github.com/execgate/execgate/gen/execgate/v1"
	"github.com/execgate/execgate/policy"
	"github.com/execgate/execgate/store"
	"github.com/execgate/execgate/targetclient"
)

// secretValue stands for a secret wherever one is shown, and, written, for the one that is stored.
const secretValue = "***"

// targetPolicy returns what is stored for a target; nil when nothing is.
func targetPolicy(s *store.State, id string) (*policy.Target, error) {
	value, ok := s.Item(store.KindTargetPolicy, id)
	if !ok {
		return nil, nil
	}
	p, err := policy.DecodeTarget(value)
	if err != nil {
		return nil, fmt.Errorf("policy of target %q: %w", id, err)
	}
	return p, nil
}

// executionPolicy returns what is stored for an execution; nil when nothing is.
func executionPolicy(s *store.State, id string) (*policy.Execution, error) {
	value, ok := s.Item(store.KindExecutionPolicy, id)
	if !ok {
		return nil, nil
	}
	p, err := policy.DecodeExecution(value)
	if err != nil {
		return nil, fmt.Errorf("policy of execution %q: %w", id, err)
	}
	return p, nil
}

// GetTargetPolicy returns what is set for a target, and what is in force.
func (g *gateway) GetTargetPolicy(ctx context.Context, r *gatewaypb.GetTargetPolicyRequest) (*gatewaypb.GetTargetPolicyResponse, error) {
	s, err := g.core.read(ctx)
	if err != nil {
		return nil, err
	}
	t := findTarget(s, r.GetId())
	if t == nil {
		return nil, errNoSuchTarget
	}
	p, err := targetPolicy(s, t.ID)
	if err != nil {
		return nil, err
	}
	set := p
	if set == nil {
		set = new(policy.Target)
	}
	return &gatewaypb.GetTargetPolicyResponse{
		Policy: targetPolicyOut(set), Effective: g.effective(p), Details: policyDetails(set.Revision, set.ChangedAt),
	}, nil
}

// UpdateTargetPolicy changes the fields that are given.
func (g *gateway) UpdateTargetPolicy(ctx context.Context, r *gatewaypb.UpdateTargetPolicyRequest) (*gatewaypb.UpdateTargetPolicyResponse, error) {
	change, err := targetPolicyIn(r.GetPolicy())
	if err != nil {
		return nil, err
	}
	after, err := g.changeTargetPolicy(ctx, "UpdateTargetPolicy", r.GetId(), func(p *policy.Target) error {
		// This runs again when others were faster: change stays as it is.
		change := change.Clone()
		if err := keepSecrets(change, p); err != nil {
			return err
		}
		p.Merge(change)
		if err := validTargetPolicy(p); err != nil {
			return invalid("policy: %s", oneLine(err))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &gatewaypb.UpdateTargetPolicyResponse{Policy: targetPolicyOut(after), Details: policyDetails(after.Revision, after.ChangedAt)}, nil
}

// ResetTargetPolicy takes fields, or everything, back to the defaults.
func (g *gateway) ResetTargetPolicy(ctx context.Context, r *gatewaypb.ResetTargetPolicyRequest) (*gatewaypb.ResetTargetPolicyResponse, error) {
	after, err := g.changeTargetPolicy(ctx, "ResetTargetPolicy", r.GetId(), func(p *policy.Target) error {
		return p.Reset(r.GetFields()...)
	})
	if err != nil {
		return nil, err
	}
	return &gatewaypb.ResetTargetPolicyResponse{Policy: targetPolicyOut(after), Details: policyDetails(after.Revision, after.ChangedAt)}, nil
}

// changeTargetPolicy runs edit on a copy of the policy of a target and stores what comes of it, if it says something
// else. A policy that says nothing is not stored.
func (g *gateway) changeTargetPolicy(ctx context.Context, action, ref string, edit func(*policy.Target) error) (*policy.Target, error) {
	var after *policy.Target
	err := g.core.change(ctx, action, func(s *store.State) ([]store.Item, error) {
		t := findTarget(s, ref)
		if t == nil {
			return nil, errNoSuchTarget
		}
		before, err := targetPolicy(s, t.ID)
		if err != nil {
			return nil, err
		}
		if before == nil {
			before = new(policy.Target)
		}
		after = before.Clone()
		if err := edit(after); err != nil {
			return nil, err
		}
		if after.Same(before) {
			after = before
			return nil, nil
		}
		after.Revision, after.ChangedAt = s.Revision()+1, g.core.changeTime(before.ChangedAt)
		return policyItem(store.KindTargetPolicy, t.ID, after)
	})
	return after, err
}

// GetExecutionPolicy returns what is set for an execution, and what is in force.
func (g *gateway) GetExecutionPolicy(ctx context.Context, r *gatewaypb.GetExecutionPolicyRequest) (*gatewaypb.GetExecutionPolicyResponse, error) {
	s, err := g.core.read(ctx)
	if err != nil {
		return nil, err
	}
	e := findExecution(s, r.GetId())
	if e == nil {
		return nil, errNoSuchExecution
	}
	p, err := executionPolicy(s, e.ID)
	if err != nil {
		return nil, err
	}
	set := p
	if set == nil {
		set = new(policy.Execution)
	}
	return &gatewaypb.GetExecutionPolicyResponse{
		Policy: executionPolicyOut(set),
		Effective: &gatewaypb.ExecutionPolicy{
			Enabled: new(p.IsEnabled()), Mode: modeOut(p.EffectiveMode()), PerMessage: new(p.IsPerMessage()),
		},
		Details: policyDetails(set.Revision, set.ChangedAt),
	}, nil
}

// UpdateExecutionPolicy changes the fields that are given.
func (g *gateway) UpdateExecutionPolicy(ctx context.Context, r *gatewaypb.UpdateExecutionPolicyRequest) (*gatewaypb.UpdateExecutionPolicyResponse, error) {
	change := executionPolicyIn(r.GetPolicy())
	after, err := g.changeExecutionPolicy(ctx, "UpdateExecutionPolicy", r.GetId(), func(p *policy.Execution) error {
		p.Merge(change)
		if err := p.Validate(); err != nil {
			return invalid("policy: %s", oneLine(err))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &gatewaypb.UpdateExecutionPolicyResponse{Policy: executionPolicyOut(after), Details: policyDetails(after.Revision, after.ChangedAt)}, nil
}

// ResetExecutionPolicy takes fields, or everything, back to the defaults.
func (g *gateway) ResetExecutionPolicy(ctx context.Context, r *gatewaypb.ResetExecutionPolicyRequest) (*gatewaypb.ResetExecutionPolicyResponse, error) {
	after, err := g.changeExecutionPolicy(ctx, "ResetExecutionPolicy", r.GetId(), func(p *policy.Execution) error {
		return p.Reset(r.GetFields()...)
	})
	if err != nil {
		return nil, err
	}
	return &gatewaypb.ResetExecutionPolicyResponse{Policy: executionPolicyOut(after), Details: policyDetails(after.Revision, after.ChangedAt)}, nil
}

// changeExecutionPolicy is changeTargetPolicy for executions.
func (g *gateway) changeExecutionPolicy(ctx context.Context, action, ref string, edit func(*policy.Execution) error) (*policy.Execution, error) {
	var after *policy.Execution
	err := g.core.change(ctx, action, func(s *store.State) ([]store.Item, error) {
		e := findExecution(s, ref)
		if e == nil {
			return nil, errNoSuchExecution
		}
		before, err := executionPolicy(s, e.ID)
		if err != nil {
			return nil, err
		}
		if before == nil {
			before = new(policy.Execution)
		}
		after = before.Clone()
		if err := edit(after); err != nil {
			return nil, err
		}
		if after.Same(before) {
			after = before
			return nil, nil
		}
		after.Revision, after.ChangedAt = s.Revision()+1, g.core.changeTime(before.ChangedAt)
		return policyItem(store.KindExecutionPolicy, e.ID, after)
	})
	return after, err
}

// policyItem is how a policy is stored: not at all when it says nothing.
func policyItem(kind store.Kind, id string, p interface {
	Empty() bool
	Encode() ([]byte, error)
},
) ([]store.Item, error) {
	if p.Empty() {
		return []store.Item{store.Absent(kind, id)}, nil
	}
	value, err := p.Encode()
	return one(store.Item{Kind: kind, ID: id, Value: value}, err)
}

// keepSecrets puts the stored values in the place of those that a caller read and wrote back.
func keepSecrets(change, stored *policy.Target) error {
	for name, value := range change.Headers {
		if value != secretValue {
			continue
		}
		before, ok := stored.Headers[textproto.CanonicalMIMEHeaderKey(name)]
		if !ok {
			return invalid("policy: headers: %q has no stored value that %q could keep", name, secretValue)
		}
		change.Headers[name] = before
	}
	for i, value := range change.SigningSecrets {
		if value != secretValue {
			continue
		}
		if i >= len(stored.SigningSecrets) {
			return invalid("policy: signing_secrets[%d]: there is no stored value that %q could keep", i, secretValue)
		}
		change.SigningSecrets[i] = stored.SigningSecrets[i]
	}
	return nil
}

// validTargetPolicy says what of a policy cannot be stored, as [policy.Target.Validate] does.
func validTargetPolicy(p *policy.Target) error {
	err := p.Validate()
	if len(p.SigningSecrets) == 0 && len(p.Signatures) == 0 {
		return err
	}
	v1, v1a := slices.Contains(p.Signatures, policy.SignatureStandardV1), slices.Contains(p.Signatures, policy.SignatureStandardV1a)
	if _, signErr := targetclient.NewStandardWebhooks(v1, v1a, p.SigningSecrets); signErr != nil {
		err = errors.Join(err, fmt.Errorf("signing_secrets: %w", signErr))
	}
	return err
}

func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

// effective is what is in force; a nil policy says nothing.
func (g *gateway) effective(p *policy.Target) *gatewaypb.TargetPolicy {
	b := p.BreakerSettings(g.o.Defaults)
	out := &gatewaypb.TargetPolicy{
		Enabled:        new(p.IsEnabled()),
		MaxConcurrency: new(uint32(max(p.Concurrency(g.o.Defaults), 0))),
		Breaker: &gatewaypb.Breaker{
			ConsecutiveFailures: new(uint32(max(b.ConsecutiveFailures, 0))),
			Window:              durationpb.New(b.Window),
			MinCalls:            new(uint32(max(b.MinCalls, 0))),
			FailureRatio:        new(b.FailureRatio),
			OpenFor:             durationpb.New(b.OpenFor),
			HalfOpenCalls:       new(uint32(max(b.HalfOpenCalls, 0))),
		},
	}
	g.effectiveDelivery(out, p)
	if p != nil {
		set := targetPolicyOut(p)
		out.AllowedHosts, out.Headers, out.SigningSecrets = set.GetAllowedHosts(), set.GetHeaders(), set.GetSigningSecrets()
	}
	return out
}

func targetPolicyIn(in *gatewaypb.TargetPolicy) (*policy.Target, error) {
	p := &policy.Target{Enabled: in.Enabled, MaxConcurrency: in.MaxConcurrency}
	if b := in.GetBreaker(); b != nil {
		window, err := spanIn("breaker.window", b.GetWindow())
		if err != nil {
			return nil, err
		}
		openFor, err := spanIn("breaker.open_for", b.GetOpenFor())
		if err != nil {
			return nil, err
		}
		p.Breaker = &policy.Breaker{
			ConsecutiveFailures: b.ConsecutiveFailures,
			Window:              window,
			MinCalls:            b.MinCalls,
			FailureRatio:        b.FailureRatio,
			OpenFor:             openFor,
			HalfOpenCalls:       b.HalfOpenCalls,
		}
	}
	if in.GetAllowedHosts() != nil {
		p.AllowedHosts = append([]string{}, in.GetAllowedHosts().GetHosts()...)
	}
	if in.GetHeaders() != nil {
		p.Headers = make(map[string]string)
		for name, value := range in.GetHeaders().GetValues() {
			p.Headers[name] = value
		}
	}
	return p, deliveryPolicyIn(p, in)
}

func spanIn(field string, d *durationpb.Duration) (*time.Duration, error) {
	if d == nil {
		return nil, nil
	}
	if err := d.CheckValid(); err != nil {
		return nil, invalid("policy: %s: not a valid duration", field)
	}
	return new(d.AsDuration()), nil
}

// targetPolicyOut shows a policy without its secrets.
func targetPolicyOut(p *policy.Target) *gatewaypb.TargetPolicy {
	out := &gatewaypb.TargetPolicy{Enabled: p.Enabled, MaxConcurrency: p.MaxConcurrency}
	if b := p.Breaker; b != nil {
		out.Breaker = &gatewaypb.Breaker{
			ConsecutiveFailures: b.ConsecutiveFailures,
			Window:              spanOut(b.Window),
			MinCalls:            b.MinCalls,
			FailureRatio:        b.FailureRatio,
			OpenFor:             spanOut(b.OpenFor),
			HalfOpenCalls:       b.HalfOpenCalls,
		}
	}
	if len(p.AllowedHosts) > 0 {
		out.AllowedHosts = &gatewaypb.HostList{Hosts: p.AllowedHosts}
	}
	if len(p.Headers) > 0 {
		masked := make(map[string]string, len(p.Headers))
		for name := range p.Headers {
			masked[name] = secretValue
		}
		out.Headers = &gatewaypb.HeaderMap{Values: masked}
	}
	deliveryPolicyOut(out, p)
	return out
}

func spanOut(d *time.Duration) *durationpb.Duration {
	if d == nil {
		return nil
	}
	return durationpb.New(*d)
}

func executionPolicyOut(p *policy.Execution) *gatewaypb.ExecutionPolicy {
	return &gatewaypb.ExecutionPolicy{Enabled: p.Enabled, Mode: modeOut(p.Mode), PerMessage: p.PerMessage}
}

func executionPolicyIn(p *gatewaypb.ExecutionPolicy) *policy.Execution {
	if p == nil {
		return new(policy.Execution)
	}
	return &policy.Execution{Enabled: p.Enabled, Mode: modeIn(p.GetMode()), PerMessage: p.PerMessage}
}

func modeIn(m gatewaypb.ExecutionMode) policy.Mode {
	switch m {
	case gatewaypb.ExecutionMode_EXECUTION_MODE_ENFORCE:
		return policy.ModeEnforce
	case gatewaypb.ExecutionMode_EXECUTION_MODE_SHADOW:
		return policy.ModeShadow
	default:
		return ""
	}
}

func modeOut(m policy.Mode) gatewaypb.ExecutionMode {
	switch m {
	case policy.ModeEnforce:
		return gatewaypb.ExecutionMode_EXECUTION_MODE_ENFORCE
	case policy.ModeShadow:
		return gatewaypb.ExecutionMode_EXECUTION_MODE_SHADOW
	default:
		return gatewaypb.ExecutionMode_EXECUTION_MODE_UNSPECIFIED
	}
}

func policyDetails(revision uint64, changed time.Time) *gatewaypb.PolicyDetails {
	d := &gatewaypb.PolicyDetails{Revision: revision}
	if !changed.IsZero() {
		d.ChangeDate = timestamppb.New(changed)
	}
	return d
}

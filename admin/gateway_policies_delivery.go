package admin

import (
	"google.golang.org/protobuf/types/known/durationpb"

	gatewaypb "github.com/execgate/execgate/gen/execgate/v1"
	"github.com/execgate/execgate/policy"
)

// deliveryPolicyIn reads what a policy says of deliveries and signatures.
func deliveryPolicyIn(p *policy.Target, in *gatewaypb.TargetPolicy) error {
	if r := in.GetRetry(); r != nil {
		p.Retry = &policy.Retry{MaxAttempts: r.MaxAttempts}
		var err error
		if p.Retry.FirstDelay, err = spanIn("retry.first_delay", r.GetFirstDelay()); err != nil {
			return err
		}
		if p.Retry.MaxDelay, err = spanIn("retry.max_delay", r.GetMaxDelay()); err != nil {
			return err
		}
		if p.Retry.MaxAge, err = spanIn("retry.max_age", r.GetMaxAge()); err != nil {
			return err
		}
	}
	for _, s := range in.GetSignatures() {
		p.Signatures = append(p.Signatures, policy.Signature(s))
	}
	p.SigningSecrets = append(p.SigningSecrets, in.GetSigningSecrets()...)
	if in.OrderBy != nil {
		p.OrderBy = new(policy.OrderBy(in.GetOrderBy()))
	}
	if in.OnFull != nil {
		p.OnFull = new(policy.OnFull(in.GetOnFull()))
	}
	return nil
}

// deliveryPolicyOut shows it, without the secrets.
func deliveryPolicyOut(out *gatewaypb.TargetPolicy, p *policy.Target) {
	if r := p.Retry; r != nil {
		out.Retry = &gatewaypb.Retry{
			MaxAttempts: r.MaxAttempts,
			FirstDelay:  spanOut(r.FirstDelay),
			MaxDelay:    spanOut(r.MaxDelay),
			MaxAge:      spanOut(r.MaxAge),
		}
	}
	for _, s := range p.Signatures {
		out.Signatures = append(out.Signatures, string(s))
	}
	for range p.SigningSecrets {
		out.SigningSecrets = append(out.SigningSecrets, secretValue)
	}
	if p.OrderBy != nil {
		out.OrderBy = new(string(*p.OrderBy))
	}
	if p.OnFull != nil {
		out.OnFull = new(string(*p.OnFull))
	}
}

// effectiveDelivery adds what is in force.
func (g *gateway) effectiveDelivery(out *gatewaypb.TargetPolicy, p *policy.Target) {
	r := p.RetrySettings(g.o.Defaults)
	out.Retry = &gatewaypb.Retry{
		MaxAttempts: new(uint32(max(r.MaxAttempts, 0))),
		FirstDelay:  durationpb.New(r.FirstDelay),
		MaxDelay:    durationpb.New(r.MaxDelay),
		MaxAge:      durationpb.New(r.MaxAge),
	}
	for _, s := range p.EffectiveSignatures() {
		out.Signatures = append(out.Signatures, string(s))
	}
	out.OrderBy, out.OnFull = new(string(p.EffectiveOrderBy())), new(string(p.EffectiveOnFull()))
}

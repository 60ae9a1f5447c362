package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	gatewaypb "github.com/execgate/execgate/gen/execgate/v1"
	actionv2 "github.com/execgate/execgate/gen/zitadel/action/v2"
	filterv2 "github.com/execgate/execgate/gen/zitadel/filter/v2"
)

const targetHelp = `A target is an HTTP endpoint that executions call. Its type says how the answer
counts: webhook (the target is told, the caller waits), call (the answer becomes
the message) or async (nobody waits). A target is named by its name or its id.`

func (p *program) newTarget() *cobra.Command {
	return group(&cobra.Command{Use: "target", Aliases: []string{"targets"}, Short: "Manage targets", Long: targetHelp},
		p.newTargetCreate(),
		p.newTargetGet(),
		p.newTargetList(),
		p.newTargetUpdate(),
		p.newTargetDelete(),
		p.newTargetSwitch("enable", "Let targets be called again", true),
		p.newTargetSwitch("disable", "Keep targets from being called", false),
		p.newTargetPolicy(),
	)
}

// targetFlags are what create and update set.
type targetFlags struct {
	endpoint, kind, payload string
	timeout                 time.Duration
	interrupt               bool
}

var (
	targetKinds  = []string{"webhook", "call", "async"}
	payloadKinds = []string{"json", "jwt", "jwe"}
)

func (t *targetFlags) add(cmd *cobra.Command, kind string, timeout time.Duration) {
	f := cmd.Flags()
	f.StringVar(&t.endpoint, "endpoint", "", "absolute http or https `URL` to call (also --url)")
	f.StringVar(&t.kind, "type", kind, "webhook, call or async")
	f.DurationVar(&t.timeout, "timeout", timeout, "longest `TIME` of one call, at most 270s")
	f.BoolVar(&t.interrupt, "interrupt-on-error", false, "a failing call ends the caller's call as well")
	f.StringVar(&t.payload, "payload-type", "", "form of the body: json, jwt or jwe (default json)")
	f.SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		if name == "url" {
			name = "endpoint"
		}
		return pflag.NormalizedName(name)
	})
	_ = cmd.RegisterFlagCompletionFunc("type", cobra.FixedCompletions(targetKinds, cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.RegisterFlagCompletionFunc("payload-type", cobra.FixedCompletions(payloadKinds, cobra.ShellCompDirectiveNoFileComp))
}

// check says what is wrong with the flags that were given.
func (t *targetFlags) check(given func(string) bool) error {
	switch {
	case given("type") && !oneOf(t.kind, targetKinds):
		return usage("--type %q is none of %s", t.kind, strings.Join(targetKinds, ", "))
	case given("payload-type") && !oneOf(t.payload, payloadKinds):
		return usage("--payload-type %q is none of %s", t.payload, strings.Join(payloadKinds, ", "))
	case given("timeout") && (t.timeout <= 0 || t.timeout > 270*time.Second):
		return usage("--timeout %v: more than 0s and at most 270s is possible", t.timeout)
	case t.kind == "async" && t.interrupt:
		return usage("--interrupt-on-error: nobody waits for an async target, so it cannot end a call")
	case given("endpoint") && !strings.HasPrefix(t.endpoint, "http://") && !strings.HasPrefix(t.endpoint, "https://"):
		return usage("--endpoint is no absolute http or https URL") // without its value: it may hold a password
	}
	return nil
}

func oneOf(word string, words []string) bool {
	for _, w := range words {
		if w == word {
			return true
		}
	}
	return false
}

func (t *targetFlags) payloadType() actionv2.PayloadType {
	return map[string]actionv2.PayloadType{
		"json": actionv2.PayloadType_PAYLOAD_TYPE_JSON,
		"jwt":  actionv2.PayloadType_PAYLOAD_TYPE_JWT,
		"jwe":  actionv2.PayloadType_PAYLOAD_TYPE_JWE,
	}[t.payload]
}

func (p *program) newTargetCreate() *cobra.Command {
	var o format
	var t targetFlags
	cmd := &cobra.Command{
		Use:   "create NAME --endpoint URL",
		Short: "Create a target",
		Long: `Creates a target. The signing key is shown once: the target verifies the header
ZITADEL-Signature with it.`,
		Example: `  execgate target create audit --endpoint https://audit.example/hook
  execgate target create crm --endpoint https://crm.example/check --type call --interrupt-on-error --timeout 2s
  execgate target create log --endpoint https://log.example/hook --type async -o json`,
		Args: exactly("NAME"),
	}
	t.add(cmd, "webhook", 10*time.Second)
	return p.remote(cmd, &o, func(ctx context.Context, s *session, args []string) error {
		if t.endpoint == "" {
			return usage("--endpoint URL is missing")
		}
		if err := t.check(s.given); err != nil {
			return err
		}
		req := &actionv2.CreateTargetRequest{
			Name: args[0], Endpoint: t.endpoint, Timeout: durationpb.New(t.timeout), PayloadType: t.payloadType(),
		}
		switch t.kind {
		case "webhook":
			req.TargetType = &actionv2.CreateTargetRequest_RestWebhook{RestWebhook: &actionv2.RESTWebhook{InterruptOnError: t.interrupt}}
		case "call":
			req.TargetType = &actionv2.CreateTargetRequest_RestCall{RestCall: &actionv2.RESTCall{InterruptOnError: t.interrupt}}
		default:
			req.TargetType = &actionv2.CreateTargetRequest_RestAsync{RestAsync: &actionv2.RESTAsync{}}
		}
		res, err := s.targets.CreateTarget(ctx, req)
		if status.Code(err) == codes.AlreadyExists {
			return &Failure{fmt.Errorf("there is a target with the name %q already: %w", args[0], err), "execgate target update changes it"}
		}
		if err != nil {
			return err
		}
		return s.show(res, func(w io.Writer) {
			_, _ = fmt.Fprintf(w, "target %s created, id %s\nsigning key: %s\n", cellText(args[0]), res.GetId(), res.GetSigningKey())
		})
	}, noWords)
}

func (s *session) given(flag string) bool { return s.cmd.Flags().Changed(flag) }

// typeOf says what kind of target it is, and whether it interrupts.
func typeOf(t *actionv2.Target) (kind string, interrupts bool) {
	switch kind := t.GetTargetType().(type) {
	case *actionv2.Target_RestWebhook:
		return "webhook", kind.RestWebhook.GetInterruptOnError()
	case *actionv2.Target_RestCall:
		return "call", kind.RestCall.GetInterruptOnError()
	case *actionv2.Target_RestAsync:
		return "async", false
	}
	return "", false
}

// targetObject is a target as programs see it: the API's Target, without its
// signing key unless it was asked for.
func targetObject(t *actionv2.Target, withKey bool) (members, error) {
	fields, err := fieldsOf(t)
	if err != nil {
		return nil, err
	}
	if !withKey {
		fields = fields.without("signingKey")
	}
	return fields, nil
}

func (p *program) newTargetGet() *cobra.Command {
	var o format
	var withKey bool
	cmd := &cobra.Command{
		Use:   "get NAME",
		Short: "Show a target and its policy",
		Long: `Shows a target, and what its policy says on top of the defaults of the gateway
(with a token that may read policies).`,
		Example: `  execgate target get crm
  execgate target get crm -o json | jq .policy`,
		Args: exactly("NAME"),
	}
	cmd.Flags().BoolVar(&withKey, "show-signing-key", false, "show the signing key: a secret")
	return p.remote(cmd, &o, func(ctx context.Context, s *session, args []string) error {
		t, err := s.target(ctx, args[0])
		if err != nil {
			return err
		}
		object, err := targetObject(t, withKey)
		if err != nil {
			return err
		}
		policy, err := s.gateway.GetTargetPolicy(ctx, &gatewaypb.GetTargetPolicyRequest{Id: t.GetId()})
		switch status.Code(err) {
		case codes.OK:
			object = append(object, member{"policy", policy.GetPolicy()}, member{"effectivePolicy", policy.GetEffective()})
		case codes.PermissionDenied, codes.Unimplemented:
		default:
			return err
		}
		return s.show(object, func(w io.Writer) {
			kind, interrupts := typeOf(t)
			g := &grid{}
			g.row("name", t.GetName())
			g.row("id", t.GetId())
			g.row("type", kind)
			g.row("endpoint", t.GetEndpoint())
			g.row("timeout", t.GetTimeout().AsDuration().String())
			g.row("interrupts on error", yesNo(interrupts))
			g.row("payload", cmp.Or(enumWord(t.GetPayloadType().String(), "PAYLOAD_TYPE_"), "json"))
			if withKey {
				g.row("signing key", t.GetSigningKey())
			}
			g.row("created", stamp(t.GetCreationDate()))
			g.row("changed", stamp(t.GetChangeDate()))
			if err == nil {
				policyRows(g, policy.GetPolicy(), policy.GetEffective())
			}
			g.write(w, "")
		})
	}, words(1, someTargets))
}

func (p *program) newTargetList() *cobra.Command {
	var o format
	var withKey bool
	var limit uint32
	var contains string
	cmd := &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List targets by name",
		Example: `  execgate target list
  execgate target list --name crm -o json | jq -r '.targets[].endpoint'`,
		Args: cobra.NoArgs,
	}
	cmd.Flags().StringVar(&contains, "name", "", "only targets with this `TEXT` in the name, whatever the letter case")
	cmd.Flags().Uint32Var(&limit, "limit", 0, "at most `N`; 0 is all")
	cmd.Flags().BoolVar(&withKey, "show-signing-keys", false, "with -o json and yaml: show the signing keys, which are secrets")
	return p.remote(cmd, &o, func(ctx context.Context, s *session, _ []string) error {
		targets, total, err := s.listTargets(ctx, contains, int(limit))
		if err != nil {
			return err
		}
		objects := make([]members, 0, len(targets))
		for _, t := range targets {
			object, err := targetObject(t, withKey)
			if err != nil {
				return err
			}
			objects = append(objects, object)
		}
		return s.show(members{{"targets", objects}, {"totalResult", total}}, func(w io.Writer) {
			g := &grid{head: []string{"NAME", "ID", "TYPE", "TIMEOUT", "INTERRUPTS", "ENDPOINT"}}
			for _, t := range targets {
				kind, interrupts := typeOf(t)
				g.row(t.GetName(), t.GetId(), kind, t.GetTimeout().AsDuration().String(), yesNo(interrupts), t.GetEndpoint())
			}
			g.write(w, "no targets")
			if int(total) > len(targets) {
				_, _ = fmt.Fprintf(w, "%d of %d targets\n", len(targets), total)
			}
		})
	}, noWords)
}

// listTargets walks through the pages.
func (c *client) listTargets(ctx context.Context, contains string, limit int) (all []*actionv2.Target, total uint64, err error) {
	column := actionv2.TargetFieldName_TARGET_FIELD_NAME_NAME
	for {
		req := &actionv2.ListTargetsRequest{
			Pagination:    &filterv2.PaginationRequest{Offset: uint64(len(all)), Limit: pageSize, Asc: true},
			SortingColumn: &column,
		}
		if limit > 0 {
			req.Pagination.Limit = uint32(min(pageSize, limit-len(all)))
		}
		if contains != "" {
			req.Filters = append(req.Filters, nameFilter(contains, filterv2.TextFilterMethod_TEXT_FILTER_METHOD_CONTAINS_IGNORE_CASE))
		}
		res, err := c.targets.ListTargets(ctx, req)
		if err != nil {
			return nil, 0, err
		}
		all, total = append(all, res.GetTargets()...), res.GetPagination().GetTotalResult()
		if len(res.GetTargets()) == 0 || uint64(len(all)) >= total || limit > 0 && len(all) >= limit {
			return all, total, nil
		}
	}
}

func (p *program) newTargetUpdate() *cobra.Command {
	var o format
	var t targetFlags
	var name string
	var rotate bool
	cmd := &cobra.Command{
		Use:   "update NAME",
		Short: "Change a target",
		Long:  "Changes what flags are given for. What is as it was is no change.",
		Example: `  execgate target update crm --timeout 500ms
  execgate target update crm --interrupt-on-error=false
  execgate target update crm --rotate-signing-key`,
		Args: exactly("NAME"),
	}
	t.add(cmd, "", 0)
	cmd.Flags().StringVar(&name, "name", "", "give the target another `NAME`")
	cmd.Flags().BoolVar(&rotate, "rotate-signing-key", false, "make a new signing key, which replaces the old one at once")
	return p.remote(cmd, &o, func(ctx context.Context, s *session, args []string) error {
		any := false
		for _, flag := range []string{"endpoint", "type", "timeout", "interrupt-on-error", "payload-type", "name", "rotate-signing-key"} {
			any = any || s.given(flag)
		}
		if !any {
			return usage("nothing to change: give at least one of --endpoint, --type, --timeout, --interrupt-on-error, --payload-type, --name, --rotate-signing-key")
		}
		if s.given("name") && name == "" {
			return usage("--name is empty")
		}
		if err := t.check(s.given); err != nil {
			return err
		}
		was, err := s.target(ctx, args[0])
		if err != nil {
			return err
		}
		req, err := t.update(was, s.given)
		if err != nil {
			return err
		}
		if s.given("name") {
			req.Name = &name
		}
		if rotate {
			req.ExpirationSigningKey = durationpb.New(0)
		}
		res, err := s.targets.UpdateTarget(ctx, req)
		if err != nil {
			return err
		}
		fields, err := fieldsOf(res)
		if err != nil {
			return err
		}
		return s.show(append(members{{"id", was.GetId()}}, fields...), func(w io.Writer) {
			done := "updated"
			if res.GetChangeDate().AsTime().Equal(was.GetChangeDate().AsTime()) {
				done = "unchanged"
			}
			_, _ = fmt.Fprintf(w, "target %s %s\n", cellText(args[0]), done)
			if res.SigningKey != nil {
				_, _ = fmt.Fprintf(w, "signing key: %s\n", res.GetSigningKey())
			}
		})
	}, words(1, someTargets))
}

// update is the request for what flags are given for. Type and interrupt flag
// are one field of the API: the one that is not given stays as it was.
func (t *targetFlags) update(was *actionv2.Target, given func(string) bool) (*actionv2.UpdateTargetRequest, error) {
	req := &actionv2.UpdateTargetRequest{Id: was.GetId(), PayloadType: t.payloadType()}
	if given("endpoint") {
		req.Endpoint = &t.endpoint
	}
	if given("timeout") {
		req.Timeout = durationpb.New(t.timeout)
	}
	if !given("type") && !given("interrupt-on-error") {
		return req, nil
	}
	kind, interrupts := typeOf(was)
	if given("type") {
		kind = t.kind
	}
	if given("interrupt-on-error") {
		interrupts = t.interrupt
	}
	switch {
	case kind == "webhook":
		req.TargetType = &actionv2.UpdateTargetRequest_RestWebhook{RestWebhook: &actionv2.RESTWebhook{InterruptOnError: interrupts}}
	case kind == "call":
		req.TargetType = &actionv2.UpdateTargetRequest_RestCall{RestCall: &actionv2.RESTCall{InterruptOnError: interrupts}}
	case given("interrupt-on-error") && t.interrupt:
		return nil, &Failure{fmt.Errorf("%s is an async target: nobody waits for it, so it cannot end a call", was.GetName()), "give --type webhook or --type call as well"}
	default:
		req.TargetType = &actionv2.UpdateTargetRequest_RestAsync{RestAsync: &actionv2.RESTAsync{}}
	}
	return req, nil
}

func (p *program) newTargetDelete() *cobra.Command {
	var o format
	cmd := &cobra.Command{
		Use:     "delete NAME...",
		Aliases: []string{"rm"},
		Short:   "Delete targets, also from every execution that lists them",
		Example: `  execgate target delete crm`,
		Args:    atLeastOne("NAME"),
	}
	return p.remote(cmd, &o, func(ctx context.Context, s *session, args []string) error {
		ids, err := s.targetIDs(ctx, args) // all of them first: a mistyped name deletes nothing
		if err != nil {
			return err
		}
		var deleted []members
		for i, id := range ids {
			res, err := s.targets.DeleteTarget(ctx, &actionv2.DeleteTargetRequest{Id: id})
			if err != nil {
				return fmt.Errorf("delete %s: %w", args[i], err)
			}
			fields, err := fieldsOf(res)
			if err != nil {
				return err
			}
			deleted = append(deleted, append(members{{"id", id}}, fields...))
			s.say("target %s deleted", cellText(args[i]))
		}
		return s.show(members{{"deleted", deleted}}, func(io.Writer) {})
	}, words(-1, someTargets))
}

func (p *program) newTargetSwitch(verb, short string, on bool) *cobra.Command {
	var o format
	cmd := &cobra.Command{
		Use:   verb + " NAME...",
		Short: short,
		Long: `Sets enabled in the policy of the target. While a target is disabled its place
in an execution is skipped, and its deliveries wait.`,
		Example: "  execgate target " + verb + " crm",
		Args:    atLeastOne("NAME"),
	}
	return p.remote(cmd, &o, func(ctx context.Context, s *session, args []string) error {
		ids, err := s.targetIDs(ctx, args)
		if err != nil {
			return err
		}
		var results []members
		for i, id := range ids {
			res, err := s.gateway.UpdateTargetPolicy(ctx, &gatewaypb.UpdateTargetPolicyRequest{
				Id: id, Policy: &gatewaypb.TargetPolicy{Enabled: &on},
			})
			if err != nil {
				return fmt.Errorf("%s %s: %w", verb, args[i], err)
			}
			fields, err := fieldsOf(res)
			if err != nil {
				return err
			}
			results = append(results, append(members{{"id", id}}, fields...))
			s.say("target %s %sd", cellText(args[i]), verb)
		}
		return s.show(members{{"targets", results}}, func(io.Writer) {})
	}, words(-1, someTargets))
}

package cli

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/execgate/execgate/conditions"
	gatewaypb "github.com/execgate/execgate/gen/execgate/v1"
	actionv3 "github.com/execgate/execgate/gen/zitadel/resources/action/v3alpha"
	resourcev3 "github.com/execgate/execgate/gen/zitadel/resources/object/v3alpha"
	"github.com/execgate/execgate/internal/strictyaml"
)

const executionHelp = `An execution says which targets are called when. Its id is its condition:
  request, request/pkg.Service, request/pkg.Service/Method      before a call goes upstream
  response, response/pkg.Service, response/pkg.Service/Method   before the answer goes back
  function/name                                                 a function of the identity provider
  event, event/type, event/group.*                              something has happened
The most specific one that is enabled fires, and no other.`

func (p *program) newExecution() *cobra.Command {
	return group(&cobra.Command{Use: "execution", Aliases: []string{"executions"}, Short: "Manage executions", Long: executionHelp},
		p.newExecutionPut("create", false),
		p.newExecutionGet(),
		p.newExecutionList(),
		p.newExecutionPut("update", true),
		p.newExecutionDelete(),
		p.newExecutionSwitch("enable", "Let executions fire again", true),
		p.newExecutionSwitch("disable", "Make executions as if they were not there", false),
		p.newExecutionSetMode(),
		p.newExecutionPolicy(),
	)
}

// newExecutionPut is create and update: one call of the API, but a typing
// mistake in an id should not make an execution, nor replace one.
func (p *program) newExecutionPut(verb string, exists bool) *cobra.Command {
	var o format
	var targets, includes []string
	short, long := "Create an execution", "Creates the execution of a condition, with targets or with includes."
	if exists {
		short, long = "Replace the targets of an execution", "Replaces the targets or includes of an execution as a whole."
	}
	cmd := &cobra.Command{
		Use:   verb + " ID {--target NAME... | --include ID...}",
		Short: short,
		Long: long + `
Targets are called in the order given; --target and --include may be repeated,
or hold several separated by commas. To create an execution that only watches
at first, describe it with "mode: shadow" in a file for execgate apply.`,
		Example: fmt.Sprintf(`  execgate execution %[1]s request/zitadel.user.v2.UserService/AddHumanUser --target crm --target audit
  execgate execution %[1]s response/zitadel.user.v2.UserService --include response/zitadel.session.v2.SessionService
  execgate execution %[1]s 'event/user.human.*' --target log`, verb),
		Args: exactly("ID"),
	}
	cmd.Flags().StringSliceVar(&targets, "target", nil, "`NAME` or id of a target")
	cmd.Flags().StringSliceVar(&includes, "include", nil, "`ID` of an execution of the same kind, whose targets are taken")
	list := possibleExecutions
	if exists {
		list = someExecutions
	}
	return p.remote(cmd, &o, func(ctx context.Context, s *session, args []string) error {
		c, err := executionID(args[0])
		if err != nil {
			return err
		}
		included, err := putLists(targets, includes)
		if err != nil {
			return err
		}
		found, err := s.execution(ctx, c)
		switch {
		case err != nil:
			return err
		case exists && found == nil:
			return s.unknownExecution(ctx, c.ID())
		case !exists && found != nil:
			return &Failure{fmt.Errorf("there is an execution %s already", c.ID()), "execgate execution update replaces its targets"}
		}
		ids, err := s.targetIDs(ctx, targets)
		if err != nil {
			return err
		}
		res, err := s.executions.PutExecution(ctx, &actionv3.PutExecutionRequest{
			Execution: &actionv3.Execution{Condition: condition(c), Targets: ids, Includes: included},
		})
		if err != nil {
			return s.explainPut(ctx, c, err)
		}
		object := append(members{{"id", c.ID()}}, detailFields(res.GetDetails())...)
		return s.show(object, func(w io.Writer) {
			done := verb + "d"
			if found.GetDetails().GetSequence() == res.GetDetails().GetSequence() {
				done = "unchanged"
			}
			_, _ = fmt.Fprintf(w, "execution %s %s\n", cellText(c.ID()), done)
		})
	}, words(1, list), flagWords("target", someTargets), flagWords("include", someExecutions))
}

// putLists checks the flags of create and update.
func putLists(targets, includes []string) (included []string, err error) {
	switch {
	case len(targets) == 0 && len(includes) == 0:
		return nil, usage("give the targets with --target NAME, or executions to take them from with --include ID")
	case len(targets) > 0 && len(includes) > 0:
		return nil, usage("--target and --include exclude each other: two lists have no common order")
	}
	for _, name := range targets {
		if name == "" {
			return nil, usage("--target is empty")
		}
	}
	for _, id := range includes {
		c, err := executionID(id)
		if err != nil {
			return nil, err
		}
		included = append(included, c.ID())
	}
	return included, nil
}

// explainPut adds what a person can do about the answer to a put.
func (s *session) explainPut(ctx context.Context, c conditions.Condition, err error) error {
	if status.Code(err) != codes.NotFound || c.Level != conditions.Method && c.Level != conditions.Service {
		return err
	}
	methods, listErr := allMethods(ctx, s.client, "")
	if listErr != nil {
		return err
	}
	f := &Failure{Err: fmt.Errorf("the API behind the gateway has no %s %s: %w", c.Level, c.Value, err)}
	if c.Level == conditions.Service {
		seen := map[string]bool{}
		var services []string
		for _, m := range methods {
			service, _, _ := strings.Cut(strings.TrimPrefix(m, "/"), "/")
			if !seen[service] {
				seen[service] = true
				services = append(services, service)
			}
		}
		methods = services
	}
	if oneOf(c.Value, methods) {
		return err
	}
	if near := strictyaml.Closest(c.Value, methods); near != "" {
		f.Hint = "did you mean " + c.Kind.String() + "/" + strings.TrimPrefix(plainText(near), "/") + "?"
	}
	return f
}

// execution finds an execution, nil when there is none.
func (c *client) execution(ctx context.Context, cond conditions.Condition) (*actionv3.GetExecution, error) {
	res, err := c.executions.SearchExecutions(ctx, &actionv3.SearchExecutionsRequest{Filters: []*actionv3.ExecutionSearchFilter{
		{Filter: &actionv3.ExecutionSearchFilter_InConditions{
			InConditions: &actionv3.InConditionsFilter{Conditions: []*actionv3.Condition{condition(cond)}},
		}},
	}})
	if err != nil || len(res.GetResult()) == 0 {
		return nil, err
	}
	return res.GetResult()[0], nil
}

// detailFields are those of the API's Details that an execution shows.
func detailFields(d *resourcev3.Details) members {
	return members{{"sequence", strconv.FormatUint(d.GetSequence(), 10)}, {"changeDate", protoTime(d.GetChangeDate())}}
}

// executionObject is an execution as programs see it: its id and details, then
// the API's Execution.
func executionObject(e *actionv3.GetExecution) (members, error) {
	fields, err := fieldsOf(e.GetExecution())
	if err != nil {
		return nil, err
	}
	return append(append(members{{"id", e.GetDetails().GetId()}}, detailFields(e.GetDetails())...), fields...), nil
}

func (p *program) newExecutionGet() *cobra.Command {
	var o format
	cmd := &cobra.Command{
		Use:   "get ID",
		Short: "Show an execution and its policy",
		Example: `  execgate execution get request/zitadel.user.v2.UserService/AddHumanUser
  execgate execution get request -o json`,
		Args: exactly("ID"),
	}
	return p.remote(cmd, &o, func(ctx context.Context, s *session, args []string) error {
		c, err := executionID(args[0])
		if err != nil {
			return err
		}
		e, err := s.execution(ctx, c)
		if err != nil {
			return err
		}
		if e == nil {
			return s.unknownExecution(ctx, c.ID())
		}
		object, err := executionObject(e)
		if err != nil {
			return err
		}
		policy, policyErr := s.gateway.GetExecutionPolicy(ctx, &gatewaypb.GetExecutionPolicyRequest{Id: c.ID()})
		switch status.Code(policyErr) {
		case codes.OK:
			object = append(object, member{"policy", policy.GetPolicy()}, member{"effectivePolicy", policy.GetEffective()})
		case codes.PermissionDenied, codes.Unimplemented:
		default:
			return policyErr
		}
		var names []string
		if s.format == table {
			if names, err = s.namesOf(ctx, e.GetExecution().GetTargets()); err != nil {
				return err
			}
		}
		return s.show(object, func(w io.Writer) {
			g := &grid{}
			g.row("id", e.GetDetails().GetId())
			for i, name := range names {
				g.row(fmt.Sprintf("target %d", i+1), name)
			}
			for i, id := range e.GetExecution().GetIncludes() {
				g.row(fmt.Sprintf("include %d", i+1), id)
			}
			g.row("changed", stamp(e.GetDetails().GetChangeDate()))
			if policyErr == nil {
				policyRows(g, policy.GetPolicy(), policy.GetEffective())
			}
			g.write(w, "")
		})
	}, words(1, someExecutions))
}

// namesOf turns ids of targets into names, in order.
func (s *session) namesOf(ctx context.Context, ids []string) ([]string, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	known, err := s.targetNames(ctx, append([]string(nil), ids...))
	if err != nil {
		return nil, err
	}
	names := make([]string, len(ids))
	for i, id := range ids {
		if names[i] = known[id]; names[i] == "" {
			names[i] = id
		}
	}
	return names, nil
}

func (p *program) newExecutionList() *cobra.Command {
	var o format
	var kind, target string
	var limit uint32
	cmd := &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List executions, oldest first",
		Example: `  execgate execution list
  execgate execution list --type event
  execgate execution list --target crm -o json | jq -r '.executions[].id'`,
		Args: cobra.NoArgs,
	}
	cmd.Flags().StringVar(&kind, "type", "", "only of this kind: request, response, function or event")
	cmd.Flags().StringVar(&target, "target", "", "only those that list the target of this `NAME`")
	cmd.Flags().Uint32Var(&limit, "limit", 0, "at most `N`; 0 is all")
	_ = cmd.RegisterFlagCompletionFunc("type", cobra.FixedCompletions([]string{"request", "response", "function", "event"}, cobra.ShellCompDirectiveNoFileComp))
	return p.remote(cmd, &o, func(ctx context.Context, s *session, _ []string) error {
		var filters []*actionv3.ExecutionSearchFilter
		if kind != "" {
			number, ok := actionv3.ExecutionType_value["EXECUTION_TYPE_"+strings.ToUpper(kind)]
			if !ok || number == 0 {
				return usage("--type %q is none of request, response, function, event", kind)
			}
			filters = append(filters, &actionv3.ExecutionSearchFilter{Filter: &actionv3.ExecutionSearchFilter_ExecutionType{
				ExecutionType: &actionv3.ExecutionTypeFilter{Type: actionv3.ExecutionType(number)},
			}})
		}
		if target != "" {
			t, err := s.target(ctx, target)
			if err != nil {
				return err
			}
			filters = append(filters, &actionv3.ExecutionSearchFilter{Filter: &actionv3.ExecutionSearchFilter_Target{
				Target: &actionv3.TargetFilter{Id: t.GetId()},
			}})
		}
		found, total, err := s.listExecutions(ctx, filters, int(limit))
		if err != nil {
			return err
		}
		objects := make([]members, 0, len(found))
		var ids []string
		for _, e := range found {
			object, err := executionObject(e)
			if err != nil {
				return err
			}
			objects = append(objects, object)
			ids = append(ids, e.GetExecution().GetTargets()...)
		}
		names := map[string]string{}
		if s.format == table && len(ids) > 0 {
			if names, err = s.targetNames(ctx, ids); err != nil {
				return err
			}
		}
		return s.show(members{{"executions", objects}, {"totalResult", total}}, func(w io.Writer) {
			g := &grid{head: []string{"ID", "TARGETS", "INCLUDES"}}
			for _, e := range found {
				var targets []string
				for _, id := range e.GetExecution().GetTargets() {
					if name, ok := names[id]; ok {
						id = name
					}
					targets = append(targets, id)
				}
				g.row(e.GetDetails().GetId(), strings.Join(targets, ", "), strings.Join(e.GetExecution().GetIncludes(), ", "))
			}
			g.write(w, "no executions")
			if int(total) > len(found) {
				_, _ = fmt.Fprintf(w, "%d of %d executions\n", len(found), total)
			}
		})
	}, noWords, flagWords("target", someTargets))
}

// listExecutions walks through the pages.
func (c *client) listExecutions(ctx context.Context, filters []*actionv3.ExecutionSearchFilter, limit int) (all []*actionv3.GetExecution, total uint64, err error) {
	for {
		query := &resourcev3.ListQuery{Offset: uint64(len(all)), Limit: pageSize, Asc: true}
		if limit > 0 {
			query.Limit = uint32(min(pageSize, limit-len(all)))
		}
		res, err := c.executions.SearchExecutions(ctx, &actionv3.SearchExecutionsRequest{Query: query, Filters: filters})
		if err != nil {
			return nil, 0, err
		}
		all, total = append(all, res.GetResult()...), res.GetDetails().GetTotalResult()
		if len(res.GetResult()) == 0 || uint64(len(all)) >= total || limit > 0 && len(all) >= limit {
			return all, total, nil
		}
	}
}

func (p *program) newExecutionDelete() *cobra.Command {
	var o format
	cmd := &cobra.Command{
		Use:     "delete ID...",
		Aliases: []string{"rm"},
		Short:   "Delete executions",
		Example: `  execgate execution delete request/zitadel.user.v2.UserService/AddHumanUser`,
		Args:    atLeastOne("ID"),
	}
	return p.remote(cmd, &o, func(ctx context.Context, s *session, args []string) error {
		ids, err := executionIDs(args)
		if err != nil {
			return err
		}
		var deleted []members
		for _, id := range ids {
			res, err := s.executions.DeleteExecution(ctx, &actionv3.DeleteExecutionRequest{Id: id})
			if err != nil {
				return unknown(err, func() error { return s.unknownExecution(ctx, id) })
			}
			deleted = append(deleted, append(members{{"id", id}}, detailFields(res.GetDetails())...))
			s.say("execution %s deleted", cellText(id))
		}
		return s.show(members{{"deleted", deleted}}, func(io.Writer) {})
	}, words(-1, someExecutions))
}

func executionIDs(args []string) ([]string, error) {
	ids := make([]string, 0, len(args))
	for _, arg := range args {
		c, err := executionID(arg)
		if err != nil {
			return nil, err
		}
		ids = append(ids, c.ID())
	}
	return ids, nil
}

// updateExecutions sets one thing in the policies of executions.
func (s *session) updateExecutions(ctx context.Context, args []string, policy *gatewaypb.ExecutionPolicy, done string) error {
	ids, err := executionIDs(args)
	if err != nil {
		return err
	}
	var results []members
	for _, id := range ids {
		res, err := s.gateway.UpdateExecutionPolicy(ctx, &gatewaypb.UpdateExecutionPolicyRequest{Id: id, Policy: policy})
		if err != nil {
			return unknown(err, func() error { return s.unknownExecution(ctx, id) })
		}
		fields, err := fieldsOf(res)
		if err != nil {
			return err
		}
		results = append(results, append(members{{"id", id}}, fields...))
		s.say("execution %s %s", cellText(id), done)
	}
	return s.show(members{{"executions", results}}, func(io.Writer) {})
}

func (p *program) newExecutionSwitch(verb, short string, on bool) *cobra.Command {
	var o format
	cmd := &cobra.Command{
		Use:     verb + " ID...",
		Short:   short,
		Long:    "Sets enabled in the policy of the execution. While it is disabled, a less specific\none fires in its place.",
		Example: "  execgate execution " + verb + " request/zitadel.user.v2.UserService/AddHumanUser",
		Args:    atLeastOne("ID"),
	}
	return p.remote(cmd, &o, func(ctx context.Context, s *session, args []string) error {
		return s.updateExecutions(ctx, args, &gatewaypb.ExecutionPolicy{Enabled: &on}, verb+"d")
	}, words(-1, someExecutions))
}

func (p *program) newExecutionSetMode() *cobra.Command {
	var o format
	modes := []string{"enforce", "shadow"}
	cmd := &cobra.Command{
		Use:   "set-mode {enforce|shadow} ID...",
		Short: "Say whether what targets answer counts",
		Long: `In shadow mode targets are called, but nothing they say is applied and nothing
is interrupted. execgate explain METHOD --last shows what would have happened.`,
		Example: `  execgate execution set-mode shadow request/zitadel.user.v2.UserService/AddHumanUser
  execgate execution set-mode enforce request/zitadel.user.v2.UserService/AddHumanUser`,
		Args: cobra.MinimumNArgs(2),
	}
	cmd = p.remote(cmd, &o, func(ctx context.Context, s *session, args []string) error {
		mode, ok := map[string]gatewaypb.ExecutionMode{
			"enforce": gatewaypb.ExecutionMode_EXECUTION_MODE_ENFORCE,
			"shadow":  gatewaypb.ExecutionMode_EXECUTION_MODE_SHADOW,
		}[args[0]]
		if !ok {
			return usage("the mode %q is neither enforce nor shadow", args[0])
		}
		return s.updateExecutions(ctx, args[1:], &gatewaypb.ExecutionPolicy{Mode: mode}, "set to "+args[0])
	}, words(-1, someExecutions))
	dynamic := cmd.ValidArgsFunction
	cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
		if len(args) == 0 {
			return modes, cobra.ShellCompDirectiveNoFileComp
		}
		return dynamic(cmd, args, prefix)
	}
	return cmd
}

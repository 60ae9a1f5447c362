package cli

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/structpb"

	gatewaypb "github.com/execgate/execgate/gen/execgate/v1"
	"github.com/execgate/execgate/internal/strictyaml"
)

func (p *program) newExplain() *cobra.Command {
	var o format
	req := &gatewaypb.ExplainRequest{}
	cmd := &cobra.Command{
		Use:   "explain {METHOD | --function NAME | --event TYPE}",
		Short: "Say which execution fires, and which targets it calls",
		Long: `Says what a call of a method would do now: which execution fires in each phase,
its targets in the order of the calls with the state of their breakers, which
other executions it hides, and what keeps it from firing.
With --last also what the last run came to, on the gateway that was asked; in
shadow mode, what it would have come to.`,
		Example: `  execgate explain /zitadel.user.v2.UserService/AddHumanUser
  execgate explain zitadel.user.v2.UserService/AddHumanUser --last --with-values
  execgate explain --event user.human.added
  execgate explain --function preuserinfo -o json`,
		Args: cobra.MaximumNArgs(1),
	}
	f := cmd.Flags()
	f.StringVar(&req.Function, "function", "", "a function by `NAME` instead of a method")
	f.StringVar(&req.Event, "event", "", "an event by `TYPE` instead of a method")
	f.BoolVar(&req.Last, "last", false, "also show the last run")
	f.BoolVar(&req.WithValues, "with-values", false, "with --last: show the values that changed, which may be personal data")
	return p.remote(cmd, &o, func(ctx context.Context, s *session, args []string) error {
		subject := 0
		for _, given := range []bool{len(args) == 1, req.GetFunction() != "", req.GetEvent() != ""} {
			if given {
				subject++
			}
		}
		switch {
		case subject != 1:
			return usage("give one of METHOD, --function NAME and --event TYPE")
		case req.GetWithValues() && !req.GetLast():
			return usage("--with-values has no meaning without --last")
		}
		if len(args) == 1 {
			var err error
			if req.Method, err = methodName(args[0]); err != nil {
				return err
			}
		}
		res, err := s.gateway.Explain(ctx, req)
		if err != nil {
			return err
		}
		near := s.nearMethod(ctx, req.GetMethod())
		return s.show(res, func(w io.Writer) {
			writeExplanation(w, req, res)
			if near != "" {
				_, _ = fmt.Fprintf(w, "the API behind the gateway has no such method; did you mean %s?\n", cellText(near))
			}
		})
	}, words(1, func(ctx context.Context, c *client, prefix string) ([]string, error) {
		methods, err := allMethods(ctx, c, prefix)
		if prefix != "" && !strings.HasPrefix(prefix, "/") {
			for i := range methods {
				methods[i] = strings.TrimPrefix(methods[i], "/")
			}
		}
		return methods, err
	}), flagWords("function", func(ctx context.Context, c *client, _ string) ([]string, error) {
		functions, err := possibleExecutions(ctx, c, "function/")
		for i := range functions {
			functions[i] = strings.TrimPrefix(functions[i], "function/")
		}
		return functions, err
	}), flagWords("event", func(context.Context, *client, string) ([]string, error) { return nil, nil }))
}

// nearMethod is the method that was probably meant by one that the API behind
// the gateway lacks, "" when it has it, or when that cannot be told.
func (s *session) nearMethod(ctx context.Context, method string) string {
	if method == "" || s.format != table {
		return ""
	}
	methods, err := allMethods(ctx, s.client, "")
	if err != nil || oneOf(method, methods) {
		return ""
	}
	return strictyaml.Closest(method, methods)
}

func writeExplanation(w io.Writer, req *gatewaypb.ExplainRequest, res *gatewaypb.ExplainResponse) {
	_, _ = fmt.Fprintln(w, cellText(req.GetMethod()+req.GetFunction()+req.GetEvent()))
	for _, note := range res.GetNotes() {
		_, _ = fmt.Fprintf(w, "  note: %s\n", cellText(note))
	}
	for _, phase := range res.GetPhases() {
		if phase.GetExecution() == "" {
			_, _ = fmt.Fprintf(w, "%s: nothing fires\n", cellText(phase.GetPhase()))
		} else {
			mode := enumWord(phase.GetMode().String(), "EXECUTION_MODE_")
			if mode != "" {
				mode = ", " + mode
			}
			_, _ = fmt.Fprintf(w, "%s: %s fires%s\n", cellText(phase.GetPhase()), cellText(phase.GetExecution()), mode)
		}
		g := &grid{}
		for i, t := range phase.GetTargets() {
			var marks []string
			if t.GetInterruptOnError() {
				marks = append(marks, "interrupts on error")
			}
			if !t.GetEnabled() {
				marks = append(marks, "disabled")
			}
			if from := t.GetIncludedFrom(); from != "" {
				marks = append(marks, "from "+from)
			}
			g.row("  "+strconv.Itoa(i+1), t.GetName(), t.GetKind(), t.GetTimeout().AsDuration().String(), "breaker "+t.GetBreaker(), strings.Join(marks, ", "))
		}
		g.write(w, "")
		for _, hidden := range phase.GetHidden() {
			_, _ = fmt.Fprintf(w, "  hidden: %s (%s)\n", cellText(hidden.GetExecution()), cellText(hidden.GetReason()))
		}
		if last := phase.GetLast(); last != nil {
			writeLast(w, last)
		} else if req.GetLast() && phase.GetExecution() != "" {
			_, _ = fmt.Fprintln(w, "  last run: none on this gateway")
		}
	}
}

func writeLast(w io.Writer, last *gatewaypb.LastRun) {
	outcome := last.GetOutcome()
	if last.GetShadow() {
		outcome = "would be " + outcome + " (shadow)"
	}
	_, _ = fmt.Fprintf(w, "  last run: %s  %s\n", cellText(stamp(last.GetTime())), cellText(outcome))
	for _, c := range last.GetDiff() {
		_, _ = fmt.Fprintf(w, "    %s %s", cellText(c.GetOp()), cellText(c.GetPath()))
		if c.GetBefore() != nil || c.GetAfter() != nil {
			_, _ = fmt.Fprintf(w, ": %s -> %s", jsonText(c.GetBefore()), jsonText(c.GetAfter()))
		}
		_, _ = fmt.Fprintln(w)
	}
}

// jsonText is a value as JSON on one line.
func jsonText(v *structpb.Value) string {
	if v == nil {
		return "(none)"
	}
	text, err := marshal(v)
	if err != nil {
		return "?"
	}
	return cellText(string(text))
}

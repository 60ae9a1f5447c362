package cli

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/execgate/execgate/configfile"
	gatewaypb "github.com/execgate/execgate/gen/execgate/v1"
)

const documentHelp = `FILE is YAML or JSON, one or more documents that describe targets and executions
by name; "-" reads standard input. execgate export writes such a file. What
signing_key_file names is read here, beside FILE, and sent along.`

// document reads FILE.
func (s *session) document(name string) (string, error) {
	text, err := readBounded(name, s.cmd.InOrStdin())
	if err != nil {
		return "", err
	}
	text, err = configfile.Inline(text, fileName(name), func(key string) ([]byte, error) {
		if !filepath.IsAbs(key) && name != "-" {
			key = filepath.Join(filepath.Dir(name), key)
		}
		return readBounded(key, nil)
	})
	if err != nil {
		return "", err
	}
	if strings.TrimSpace(string(text)) == "" {
		return "", &Failure{fmt.Errorf("%s is empty", fileName(name)), "with --prune an empty file would delete everything; execgate execution delete and execgate target delete do that by name"}
	}
	return string(text), nil
}

func fileName(name string) string {
	if name == "-" {
		return "standard input"
	}
	return name
}

// planTime is how long a large document may take: the gateway looks up the host
// names of all its URLs.
const planTime = time.Minute

func (p *program) newPlan() *cobra.Command {
	var o format
	var prune bool
	cmd := &cobra.Command{
		Use:   "plan FILE",
		Short: "Show what apply would change",
		Long:  "Compares a file with the configuration of the gateway, and changes nothing.\n" + documentHelp,
		Example: `  execgate plan gateway.yaml
  execgate export | execgate plan -`,
		Args: exactly("FILE"),
	}
	pruneFlag(cmd, &prune)
	return p.remote(cmd, &o, func(ctx context.Context, s *session, args []string) error {
		document, err := s.document(args[0])
		if err != nil {
			return err
		}
		s.patient(planTime)
		res, err := s.gateway.Plan(ctx, &gatewaypb.PlanRequest{Document: document, Prune: prune})
		if err != nil {
			return aboutFile(args[0], err)
		}
		return s.show(res, func(w io.Writer) { writePlan(w, res) })
	})
}

func pruneFlag(cmd *cobra.Command, prune *bool) {
	cmd.Flags().BoolVar(prune, "prune", false, "also delete targets and executions that the file does not name")
}

// aboutFile says which file the faults of an answer INVALID_ARGUMENT are about,
// in the form that editors follow: FILE:LINE.
func aboutFile(name string, err error) error {
	if status.Code(err) != codes.InvalidArgument {
		return err
	}
	var b strings.Builder
	for line := range strings.Lines(status.Convert(err).Message()) {
		if number, rest, ok := strings.Cut(strings.TrimPrefix(line, "line "), ":"); ok && strings.HasPrefix(line, "line ") {
			line = number + ":" + rest
			b.WriteString(fileName(name) + ":" + line)
			continue
		}
		b.WriteString(fileName(name) + ": " + line)
	}
	return &Failure{Err: &remoteError{b.String(), status.Convert(err)}}
}

func writePlan(w io.Writer, res *gatewaypb.PlanResponse) {
	if len(res.GetChanges()) == 0 {
		_, _ = fmt.Fprintf(w, "nothing to change, revision %d is what the file says\n", res.GetRevision())
		return
	}
	writeChanges(w, res.GetChanges())
	_, _ = fmt.Fprintf(w, "%s, on revision %d\n", count(res.GetChanges()), res.GetRevision())
}

// changeSigns are what a line of a change begins with.
var changeSigns = map[gatewaypb.ChangeKind]string{
	gatewaypb.ChangeKind_CHANGE_KIND_CREATE: "+",
	gatewaypb.ChangeKind_CHANGE_KIND_UPDATE: "~",
	gatewaypb.ChangeKind_CHANGE_KIND_DELETE: "-",
}

// writeChanges shows changes field by field.
func writeChanges(w io.Writer, changes []*gatewaypb.ItemChange) {
	for _, c := range changes {
		name := c.GetName()
		if name == "" {
			name = c.GetId()
		}
		sign := changeSigns[c.GetChange()]
		if sign == "" {
			sign = "?"
		}
		_, _ = fmt.Fprintf(w, "%s %s %s\n", sign, strings.ReplaceAll(cellText(c.GetKind()), "_", " "), cellText(name))
		if c.GetChange() == gatewaypb.ChangeKind_CHANGE_KIND_DELETE {
			continue // what is deleted is clear without its fields
		}
		for _, f := range c.GetFields() {
			switch {
			case f.GetBefore() == f.GetAfter(): // a secret, of which nothing is shown
				_, _ = fmt.Fprintf(w, "    %s: changed\n", cellText(f.GetField()))
			case f.GetBefore() == "":
				_, _ = fmt.Fprintf(w, "    %s: %s\n", cellText(f.GetField()), cellText(f.GetAfter()))
			case f.GetAfter() == "":
				_, _ = fmt.Fprintf(w, "    %s: %s -> (none)\n", cellText(f.GetField()), cellText(f.GetBefore()))
			default:
				_, _ = fmt.Fprintf(w, "    %s: %s -> %s\n", cellText(f.GetField()), cellText(f.GetBefore()), cellText(f.GetAfter()))
			}
		}
	}
}

// count says how many changes of each kind there are.
func count(changes []*gatewaypb.ItemChange) string {
	n := map[gatewaypb.ChangeKind]int{}
	for _, c := range changes {
		n[c.GetChange()]++
	}
	return fmt.Sprintf("%d to create, %d to update, %d to delete", n[gatewaypb.ChangeKind_CHANGE_KIND_CREATE],
		n[gatewaypb.ChangeKind_CHANGE_KIND_UPDATE], n[gatewaypb.ChangeKind_CHANGE_KIND_DELETE])
}

// isTerminal says whether somebody can be asked.
func isTerminal(r io.Reader) bool {
	file, ok := r.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}

// confirm asks a person, when there is one.
func (s *session) confirm(question string, yes bool) error {
	if yes || s.format != table || !isTerminal(s.cmd.InOrStdin()) {
		return nil
	}
	_, _ = fmt.Fprintf(s.cmd.ErrOrStderr(), "%s [y/N] ", question)
	answer, _ := bufio.NewReader(s.cmd.InOrStdin()).ReadString('\n')
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return nil
	}
	return &Failure{fmt.Errorf("nothing was changed"), ""}
}

func (p *program) newApply() *cobra.Command {
	var o format
	var prune, yes bool
	cmd := &cobra.Command{
		Use:   "apply FILE",
		Short: "Bring targets and executions to what a file says",
		Long: `Shows the plan, asks when a person is at the terminal, and makes all changes in
one revision or none. What is applied is what was shown: if somebody else
changed the configuration in between, nothing happens.
With -o json or yaml it asks nothing, and applies to whatever is there.
` + documentHelp,
		Example: `  execgate apply gateway.yaml
  execgate apply gateway.yaml --prune --yes`,
		Args: exactly("FILE"),
	}
	pruneFlag(cmd, &prune)
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return p.remote(cmd, &o, func(ctx context.Context, s *session, args []string) error {
		document, err := s.document(args[0])
		if err != nil {
			return err
		}
		s.patient(planTime)
		req := &gatewaypb.ApplyRequest{Document: document, Prune: prune}
		if s.format == table {
			plan, err := s.gateway.Plan(ctx, &gatewaypb.PlanRequest{Document: document, Prune: prune})
			if err != nil {
				return aboutFile(args[0], err)
			}
			writePlan(s.out(), plan)
			if len(plan.GetChanges()) == 0 {
				return nil
			}
			if err := s.confirm("Apply these changes?", yes); err != nil {
				return err
			}
			req.ExpectRevision = plan.GetRevision()
		}
		res, err := s.gateway.Apply(ctx, req)
		if status.Code(err) == codes.Aborted {
			return &Failure{fmt.Errorf("the configuration was changed by somebody else since the plan: %w", err), "nothing was applied; run it again to see the new plan"}
		}
		if err != nil {
			return aboutFile(args[0], err)
		}
		return s.show(res, func(w io.Writer) { _, _ = fmt.Fprintf(w, "applied as revision %d\n", res.GetRevision()) })
	})
}

func (p *program) newRollback() *cobra.Command {
	var o format
	var dry, yes bool
	cmd := &cobra.Command{
		Use:   "rollback REVISION",
		Short: "Make the configuration what it was at a revision",
		Long: `Shows what would change, asks when a person is at the terminal, and makes a new
revision with the content of the old one. execgate revisions lists them.`,
		Example: `  execgate rollback 41 --dry-run
  execgate rollback 41 --yes`,
		Args: exactly("REVISION"),
	}
	cmd.Flags().BoolVar(&dry, "dry-run", false, "only show what would change")
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return p.remote(cmd, &o, func(ctx context.Context, s *session, args []string) error {
		revision, err := strconv.ParseUint(args[0], 10, 64)
		if err != nil {
			return usage("%q is no revision; write a number, as execgate revisions shows them", args[0])
		}
		preview := dry || s.format == table
		var res *gatewaypb.RollbackResponse
		if preview {
			res, err = s.gateway.Rollback(ctx, &gatewaypb.RollbackRequest{Revision: revision, DryRun: true})
			if err != nil {
				return s.aboutRevision(ctx, err)
			}
		}
		if dry {
			return s.show(res, func(w io.Writer) { writeRollback(w, res) })
		}
		if preview {
			writeRollback(s.out(), res)
			if len(res.GetChanges()) == 0 {
				return nil
			}
			if err := s.confirm("Go back to revision "+args[0]+"?", yes); err != nil {
				return err
			}
		}
		if res, err = s.gateway.Rollback(ctx, &gatewaypb.RollbackRequest{Revision: revision}); err != nil {
			return s.aboutRevision(ctx, err)
		}
		return s.show(res, func(w io.Writer) {
			_, _ = fmt.Fprintf(w, "went back to revision %d, as revision %d\n", revision, res.GetRevision())
		})
	}, noWords)
}

func writeRollback(w io.Writer, res *gatewaypb.RollbackResponse) {
	if len(res.GetChanges()) == 0 {
		_, _ = fmt.Fprintf(w, "nothing to change, revision %d has the same content\n", res.GetRevision())
		return
	}
	writeChanges(w, res.GetChanges())
	_, _ = fmt.Fprintln(w, count(res.GetChanges()))
}

// aboutRevision says which revisions there are.
func (s *session) aboutRevision(ctx context.Context, err error) error {
	if code := status.Code(err); code != codes.FailedPrecondition && code != codes.NotFound && code != codes.InvalidArgument {
		return err
	}
	list, listErr := s.gateway.ListRevisions(ctx, &gatewaypb.ListRevisionsRequest{Limit: 1})
	if listErr != nil {
		return err
	}
	return &Failure{err, fmt.Sprintf("revisions %d to %d can be gone back to; execgate revisions lists them", list.GetOldest(), list.GetCurrent())}
}

func (p *program) newRevisions() *cobra.Command {
	var o format
	req := &gatewaypb.ListRevisionsRequest{}
	cmd := &cobra.Command{
		Use:     "revisions",
		Short:   "List accepted changes, newest first",
		Example: "  execgate revisions --limit 10\n  execgate revisions -o json | jq '.revisions[0].number'",
		Args:    cobra.NoArgs,
	}
	cmd.Flags().Uint32Var(&req.Limit, "limit", 20, "at most `N`, 1000 at most")
	cmd.Flags().Uint64Var(&req.Before, "before", 0, "only revisions below `REVISION`")
	return p.remote(cmd, &o, func(ctx context.Context, s *session, _ []string) error {
		if req.GetLimit() > pageSize {
			return usage("--limit is %d at most", pageSize)
		}
		res, err := s.gateway.ListRevisions(ctx, req)
		if err != nil {
			return err
		}
		return s.show(res, func(w io.Writer) {
			g := &grid{head: []string{"REVISION", "TIME", "ACTOR", "ACTION", "ITEMS"}}
			for _, r := range res.GetRevisions() {
				g.row(strconv.FormatUint(r.GetNumber(), 10), stamp(r.GetTime()), r.GetActor(), r.GetAction(), strconv.FormatUint(uint64(r.GetItems()), 10))
			}
			g.write(w, "no revisions")
		})
	}, noWords)
}

func (p *program) newAudit() *cobra.Command {
	var o format
	req := &gatewaypb.ListAuditRequest{}
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "Show who changed what, newest first",
		Example: `  execgate audit --resource crm
  execgate audit --actor ops --limit 5 -o json`,
		Args: cobra.NoArgs,
	}
	cmd.Flags().Uint32Var(&req.Limit, "limit", 20, "at most `N`, 1000 at most")
	cmd.Flags().Uint64Var(&req.Before, "before", 0, "only revisions below `REVISION`")
	cmd.Flags().StringVar(&req.Resource, "resource", "", "only changes of this target (`NAME` or id) or execution (id)")
	cmd.Flags().StringVar(&req.Actor, "actor", "", "only changes by this `NAME` of a token or subject")
	return p.remote(cmd, &o, func(ctx context.Context, s *session, _ []string) error {
		if req.GetLimit() > pageSize {
			return usage("--limit is %d at most", pageSize)
		}
		res, err := s.gateway.ListAudit(ctx, req)
		if err != nil {
			return err
		}
		return s.show(res, func(w io.Writer) {
			if len(res.GetEntries()) == 0 {
				_, _ = fmt.Fprintln(w, "no changes")
			}
			for _, e := range res.GetEntries() {
				_, _ = fmt.Fprintf(w, "revision %d  %s  %s  %s\n", e.GetRevision(), cellText(stamp(e.GetTime())), cellText(e.GetActor()), cellText(e.GetAction()))
				var b strings.Builder
				writeChanges(&b, e.GetChanges())
				for line := range strings.Lines(b.String()) {
					_, _ = fmt.Fprint(w, "  "+line)
				}
			}
		})
	}, noWords, flagWords("resource", func(ctx context.Context, c *client, prefix string) ([]string, error) {
		targets, err := someTargets(ctx, c, prefix)
		if err != nil {
			return nil, err
		}
		executions, err := someExecutions(ctx, c, prefix)
		return append(targets, executions...), err
	}))
}

package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/execgate/execgate/configfile"
	gatewaypb "github.com/execgate/execgate/gen/execgate/v1"
	"github.com/execgate/execgate/store"
)

// configRules are the rules of the methods that work on documents.
var configRules = map[string]rule{
	gatewaypb.GatewayService_Plan_FullMethodName:   {permGatewayRead, fields(gatewayPlan), false},
	gatewaypb.GatewayService_Apply_FullMethodName:  {permGatewayWrite, fields(gatewayApply), false},
	gatewaypb.GatewayService_Export_FullMethodName: {permGatewayRead, fields(gatewayExport), false},
	gatewaypb.GatewayService_Import_FullMethodName: {permGatewayWrite, fields(gatewayImport), false},
}

const (
	// maxFaults is how many faults a caller is told, and maxFaultBytes how long the text gets: it travels in a header.
	maxFaults     = 50
	maxFaultBytes = 6 << 10
)

func gatewayPlan(r *gatewaypb.PlanRequest) error { return checkDocument(r.GetDocument()) }

func gatewayApply(r *gatewaypb.ApplyRequest) error { return checkDocument(r.GetDocument()) }

// checkDocument bounds what is parsed, whatever the limit of a message is. What is in it has faults of its own.
func checkDocument(text string) error {
	if len(text) > maxImportBytes {
		return invalid("document: value length must be at most %d bytes", maxImportBytes)
	}
	return nil
}

// errURLsUnknown asks for another attempt: the plan needs to know more URLs than were judged.
var errURLsUnknown = errors.New("admin: not every URL of the document was judged")

// faultError is what a caller is told about a document.
func faultError(faults configfile.Faults) error {
	_ = faults.Err() // sorts
	var b strings.Builder
	for i, f := range faults {
		line := f.String()
		if i == maxFaults || b.Len()+len(line) > maxFaultBytes {
			fmt.Fprintf(&b, "\nand %d more", len(faults)-i)
			break
		}
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(line)
	}
	return &Error{codes.InvalidArgument, "", b.String()}
}

// wanted is a change that a document asks for.
type wanted struct {
	doc    *configfile.Document
	faults configfile.Faults // what Parse found
	prune  bool
	expect uint64
	action string
	// dryRun plans and writes nothing.
	dryRun bool
}

// want parses a document.
func want(text []byte, o configfile.ParseOptions) wanted {
	doc, err := configfile.Parse(text, o)
	w := wanted{doc: doc}
	errors.As(err, &w.faults)
	return w
}

// done is what came of it.
type done struct {
	plan     *planner
	revision uint64
	changes  []*gatewaypb.ItemChange
}

// faults are those of the document, by itself and against what is stored: of a document of which a part could not be
// read at all, the second would mislead.
func (d *done) faults(w wanted) configfile.Faults {
	if w.doc.Truncated {
		return w.faults
	}
	return append(slices.Clone(w.faults), d.plan.faults...)
}

// bring plans a change and, unless it is a dry run or something is wrong with the document, makes it in one revision. The
// faults are the caller's to look at.
func (c *core) bring(ctx context.Context, w wanted) (*done, error) {
	urls := make(map[string]error)
	for range 5 {
		read := c.store.Fresh
		if w.dryRun {
			read = c.read
		}
		s, err := read(ctx)
		if err != nil {
			return nil, err
		}
		if err := c.judgeURLs(ctx, unknownURLs(w.doc, s, urls), urls); err != nil {
			return nil, err
		}
		d, err := c.attempt(ctx, s, w, urls)
		if !errors.Is(err, errURLsUnknown) {
			return d, err
		}
	}
	return nil, errConflict
}

// attempt is bring with what is known of URLs.
func (c *core) attempt(ctx context.Context, s *store.State, w wanted, urls map[string]error) (*done, error) {
	d := new(done)
	plan := func(s *store.State) ([]store.Item, error) {
		if w.expect != 0 && w.expect != s.Revision() {
			return nil, movedOn(w.expect, s.Revision())
		}
		d.plan = c.newPlanner(s, w.prune, urls)
		d.plan.run(w.doc)
		d.revision = s.Revision()
		switch {
		case d.plan.missing:
			return nil, errURLsUnknown
		case len(w.faults)+len(d.plan.faults) > 0:
			return nil, nil
		}
		return d.plan.items.done()
	}
	var err error
	if w.dryRun {
		_, err = plan(s)
	} else {
		var after *store.State
		if after, err = c.store.Update(ctx, callerName(ctx), w.action, plan); err == nil {
			d.revision = after.Revision()
		} else if !expected(ctx, err) {
			err = &Error{codes.FailedPrecondition, "", fmt.Sprintf("the result cannot be used: %v", err)}
		}
	}
	if err != nil {
		return nil, err
	}
	d.changes = d.plan.describe(w.dryRun)
	return d, nil
}

// expected says whether an error of the store is one of its known ones, or was made here.
func expected(ctx context.Context, err error) bool {
	own := (*Error)(nil)
	return errors.As(err, &own) || errors.Is(err, errURLsUnknown) || errors.Is(err, store.ErrUnavailable) ||
		errors.Is(err, store.ErrConflict) || ctx.Err() != nil
}

func movedOn(expected, now uint64) error {
	return &Error{codes.Aborted, "", fmt.Sprintf("the configuration is at revision %d, not at %d: plan again", now, expected)}
}

// describe says what changes, without secrets. Executions show the names of their targets. In a plan that is not carried
// out, new targets have no id yet.
func (p *planner) describe(plan bool) []*gatewaypb.ItemChange {
	nameOf := func(id string) string {
		if name := p.named[id]; name != "" {
			return name
		}
		if t := p.state.Target(id); t != nil {
			return t.Name
		}
		return ""
	}
	changes := make([]*gatewaypb.ItemChange, 0, len(p.diff))
	for _, it := range p.diff {
		change := describeChange(it, nameOf)
		if change == nil {
			continue
		}
		if plan && (it.Kind == store.KindTarget || it.Kind == store.KindTargetPolicy) && p.state.Target(it.ID) == nil {
			change.Id = ""
		}
		if it.Kind == store.KindExecution {
			for _, f := range change.GetFields() {
				if f.GetField() == "targets" {
					f.Before, f.After = namesIn(f.GetBefore(), nameOf), namesIn(f.GetAfter(), nameOf)
				}
			}
		}
		changes = append(changes, change)
	}
	return changes
}

// namesIn turns a JSON list of target ids into one of names.
func namesIn(list string, nameOf func(string) string) string {
	var ids []string
	if list == "" || json.Unmarshal([]byte(list), &ids) != nil {
		return list
	}
	for i, id := range ids {
		if name := nameOf(id); name != "" {
			ids[i] = name
		}
	}
	quotedNames := make([]string, len(ids))
	for i, name := range ids {
		quotedNames[i] = quoted(name)
	}
	return "[" + strings.Join(quotedNames, ",") + "]"
}

// Plan says what Apply would change.
func (g *gateway) Plan(ctx context.Context, r *gatewaypb.PlanRequest) (*gatewaypb.PlanResponse, error) {
	w := want([]byte(r.GetDocument()), configfile.ParseOptions{})
	w.prune, w.dryRun = r.GetPrune(), true
	d, err := g.core.bring(ctx, w)
	if err != nil {
		return nil, err
	}
	if faults := d.faults(w); len(faults) > 0 {
		return nil, faultError(faults)
	}
	return &gatewaypb.PlanResponse{Changes: d.changes, Revision: d.revision}, nil
}

// Apply brings the configuration to what a document says.
func (g *gateway) Apply(ctx context.Context, r *gatewaypb.ApplyRequest) (*gatewaypb.ApplyResponse, error) {
	w := want([]byte(r.GetDocument()), configfile.ParseOptions{})
	w.prune, w.expect, w.action = r.GetPrune(), r.GetExpectRevision(), "Apply"
	d, err := g.core.bring(ctx, w)
	if err != nil {
		return nil, err
	}
	if faults := d.faults(w); len(faults) > 0 {
		return nil, faultError(faults)
	}
	return &gatewaypb.ApplyResponse{Changes: d.changes, Revision: d.revision}, nil
}

// ApplyFile applies a document that the operator of this process names, in the name of actor: with the faults of file by
// name, and with files for signing keys read by readFile. The error is configfile.Faults with everything that is wrong
// with the document, or wraps store.ErrUnavailable when the store is away. It returns the number of changes.
func (s *Server) ApplyFile(ctx context.Context, actor, file string, text []byte, readFile func(name string) ([]byte, error)) (int, error) {
	w := want(text, configfile.ParseOptions{File: file, ReadFile: readFile})
	w.action = "Apply"
	d, err := s.gateway.core.bring(withCaller(ctx, Caller{Name: actor}), w)
	if err != nil {
		return 0, err
	}
	return len(d.changes), d.faults(w).Err()
}

const (
	defaultExchangeTime = 30 * time.Second
	maxExchangeTime     = 10 * time.Minute
)

// exchangeTime reads the time that an exchange with a place outside may take.
func exchangeTime(text string) (time.Duration, error) {
	if text == "" {
		return defaultExchangeTime, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 || d > maxExchangeTime {
		return 0, invalid("timeout: value must be a duration like 30s, greater than 0s and at most %s", maxExchangeTime)
	}
	return d, nil
}

package admin

import (
	"context"
	"errors"
	"slices"
	"strings"
	"unicode"

	"github.com/execgate/execgate/conditions"
	"github.com/execgate/execgate/configfile"
	gatewaypb "github.com/execgate/execgate/gen/execgate/v1"
	"github.com/execgate/execgate/internal/strictyaml"
	"github.com/execgate/execgate/store"
)

// planner compares a document with a state: what differs becomes the items of one commit. It looks at the result as a
// whole, so that the order in a document says nothing. One planner makes one plan.
type planner struct {
	core  *core
	state *store.State
	prune bool
	// urls has what is known of the URLs that are not stored; one that it lacks is noted as missing.
	urls    map[string]error
	missing bool

	items    changes
	diff     []store.RevisionItem // what a reader will see, in that order
	verdicts []verdict            // of what the document names, in the order of the plan
	faults   configfile.Faults

	byName     map[string]*plannedTarget // by lower-cased name: those that will be there
	executions []*plannedExecution       // those of the document
	byID       map[string]*plannedExecution
	goneNames  map[string]bool // lower-cased names of targets that will be deleted
	goneIDs    map[string]bool // of executions
	named      map[string]string

	suggested int
}

// verdict is what a plan says of one thing that the document names.
type verdict struct {
	kind store.Kind
	name string
	line int
	// result is 0 for what stays as it is.
	result gatewaypb.ChangeKind
	faults configfile.Faults
}

// plannedTarget is a target that will be there.
type plannedTarget struct {
	id, name string
	doc      *configfile.Target // nil for one that the document does not name
}

// plannedExecution is an execution that the document names.
type plannedExecution struct {
	cond    conditions.Condition
	id      string
	doc     *configfile.Execution
	verdict int
	changed bool
}

// item is an item of a document.
type item interface {
	Line() int
	Broken() bool
	Fault(path, text, hint string) configfile.Fault
}

func (c *core) newPlanner(s *store.State, prune bool, urls map[string]error) *planner {
	// What the upstream has is asked for once.
	once := *c
	methods, services, known := c.schema()
	once.schema = func() ([]string, []string, bool) { return methods, services, known }
	types, typesKnown := c.eventTypes()
	once.eventTypes = func() ([]string, bool) { return types, typesKnown }
	return &planner{
		core: &once, state: s, prune: prune, urls: urls,
		byName: make(map[string]*plannedTarget), byID: make(map[string]*plannedExecution),
		goneNames: make(map[string]bool), goneIDs: make(map[string]bool), named: make(map[string]string),
	}
}

// run makes the plan. What is wrong with the document is in p.faults afterwards; then there is nothing to commit.
func (p *planner) run(doc *configfile.Document) {
	if p.prune && doc.Empty() && !doc.Truncated {
		p.faults = append(p.faults, configfile.Fault{
			Text: "the document is empty, and everything that it does not name would be deleted",
			Hint: "check that it is the right one; to delete everything on purpose, apply an export of an empty gateway (kind: Export, format: 1)",
		})
		return
	}
	targets := slices.SortedStableFunc(slices.Values(doc.Targets), func(a, b *configfile.Target) int {
		return strings.Compare(strings.ToLower(a.Name), strings.ToLower(b.Name))
	})
	for _, t := range targets {
		p.target(t)
	}
	p.remainingTargets()
	p.findExecutions(doc.Executions)
	for _, e := range p.executions {
		p.execution(e)
	}
	if p.prune && !doc.Truncated {
		p.delete()
	}
	p.checkResult()
	for _, v := range p.verdicts {
		p.faults = append(p.faults, v.faults...)
	}
	if len(p.items.items) > store.MaxCommitItems {
		p.faults = append(p.faults, configfile.Fault{Text: "too many changes for one revision", Hint: "apply the document in parts"})
	}
}

// begin notes an item of the document; faults are added to its verdict.
func (p *planner) begin(kind store.Kind, name string, in item) int {
	p.verdicts = append(p.verdicts, verdict{kind: kind, name: name, line: in.Line()})
	return len(p.verdicts) - 1
}

func (p *planner) fault(verdict int, in item, path, text, hint string) {
	v := &p.verdicts[verdict]
	v.faults = append(v.faults, in.Fault(path, text, hint))
}

// write adds a new value and what it was before.
func (p *planner) write(it store.Item, err error) {
	p.items.add(it, err)
	before, _ := p.state.Item(it.Kind, it.ID)
	p.diff = append(p.diff, store.RevisionItem{Kind: it.Kind, ID: it.ID, Before: before, After: it.Value})
}

// remainingTargets finds those that the document does not name: they stay, or go when the plan prunes.
func (p *planner) remainingTargets() {
	for _, t := range p.state.Targets() {
		name := strings.ToLower(t.Name)
		switch {
		case p.byName[name] != nil:
		case p.prune:
			p.goneNames[name] = true
		default:
			p.byName[name] = &plannedTarget{id: t.ID, name: t.Name}
		}
	}
}

// findExecutions finds which executions there will be, before any of them is looked at: they include one another.
func (p *planner) findExecutions(docs []*configfile.Execution) {
	first := make(map[string]*configfile.Execution)
	for _, doc := range docs {
		cond := withoutAlias(doc.Condition)
		e := &plannedExecution{cond: cond, doc: doc}
		if cond.Kind != 0 {
			e.id = cond.ID()
		}
		e.verdict = p.begin(store.KindExecution, e.id, doc)
		p.executions = append(p.executions, e)
		if e.id == "" {
			continue // it has a fault already
		}
		if other := first[e.id]; other != nil {
			p.fault(e.verdict, doc, "condition", "a second execution of this condition, the first is on line "+lineText(other), "keep one: there is at most one execution of a condition")
			continue
		}
		first[e.id], p.byID[e.id] = doc, e
	}
	slices.SortStableFunc(p.executions, func(a, b *plannedExecution) int { return strings.Compare(a.id, b.id) })
	if p.prune {
		for _, e := range p.state.Executions() {
			if p.byID[e.ID] == nil {
				p.goneIDs[e.ID] = true
			}
		}
	}
}

// will says whether there will be an execution with the id.
func (p *planner) will(id string) bool {
	return p.byID[id] != nil || p.state.Execution(id) != nil && !p.goneIDs[id]
}

// execution plans one execution of the document.
func (p *planner) execution(e *plannedExecution) {
	if e.id == "" || p.byID[e.id] != e {
		return
	}
	targets := p.resolve(e)
	includes := make([]string, len(e.doc.Includes))
	for i, c := range e.doc.Includes {
		includes[i] = withoutAlias(c).ID()
	}
	before := p.state.Execution(e.id)
	if before != nil && p.sameExecution(before, targets, includes) {
		p.stillWhole(e, before)
	} else {
		p.putExecution(e, before, targets, includes)
	}
	p.executionPolicy(e)
}

// resolve returns the ids of the targets that an execution names. One that there is not has a fault, and no id.
func (p *planner) resolve(e *plannedExecution) []string {
	ids := make([]string, 0, len(e.doc.Targets))
	seen := make(map[string]bool, len(e.doc.Targets))
	for i, name := range e.doc.Targets {
		lower, path := strings.ToLower(name), "targets["+itoa(i)+"]"
		t := p.byName[lower]
		switch {
		case name == "":
			p.fault(e.verdict, e.doc, path, "empty", "write the name of a target")
		case t == nil && p.goneNames[lower]:
			p.fault(e.verdict, e.doc, path, quoted(name)+" would be deleted, as the document does not define it", "define the target in the document, or remove it from the list")
		case t == nil:
			hint := "define the target in the document, or correct the name"
			if near := p.closestName(name); near != "" {
				hint = "did you mean " + near + "?"
			}
			p.fault(e.verdict, e.doc, path, "there is no target "+quoted(name), hint)
		case seen[lower]:
			p.fault(e.verdict, e.doc, path, quoted(name)+" is listed twice", "keep one")
		default:
			ids = append(ids, t.id)
		}
		seen[lower] = true
	}
	return ids
}

// closestName suggests the name of a target.
func (p *planner) closestName(name string) string {
	names := make([]string, 0, len(p.byName))
	for _, t := range p.byName {
		names = append(names, t.name)
	}
	slices.Sort(names)
	return p.closest(name, names)
}

// closest suggests one of few; nobody reads the suggestions of a long list of faults.
func (p *planner) closest(name string, known []string) string {
	if p.suggested++; len(known) > 5000 || len(name) > 200 || p.suggested > maxFaults {
		return ""
	}
	return strictyaml.Closest(name, known)
}

// sameExecution says whether the lists are those that are stored. A stored reference to a target that is not there
// cannot be named, and is passed over.
func (p *planner) sameExecution(before *store.Execution, targets, includes []string) bool {
	stored := before.Targets
	if slices.ContainsFunc(stored, func(id string) bool { return p.state.Target(id) == nil }) {
		stored = slices.DeleteFunc(slices.Clone(stored), func(id string) bool { return p.state.Target(id) == nil })
	}
	return slices.Equal(stored, targets) && slices.Equal(before.Includes, includes)
}

// stillWhole checks that nothing goes that an unchanged execution includes. (Its targets are found by name.)
func (p *planner) stillWhole(e *plannedExecution, before *store.Execution) {
	for i, id := range before.Includes {
		if p.goneIDs[id] {
			p.wouldGo(e, i, id)
		}
	}
}

func (p *planner) wouldGo(e *plannedExecution, include int, id string) {
	p.fault(e.verdict, e.doc, "includes["+itoa(include)+"]", quoted(id)+" would be deleted, as the document does not define it",
		"define the execution in the document, or remove it from the list")
}

// putExecution plans a change or a creation.
func (p *planner) putExecution(e *plannedExecution, before *store.Execution, targets, includes []string) {
	if _, err := p.core.existing(condition{Condition: e.cond}); err != nil {
		text, hint := p.unknownCondition(e.cond)
		p.fault(e.verdict, e.doc, "condition", text, hint)
	}
	if len(targets) > 0 && len(includes) > 0 {
		return // it has a fault already
	}
	seen := make(map[string]bool, len(includes))
	for i, id := range includes {
		path := "includes[" + itoa(i) + "]"
		switch {
		case id == e.id:
			p.fault(e.verdict, e.doc, path, "the execution includes itself", "remove it from the list")
		case seen[id]:
			p.fault(e.verdict, e.doc, path, quoted(id)+" is listed twice", "keep one")
		case p.goneIDs[id]:
			p.wouldGo(e, i, id)
		case !p.will(id):
			p.fault(e.verdict, e.doc, path, "there is no execution "+quoted(id), "define it in the document, or correct the id")
		case !sameKind(id, e.cond):
			p.fault(e.verdict, e.doc, path, quoted(id)+" is of another type", "include executions of "+e.cond.Kind.String()+" conditions only")
		}
		seen[id] = true
	}
	next := p.core.preparePut(p.state, e.id, &p.items)
	next.Targets, next.Includes = targets, includes
	p.write(next.Item())
	e.changed = true
	p.verdicts[e.verdict].result = changeOf(before != nil)
}

func sameKind(id string, cond conditions.Condition) bool {
	c, err := conditions.Parse(id)
	return err == nil && c.Kind == cond.Kind
}

func changeOf(exists bool) gatewaypb.ChangeKind {
	if exists {
		return gatewaypb.ChangeKind_CHANGE_KIND_UPDATE
	}
	return gatewaypb.ChangeKind_CHANGE_KIND_CREATE
}

// unknownCondition says what of a condition does not exist, and what may have been meant.
func (p *planner) unknownCondition(c conditions.Condition) (text, hint string) {
	methods, services, _ := p.core.schema()
	types, _ := p.core.eventTypes()
	known := map[conditions.Level][]string{
		conditions.Method: methods, conditions.Service: services, conditions.Name: p.core.functionNames(), conditions.EventType: types,
	}[c.Level]
	hint = "correct the name"
	if c.Level == conditions.Name {
		hint = "write one of: " + strings.Join(p.core.functionNames(), ", ")
	} else if near := p.closest(c.Value, known); near != "" {
		hint = "did you mean " + near + "?"
	}
	what := map[conditions.Level]string{
		conditions.Name: "there is no function ", conditions.EventType: "the upstream has no event type ",
		conditions.Group: "the upstream has no event types of the group ",
	}[c.Level]
	if what == "" {
		what = "the upstream has no " + c.Level.String() + " "
	}
	return what + quoted(c.Value), hint
}

// delete plans the deletion of what the document does not name: executions first.
func (p *planner) delete() {
	for _, e := range p.state.Executions() {
		if p.goneIDs[e.ID] {
			p.core.buryExecution(p.state, e, &p.items)
			p.deleted(store.KindExecution, e.ID)
			p.deleted(store.KindExecutionPolicy, e.ID)
		}
	}
	for _, t := range p.state.Targets() {
		if p.goneNames[strings.ToLower(t.Name)] {
			p.core.buryTarget(p.state, t, &p.items)
			p.deleted(store.KindTarget, t.ID)
			p.deleted(store.KindTargetPolicy, t.ID)
		}
	}
}

// deleted notes that an item goes, for the reader.
func (p *planner) deleted(kind store.Kind, id string) {
	if before, ok := p.state.Item(kind, id); ok {
		p.diff = append(p.diff, store.RevisionItem{Kind: kind, ID: id, Before: before})
	}
}

// checkResult checks the includes of the configuration that there would be: of what changes, and of what includes it.
func (p *planner) checkResult() {
	if p.items.err != nil {
		return
	}
	var touched []*plannedExecution
	for _, e := range p.executions {
		if e.changed && (len(e.doc.Includes) > 0 || len(p.state.IncludedBy(e.id)) > 0) {
			touched = append(touched, e)
		}
	}
	if len(touched) == 0 {
		return
	}
	next, err := p.state.Apply(p.state.Revision()+1, p.items.items)
	if err != nil {
		return // it has faults already
	}
	for _, e := range touched {
		text := chainFault(checkReferences(next, e.cond, nil, next.Execution(e.id).Includes))
		for _, above := range next.IncludedBy(e.id) {
			if text != "" {
				break
			}
			// What the document itself says of the one above is its own fault.
			if cond, err := conditions.Parse(above); err == nil && (p.byID[above] == nil || !p.byID[above].changed) {
				if text = chainFault(checkReferences(next, cond, nil, next.Execution(above).Includes)); text != "" {
					text = "included by " + quoted(above) + ": " + text
				}
			}
		}
		if text != "" {
			p.fault(e.verdict, e.doc, "includes", text, "an execution, what it includes, and what that includes: more cannot be, and no circles")
		}
	}
}

// chainFault says in words what is wrong with a chain of includes; "" for what is found elsewhere.
func chainFault(err error) string {
	switch {
	case errors.Is(err, errIncludeDepth):
		return "the chain of includes is longer than 3 executions"
	case errors.Is(err, errIncludedLoop), errors.Is(err, errIncludeCycle):
		return "the includes go in a circle"
	}
	return ""
}

// unknownURLs are the URLs of a document that the targets of those names do not have yet.
func unknownURLs(doc *configfile.Document, s *store.State, known map[string]error) []string {
	var urls []string
	seen := make(map[string]bool)
	for _, t := range doc.Targets {
		if _, ok := known[t.URL]; ok || seen[t.URL] || t.URL == "" {
			continue
		}
		if before := s.TargetByName(t.Name); before == nil || before.Endpoint != t.URL {
			seen[t.URL] = true
			urls = append(urls, t.URL)
		}
	}
	return urls
}

// judgeURLs asks for each URL whether it may be called. It can resolve names, several at once.
func (c *core) judgeURLs(ctx context.Context, urls []string, into map[string]error) error {
	if c.checkURL == nil {
		for _, u := range urls {
			into[u] = nil
		}
		return nil
	}
	const workers = 16
	type judged struct {
		url string
		err error
	}
	work, results := make(chan string), make(chan judged)
	for range min(workers, len(urls)) {
		go func() {
			for u := range work {
				var err error
				if checkAbsoluteURL(u) == nil { // otherwise there is a fault in any case
					err = c.checkURL(ctx, u)
				}
				results <- judged{u, err}
			}
		}()
	}
	go func() {
		defer close(work)
		for _, u := range urls {
			work <- u
		}
	}()
	for range urls {
		r := <-results
		into[r.url] = r.err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

// printable says whether a key can be shown and typed on one line.
func printable(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return unicode.IsControl(r) })
}

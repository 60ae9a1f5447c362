package admin

import (
	"errors"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/execgate/execgate/configfile"
	gatewaypb "github.com/execgate/execgate/gen/execgate/v1"
	"github.com/execgate/execgate/policy"
	"github.com/execgate/execgate/store"
)

// policyFields are the names of all fields of a policy message that a reset knows, into nested messages where they can
// be reset one by one: what this version does not know is left alone.
func policyFields(m protoreflect.MessageDescriptor, check func(names []string) error) []string {
	var names []string
	for i := range m.Fields().Len() {
		f := m.Fields().Get(i)
		name := string(f.Name())
		var nested []string
		if f.Message() != nil && !f.IsList() && !f.IsMap() {
			for j := range f.Message().Fields().Len() {
				if inner := name + "." + string(f.Message().Fields().Get(j).Name()); check([]string{inner}) == nil {
					nested = append(nested, inner)
				}
			}
		}
		switch {
		case len(nested) > 0:
			names = append(names, nested...)
		case check([]string{name}) == nil:
			names = append(names, name)
		}
	}
	return names
}

var (
	targetPolicyFields    = policyFields((*gatewaypb.TargetPolicy)(nil).ProtoReflect().Descriptor(), policy.CheckTargetFields)
	executionPolicyFields = policyFields((*gatewaypb.ExecutionPolicy)(nil).ProtoReflect().Descriptor(), policy.CheckExecutionFields)
)

// targetPolicy plans what is said of a target: exactly what the document says.
func (p *planner) targetPolicy(v int, doc *configfile.Target, id string) {
	before, err := targetPolicy(p.state, id)
	if err != nil {
		p.fault(v, doc, "policy", err.Error(), "reset the policy of the target first")
		return
	}
	if before == nil {
		before = new(policy.Target)
	}
	after := before.Clone()
	if err := after.Reset(targetPolicyFields...); err != nil {
		p.fault(v, doc, "policy", err.Error(), "leave the policy out")
		return
	}
	if doc.Policy != nil {
		change, err := targetPolicyIn(doc.Policy)
		if err == nil {
			err = keepSecrets(change, before)
		}
		if err != nil {
			p.fault(v, doc, "policy", policyText(err), "write the value")
			return
		}
		after.Merge(change)
	}
	if after.Same(before) {
		return
	}
	if err := validTargetPolicy(after); err != nil {
		p.policyFaults(v, doc, err)
		return
	}
	after.Revision, after.ChangedAt = p.state.Revision()+1, p.core.changeTime(before.ChangedAt)
	p.writePolicy(v, store.KindTargetPolicy, id, after)
}

// executionPolicy plans what is said of an execution.
func (p *planner) executionPolicy(e *plannedExecution) {
	before, err := executionPolicy(p.state, e.id)
	if err != nil {
		p.fault(e.verdict, e.doc, "policy", err.Error(), "reset the policy of the execution first")
		return
	}
	if before == nil {
		before = new(policy.Execution)
	}
	after := before.Clone()
	if err := after.Reset(executionPolicyFields...); err != nil {
		p.fault(e.verdict, e.doc, "policy", err.Error(), "leave the policy out")
		return
	}
	if in := e.doc.Policy; in != nil {
		after.Merge(executionPolicyIn(in))
	}
	if after.Same(before) {
		return
	}
	if err := after.Validate(); err != nil {
		p.policyFaults(e.verdict, e.doc, err)
		return
	}
	after.Revision, after.ChangedAt = p.state.Revision()+1, p.core.changeTime(before.ChangedAt)
	p.writePolicy(e.verdict, store.KindExecutionPolicy, e.id, after)
}

func (p *planner) writePolicy(v int, kind store.Kind, id string, after interface {
	Empty() bool
	Encode() ([]byte, error)
},
) {
	items, err := policyItem(kind, id, after)
	for _, it := range items {
		p.write(it, nil)
	}
	p.items.err = errors.Join(p.items.err, err)
	if p.verdicts[v].result == gatewaypb.ChangeKind_CHANGE_KIND_UNSPECIFIED {
		p.verdicts[v].result = gatewaypb.ChangeKind_CHANGE_KIND_UPDATE
	}
}

// policyFaults are the faults of a policy, one a line: "breaker.window: ...".
func (p *planner) policyFaults(v int, doc item, err error) {
	for line := range strings.SplitSeq(err.Error(), "\n") {
		path, text := "policy", line
		if field, rest, ok := strings.Cut(line, ": "); ok && !strings.ContainsAny(field, ` "`) {
			path, text = "policy."+field, rest
		}
		p.fault(v, doc, path, text, "correct it, or leave it out: the default is then in force")
	}
}

func policyText(err error) string {
	return strings.TrimPrefix(strings.TrimPrefix(err.Error(), "invalid "), "policy: ")
}

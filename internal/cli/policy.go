package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	gatewaypb "github.com/execgate/execgate/gen/execgate/v1"
	"github.com/execgate/execgate/internal/strictyaml"
)

const policyFieldHelp = `A FIELD is named as in JSON or as in the API, with dots between levels. A VALUE
is YAML; of a list, also words with commas between. @FILE takes the value from
a file, as text, of a list line by line: for secrets, which have no place in a
command line.`

// policyKind is what the policies of targets and those of executions have in
// common on the command line.
type policyKind struct {
	noun, arg string
	examples  [2]string // of set and reset
	names     completer
	message   func() proto.Message // an empty policy
	id        func(arg string) (string, error)
	get       func(ctx context.Context, s *session, id string) (proto.Message, policyAnswer, error)
	update    func(ctx context.Context, s *session, id string, policy proto.Message) (proto.Message, error)
	reset     func(ctx context.Context, s *session, id string, fields []string) (proto.Message, error)
	unknown   func(ctx context.Context, s *session, id string) error
}

// policyAnswer is a policy as it was set, and as it is in force.
type policyAnswer struct{ set, effective proto.Message }

func (p *program) newTargetPolicy() *cobra.Command {
	return p.newPolicy(&policyKind{
		noun: "target", arg: "NAME",
		examples: [2]string{
			"  execgate target policy set crm max_concurrency=8 breaker.open_for=30s allowed_hosts=crm.example\n" +
				"  execgate target policy set crm headers.X-Api-Key=@key.txt",
			"  execgate target policy reset crm breaker",
		},
		names:   someTargets,
		message: func() proto.Message { return &gatewaypb.TargetPolicy{} },
		id:      func(arg string) (string, error) { return arg, nil },
		get: func(ctx context.Context, s *session, id string) (proto.Message, policyAnswer, error) {
			res, err := s.gateway.GetTargetPolicy(ctx, &gatewaypb.GetTargetPolicyRequest{Id: id})
			return res, policyAnswer{res.GetPolicy(), res.GetEffective()}, err
		},
		update: func(ctx context.Context, s *session, id string, policy proto.Message) (proto.Message, error) {
			return s.gateway.UpdateTargetPolicy(ctx, &gatewaypb.UpdateTargetPolicyRequest{Id: id, Policy: policy.(*gatewaypb.TargetPolicy)})
		},
		reset: func(ctx context.Context, s *session, id string, fields []string) (proto.Message, error) {
			return s.gateway.ResetTargetPolicy(ctx, &gatewaypb.ResetTargetPolicyRequest{Id: id, Fields: fields})
		},
		unknown: func(ctx context.Context, s *session, id string) error { return s.unknownTarget(ctx, id) },
	})
}

func (p *program) newExecutionPolicy() *cobra.Command {
	return p.newPolicy(&policyKind{
		noun: "execution", arg: "ID",
		examples: [2]string{
			"  execgate execution policy set request/zitadel.user.v2.UserService mode=shadow",
			"  execgate execution policy reset request/zitadel.user.v2.UserService",
		},
		names:   someExecutions,
		message: func() proto.Message { return &gatewaypb.ExecutionPolicy{} },
		id: func(arg string) (string, error) {
			c, err := executionID(arg)
			return c.ID(), err
		},
		get: func(ctx context.Context, s *session, id string) (proto.Message, policyAnswer, error) {
			res, err := s.gateway.GetExecutionPolicy(ctx, &gatewaypb.GetExecutionPolicyRequest{Id: id})
			return res, policyAnswer{res.GetPolicy(), res.GetEffective()}, err
		},
		update: func(ctx context.Context, s *session, id string, policy proto.Message) (proto.Message, error) {
			return s.gateway.UpdateExecutionPolicy(ctx, &gatewaypb.UpdateExecutionPolicyRequest{Id: id, Policy: policy.(*gatewaypb.ExecutionPolicy)})
		},
		reset: func(ctx context.Context, s *session, id string, fields []string) (proto.Message, error) {
			return s.gateway.ResetExecutionPolicy(ctx, &gatewaypb.ResetExecutionPolicyRequest{Id: id, Fields: fields})
		},
		unknown: func(ctx context.Context, s *session, id string) error { return s.unknownExecution(ctx, id) },
	})
}

func (p *program) newPolicy(k *policyKind) *cobra.Command {
	long := "What ZITADEL's API cannot say of " + k.noun + "s. What is not set is as the gateway's\nconfiguration says.\n\nFields:\n" +
		fieldList(k.message().ProtoReflect().Descriptor())
	return group(&cobra.Command{Use: "policy", Short: "Read and change the policies of " + k.noun + "s", Long: long},
		p.newPolicyGet(k), p.newPolicySet(k), p.newPolicyReset(k))
}

// fieldList shows the fields of a message, one on a line.
func fieldList(m protoreflect.MessageDescriptor) string {
	var b strings.Builder
	var walk func(m protoreflect.MessageDescriptor, prefix string)
	walk = func(m protoreflect.MessageDescriptor, prefix string) {
		for i := range m.Fields().Len() {
			f := m.Fields().Get(i)
			name := prefix + string(f.Name())
			switch inner := f.Message(); {
			case inner != nil && !f.IsMap() && only(inner) == nil && inner.ParentFile().Package() == m.ParentFile().Package():
				walk(inner, name+".")
			default:
				b.WriteString("  " + name + "\n")
			}
		}
	}
	walk(m, "")
	return strings.TrimRight(b.String(), "\n")
}

// only returns the field of a message that is nothing but a wrapper around a
// list or a map, nil for any other message.
func only(m protoreflect.MessageDescriptor) protoreflect.FieldDescriptor {
	if m == nil || m.Fields().Len() != 1 {
		return nil
	}
	if f := m.Fields().Get(0); f.IsList() || f.IsMap() {
		return f
	}
	return nil
}

func (p *program) newPolicyGet(k *policyKind) *cobra.Command {
	var o format
	cmd := &cobra.Command{
		Use: "get " + k.arg, Short: "Show a policy: what was set, and what is in force", Args: exactly(k.arg),
	}
	return p.remote(cmd, &o, func(ctx context.Context, s *session, args []string) error {
		id, err := k.id(args[0])
		if err != nil {
			return err
		}
		res, policy, err := k.get(ctx, s, id)
		if err != nil {
			return unknown(err, func() error { return k.unknown(ctx, s, id) })
		}
		return s.show(res, func(w io.Writer) {
			g := &grid{}
			policyRows(g, policy.set, policy.effective)
			g.write(w, "everything as the gateway's configuration says")
		})
	}, words(1, k.names))
}

func (p *program) newPolicySet(k *policyKind) *cobra.Command {
	var o format
	cmd := &cobra.Command{
		Use:     "set " + k.arg + " FIELD=VALUE...",
		Short:   "Change fields of a policy",
		Long:    "Changes the given fields, and leaves the others as they are.\n" + policyFieldHelp,
		Example: k.examples[0],
		Args:    cobra.MinimumNArgs(2),
	}
	return p.remote(cmd, &o, func(ctx context.Context, s *session, args []string) error {
		id, err := k.id(args[0])
		if err != nil {
			return err
		}
		policy := k.message()
		if err := assign(policy, args[1:]); err != nil {
			return err
		}
		res, err := k.update(ctx, s, id, policy)
		if err != nil {
			return unknown(err, func() error { return k.unknown(ctx, s, id) })
		}
		return s.show(res, func(w io.Writer) { _, _ = fmt.Fprintf(w, "policy of %s %s set\n", k.noun, cellText(id)) })
	}, policyWords(k, "="))
}

func (p *program) newPolicyReset(k *policyKind) *cobra.Command {
	var o format
	cmd := &cobra.Command{
		Use:     "reset " + k.arg + " [FIELD...]",
		Short:   "Go back to the defaults",
		Long:    "Goes back to the defaults, of the given fields or of all.",
		Example: k.examples[1],
		Args:    atLeastOne(k.arg),
	}
	return p.remote(cmd, &o, func(ctx context.Context, s *session, args []string) error {
		id, err := k.id(args[0])
		if err != nil {
			return err
		}
		fields := k.message().ProtoReflect().Descriptor().Fields()
		for _, name := range args[1:] {
			if findField(fields, name) == nil {
				return unknownField(fields, name)
			}
		}
		res, err := k.reset(ctx, s, id, args[1:])
		if err != nil {
			return unknown(err, func() error { return k.unknown(ctx, s, id) })
		}
		return s.show(res, func(w io.Writer) { _, _ = fmt.Fprintf(w, "policy of %s %s reset\n", k.noun, cellText(id)) })
	}, policyWords(k, ""))
}

// policyWords completes the name, then fields.
func policyWords(k *policyKind, suffix string) option {
	return func(cmd *cobra.Command, c *connection) {
		words(1, k.names)(cmd, c)
		dynamic := cmd.ValidArgsFunction
		cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 0 {
				return dynamic(cmd, args, prefix)
			}
			var names []string
			for line := range strings.Lines(fieldList(k.message().ProtoReflect().Descriptor())) {
				if name := strings.TrimSpace(line) + suffix; strings.HasPrefix(name, prefix) {
					names = append(names, name)
				}
			}
			return names, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
		}
	}
}

func findField(fields protoreflect.FieldDescriptors, name string) protoreflect.FieldDescriptor {
	if f := fields.ByName(protoreflect.Name(name)); f != nil {
		return f
	}
	return fields.ByJSONName(name)
}

func unknownField(fields protoreflect.FieldDescriptors, name string) error {
	var names []string
	for i := range fields.Len() {
		names = append(names, string(fields.Get(i).Name()))
	}
	if near := strictyaml.Closest(name, names); near != "" {
		return usage("there is no field %q; did you mean %s?", name, near)
	}
	return usage("there is no field %q; there are %s", name, strings.Join(names, ", "))
}

// assign sets the fields of an empty message as "path=value" words say. Errors
// name the field and never the value, which may be a secret.
func assign(message proto.Message, words []string) error {
	tree := map[string]any{}
	for _, word := range words {
		path, text, ok := strings.Cut(word, "=")
		if !ok || path == "" {
			return usage("%q has not the form FIELD=VALUE", path)
		}
		verbatim := false
		if file, isFile := strings.CutPrefix(text, "@"); isFile {
			secret, err := readSecret(file)
			if err != nil {
				return fmt.Errorf("%s: %w", path, err)
			}
			text, verbatim = secret, true
		}
		if err := putValue(tree, message.ProtoReflect().Descriptor(), path, path, text, verbatim); err != nil {
			return err
		}
	}
	asText, err := json.Marshal(tree)
	if err != nil {
		return usage("the values cannot be written as JSON")
	}
	for _, word := range words { // one by one first, to name the field at fault
		path, _, _ := strings.Cut(word, "=")
		top, _, _ := strings.Cut(path, ".")
		f := findField(message.ProtoReflect().Descriptor().Fields(), top)
		one, err := json.Marshal(map[string]any{f.JSONName(): tree[f.JSONName()]})
		if err != nil {
			return usage("%s: not a value for this field", path)
		}
		if err := protojson.Unmarshal(one, message.ProtoReflect().New().Interface()); err != nil {
			return usage("%s: not a value for this field (%s)", path, kindOf(f))
		}
	}
	return protojson.Unmarshal(asText, message)
}

// putValue puts a value into the tree of a JSON object.
func putValue(tree map[string]any, m protoreflect.MessageDescriptor, whole, path, text string, verbatim bool) error {
	name, rest, deeper := strings.Cut(path, ".")
	f := findField(m.Fields(), name)
	if f == nil {
		return unknownField(m.Fields(), name)
	}
	if w := only(f.Message()); w != nil && !f.IsMap() && !f.IsList() {
		// hosts=a,b for hosts.hosts=a,b; headers.X=y for headers.values.X=y.
		inner, _ := tree[f.JSONName()].(map[string]any)
		if inner == nil {
			inner = map[string]any{}
			tree[f.JSONName()] = inner
		}
		first, _, _ := strings.Cut(rest, ".")
		if deeper && findField(f.Message().Fields(), first) != nil && first != "" {
			return putValue(inner, f.Message(), whole, rest, text, verbatim)
		}
		sub := string(w.Name())
		if deeper {
			sub += "." + rest
		}
		return putValue(inner, f.Message(), whole, sub, text, verbatim)
	}
	switch {
	case f.IsMap() && deeper:
		inner, _ := tree[f.JSONName()].(map[string]any)
		if inner == nil {
			inner = map[string]any{}
			tree[f.JSONName()] = inner
		}
		inner[rest] = text
		return nil
	case deeper && (f.Message() == nil || f.IsList()):
		return usage("%s: %s has no fields of its own", whole, name)
	case deeper:
		inner, _ := tree[f.JSONName()].(map[string]any)
		if inner == nil {
			inner = map[string]any{}
			tree[f.JSONName()] = inner
		}
		return putValue(inner, f.Message(), whole, rest, text, verbatim)
	}
	value, err := fieldValue(f, text, verbatim)
	if err != nil {
		return usage("%s: %v", whole, err)
	}
	tree[f.JSONName()] = value
	return nil
}

// fieldValue reads the text of a value.
func fieldValue(f protoreflect.FieldDescriptor, text string, verbatim bool) (any, error) {
	switch {
	case f.Message() != nil && !f.IsMap() && f.Message().FullName() == "google.protobuf.Duration":
		d, err := time.ParseDuration(text)
		if err != nil {
			return nil, errors.New("not a duration; write a number with its unit, like 500ms, 30s or 2m")
		}
		return strconv.FormatFloat(d.Seconds(), 'f', -1, 64) + "s", nil
	case f.IsList() && (verbatim || !strings.HasPrefix(strings.TrimSpace(text), "[")):
		list := []any{}
		if verbatim {
			for line := range strings.Lines(text) {
				if line = strings.TrimRight(line, "\r\n"); line != "" {
					list = append(list, line)
				}
			}
			return list, nil
		}
		for word := range strings.SplitSeq(text, ",") {
			if word = strings.TrimSpace(word); word != "" {
				list = append(list, word)
			}
		}
		return list, nil
	case f.Kind() == protoreflect.EnumKind && !f.IsList():
		return enumValue(f.Enum(), text), nil
	case f.Kind() == protoreflect.StringKind && !f.IsList():
		return text, nil
	}
	var value any
	if err := yaml.Unmarshal([]byte(text), &value); err != nil {
		return nil, fmt.Errorf("not a value for this field (%s)", kindOf(f))
	}
	return value, nil
}

// enumValue lets "shadow" stand for EXECUTION_MODE_SHADOW.
func enumValue(e protoreflect.EnumDescriptor, text string) string {
	for i := range e.Values().Len() {
		name := string(e.Values().Get(i).Name())
		if strings.EqualFold(name, text) || strings.HasSuffix(name, "_"+strings.ToUpper(text)) && text != "" {
			return name
		}
	}
	return text
}

// kindOf says what a field wants.
func kindOf(f protoreflect.FieldDescriptor) string {
	switch {
	case f.IsMap():
		return "names and values"
	case f.IsList():
		return "a list"
	case f.Enum() != nil:
		var names []string
		for i := range f.Enum().Values().Len() {
			names = append(names, string(f.Enum().Values().Get(i).Name()))
		}
		return "one of " + strings.Join(names, ", ")
	case f.Message() != nil && f.Message().FullName() == "google.protobuf.Duration":
		return "a duration like 30s"
	case f.Message() != nil:
		return "fields of its own"
	case f.Kind() == protoreflect.BoolKind:
		return "true or false"
	case f.Kind() == protoreflect.StringKind:
		return "text"
	default:
		return "a number"
	}
}

// policyRows adds what is in force, field by field, and marks what was set.
func policyRows(g *grid, set, effective proto.Message) {
	own := flat(set)
	all := flat(effective)
	if all == nil {
		all = own
	}
	for path, value := range own {
		if _, ok := all[path]; !ok {
			all[path] = value
		}
	}
	paths := make([]string, 0, len(all))
	for path := range all {
		paths = append(paths, path)
	}
	sort.Strings(paths)
	for _, path := range paths {
		mark := "default"
		if _, ok := own[path]; ok {
			mark = "set"
		}
		g.row(path, all[path], mark)
	}
}

// flat is the JSON form of a message as paths and values.
func flat(m proto.Message) map[string]string {
	if m == nil || !m.ProtoReflect().IsValid() {
		return nil
	}
	text, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(m)
	if err != nil {
		return nil
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var tree map[string]any
	if d.Decode(&tree) != nil {
		return nil
	}
	out := map[string]string{}
	var walk func(m protoreflect.MessageDescriptor, prefix string, v any)
	walk = func(m protoreflect.MessageDescriptor, prefix string, v any) {
		switch v := v.(type) {
		case map[string]any:
			for name, inner := range v {
				path := name
				if prefix != "" {
					path = prefix + "." + name
				}
				if m == nil || m.IsMapEntry() || findField(m.Fields(), name) == nil { // names of a map, not of fields
					walk(nil, path, inner)
					continue
				}
				f := findField(m.Fields(), name)
				if e := f.Enum(); e != nil {
					inner = enumWord(fmt.Sprint(inner), strings.TrimSuffix(string(e.Values().Get(0).Name()), "UNSPECIFIED"))
				}
				if only(m) != nil {
					path = prefix // as assign takes it
				}
				walk(f.Message(), path, inner)
			}
		case []any:
			var parts []string
			for _, item := range v {
				parts = append(parts, fmt.Sprint(item))
			}
			out[prefix] = strings.Join(parts, ", ")
		default:
			out[prefix] = fmt.Sprint(v)
		}
	}
	walk(m.ProtoReflect().Descriptor(), "", tree)
	return out
}

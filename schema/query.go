package schema

import (
	"fmt"
	"net/url"
	"slices"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/execgate/execgate/schema/transcode"
)

// queryPair is one "key=value" of a query, as it was sent and what it means.
type queryPair struct {
	raw        string
	key, value string
	// leaf names the field that the pair sets, as dotted schema names with the key
	// of a map in brackets; empty for a parameter that is no field.
	leaf string
}

// parseQuery splits a raw query in order.
func parseQuery(raw string) ([]queryPair, error) {
	if raw == "" {
		return nil, nil
	}
	var pairs []queryPair
	for _, part := range strings.Split(raw, "&") {
		p := queryPair{raw: part}
		if part != "" {
			if strings.Contains(part, ";") {
				return nil, fmt.Errorf("a semicolon in the query")
			}
			key, value, _ := strings.Cut(part, "=")
			var err1, err2 error
			p.key, err1 = url.QueryUnescape(key)
			p.value, err2 = url.QueryUnescape(value)
			if err1 != nil || err2 != nil {
				return nil, fmt.Errorf("malformed query")
			}
		}
		pairs = append(pairs, p)
	}
	return pairs, nil
}

// queryTarget is the field that a query key means.
type queryTarget struct {
	fields []protoreflect.FieldDescriptor
	mapKey string
	isMap  bool
}

// resolveKey finds the field of a query key such as "a.b" or "labels[x]".
// Nothing found is no error: the parameter is somebody else's.
func resolveKey(md protoreflect.MessageDescriptor, key string) (queryTarget, bool) {
	if fields, err := resolvePath(md, key); err == nil {
		return queryTarget{fields: fields}, true
	}
	open := strings.LastIndexByte(key, '[')
	if open < 0 || !strings.HasSuffix(key, "]") {
		return queryTarget{}, false
	}
	fields, err := resolvePath(md, key[:open])
	if err != nil {
		return queryTarget{}, false
	}
	return queryTarget{fields: fields, mapKey: key[open+1 : len(key)-1], isMap: true}, true
}

func (q queryTarget) field() protoreflect.FieldDescriptor { return q.fields[len(q.fields)-1] }

func (q queryTarget) leaf() string {
	name := fieldPath(q.fields)
	if q.isMap {
		name += "[" + q.mapKey + "]"
	}
	return name
}

// excluded reports whether a field path is said elsewhere: by a path variable or
// by the body.
func (r *rule) excluded(path string) bool {
	if r.body != nil && (path == string(r.body.Name()) || strings.HasPrefix(path, string(r.body.Name())+".")) {
		return true
	}
	for name := range r.bound {
		if path == name || strings.HasPrefix(path, name+".") {
			return true
		}
	}
	return false
}

// populateQuery sets the fields that the pairs name, and notes in the pairs which
// ones they are.
func (r *rule) populateQuery(m transcode.Node, pairs []queryPair) error {
	spelling := map[string]string{}
	counts := map[string]int{}
	for i := range pairs {
		p := &pairs[i]
		if p.key == "" {
			continue
		}
		target, ok := resolveKey(m.Descriptor(), p.key)
		if !ok || r.excluded(fieldPath(target.fields)) {
			continue
		}
		leaf := target.leaf()
		if known, ok := spelling[leaf]; ok && known != p.key {
			return fmt.Errorf("query field %q is set under two names", fieldPath(target.fields))
		}
		spelling[leaf] = p.key
		counts[leaf]++
		if err := populate(m, target, p.value, counts[leaf] > 1); err != nil {
			return fmt.Errorf("query field %q: %w", fieldPath(target.fields), err)
		}
		p.leaf = leaf
	}
	return nil
}

// populate sets one field from its text form. again says that the same field was
// set before by the same source.
func populate(m transcode.Node, target queryTarget, s string, again bool) error {
	for i, fd := range target.fields {
		if of := fd.ContainingOneof(); of != nil && !of.IsSynthetic() {
			if set := m.WhichOneof(of); set != nil && set.Number() != fd.Number() {
				return fmt.Errorf("another field of oneof %q is set", of.Name())
			}
		}
		if i < len(target.fields)-1 {
			m = m.Mutable(fd)
		}
	}
	fd := target.field()
	switch {
	case fd.IsMap() != target.isMap, target.isMap && again:
		return errText
	case fd.IsMap():
		key, err := parseScalar(fd.MapKey(), target.mapKey)
		if err != nil {
			return err
		}
		if fd.MapValue().Message() != nil {
			return parseMessageText(m.PutMessage(fd, key.MapKey()), s)
		}
		v, err := parseScalar(fd.MapValue(), s)
		if err == nil {
			m.Put(fd, key.MapKey(), v)
		}
		return err
	case fd.IsList() && fd.Message() != nil:
		return parseMessageText(m.AppendMessage(fd), s)
	case again && !fd.IsList():
		return fmt.Errorf("more than one value")
	case fd.Message() != nil:
		m.Clear(fd)
		return parseMessageText(m.Mutable(fd), s)
	}
	v, err := parseScalar(fd, s)
	switch {
	case err != nil:
	case fd.IsList():
		m.Append(fd, v)
	default:
		m.Set(fd, v)
	}
	return err
}

// queryLeaf is one field of a message as a query says it.
type queryLeaf struct {
	target queryTarget
	values []string
}

// flatten lists what of m a query has to say, in the order of the schema.
func (r *rule) flatten(m transcode.Node, prefix []protoreflect.FieldDescriptor) ([]queryLeaf, error) {
	var leaves []queryLeaf
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		fd := fields.Get(i)
		path := append(slices.Clone(prefix), fd)
		if !m.Has(fd) || r.excluded(fieldPath(path)) {
			continue
		}
		more, err := r.flattenField(fd, m, path)
		if err != nil {
			return nil, fmt.Errorf("field %q cannot be put in the query: %w", fieldPath(path), err)
		}
		leaves = append(leaves, more...)
	}
	return leaves, nil
}

func (r *rule) flattenField(fd protoreflect.FieldDescriptor, m transcode.Node, path []protoreflect.FieldDescriptor) ([]queryLeaf, error) {
	leaf := queryLeaf{target: queryTarget{fields: path}}
	switch {
	case fd.IsMap():
		return flattenMap(fd, m, path)
	case fd.IsList():
		for v := range m.Elements(fd) {
			s, err := formatText(fd, v)
			if err != nil {
				return nil, err
			}
			leaf.values = append(leaf.values, s)
		}
		return []queryLeaf{leaf}, nil
	case fd.Message() != nil && !transcode.HasOwnForm(fd.Message()) && fd.Message().FullName() != "google.protobuf.Empty":
		return r.flattenMessage(m.Get(fd).Message(), path)
	}
	s, err := formatText(fd, m.Get(fd))
	if err != nil {
		return nil, err
	}
	leaf.values = []string{s}
	return []queryLeaf{leaf}, nil
}

// flattenMessage lists the fields of a sub-message. One that is present but empty
// is said by spelling out the default of one of its fields.
func (r *rule) flattenMessage(m transcode.Node, path []protoreflect.FieldDescriptor) ([]queryLeaf, error) {
	leaves, err := r.flatten(m, path)
	if err != nil || len(leaves) > 0 {
		return leaves, err
	}
	for name := range r.bound {
		if strings.HasPrefix(name, fieldPath(path)+".") {
			return nil, nil // the path says it
		}
	}
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		fd := fields.Get(i)
		full := append(slices.Clone(path), fd)
		if !fd.HasPresence() && !fd.IsList() && !fd.IsMap() {
			return []queryLeaf{{target: queryTarget{fields: full}, values: []string{formatScalar(fd, fd.Default())}}}, nil
		}
	}
	return nil, fmt.Errorf("a message that is present but empty")
}

func flattenMap(fd protoreflect.FieldDescriptor, m transcode.Node, path []protoreflect.FieldDescriptor) ([]queryLeaf, error) {
	var leaves []queryLeaf
	for key, v := range m.Pairs(fd) {
		s, err := formatText(fd.MapValue(), v)
		if err != nil {
			return nil, err
		}
		name := key.String()
		if strings.ContainsAny(name, "[]") {
			return nil, fmt.Errorf("a map key with brackets")
		}
		leaves = append(leaves, queryLeaf{target: queryTarget{fields: path, mapKey: name, isMap: true}, values: []string{s}})
	}
	slices.SortFunc(leaves, func(a, b queryLeaf) int { return strings.Compare(a.target.mapKey, b.target.mapKey) })
	return leaves, nil
}

// encodeQuery writes the query for after: pairs whose field is unchanged, or that
// are no field, stay as they were sent; new ones come at the place of those that
// they replace, else at the end.
func (r *rule) encodeQuery(raw string, pairs []queryPair, before, after transcode.Node) (string, error) {
	if r.bodyAll {
		return raw, nil
	}
	old, err := r.flatten(before, nil)
	if err != nil {
		return "", err
	}
	fresh, err := r.flatten(after, nil)
	if err != nil {
		return "", err
	}
	was := make(map[string][]string, len(old))
	for _, leaf := range old {
		was[leaf.target.leaf()] = leaf.values
	}
	pending := make(map[string]queryLeaf, len(fresh))
	same := make(map[string]bool, len(fresh))
	for _, leaf := range fresh {
		name := leaf.target.leaf()
		same[name] = slices.Equal(was[name], leaf.values)
		if !same[name] {
			pending[name] = leaf
		}
	}
	var parts []string
	protoNames := usesProtoNames(after.Descriptor(), pairs)
	for _, p := range pairs {
		leaf, changed := pending[p.leaf]
		switch {
		case p.leaf == "", same[p.leaf]:
			parts = append(parts, p.raw)
		case changed:
			parts = leaf.appendTo(parts, p.key)
			delete(pending, p.leaf)
			same[p.leaf] = false
		case was[p.leaf] == nil && r.stillDefault(before, after, p.leaf):
			// A default that was spelled out, and is still one.
			parts = append(parts, p.raw)
		}
	}
	for _, leaf := range fresh {
		if _, left := pending[leaf.target.leaf()]; left {
			parts = leaf.appendTo(parts, leaf.target.key(protoNames))
		}
	}
	return strings.Join(parts, "&"), nil
}

// stillDefault reports whether spelling out the default of a field leaves after
// as it is: the message that holds it is there.
func (r *rule) stillDefault(before, after transcode.Node, leaf string) bool {
	fields, err := resolvePath(after.Descriptor(), leaf)
	if err != nil {
		return false
	}
	for _, fd := range fields[:len(fields)-1] {
		if !after.Has(fd) || !before.Has(fd) {
			return false
		}
		before, after = before.Get(fd).Message(), after.Get(fd).Message()
	}
	fd := fields[len(fields)-1]
	return !fd.HasPresence() && !fd.IsList() && !after.Has(fd) && !before.Has(fd)
}

func (l queryLeaf) appendTo(parts []string, key string) []string {
	for _, v := range l.values {
		parts = append(parts, url.QueryEscape(key)+"="+url.QueryEscape(v))
	}
	return parts
}

// key spells the query key of a target.
func (q queryTarget) key(protoNames bool) string {
	names := make([]string, len(q.fields))
	for i, fd := range q.fields {
		names[i] = fd.JSONName()
		if protoNames {
			names[i] = fd.TextName()
		}
	}
	key := strings.Join(names, ".")
	if q.isMap {
		key += "[" + q.mapKey + "]"
	}
	return key
}

// usesProtoNames reports whether the query names fields as the schema does.
func usesProtoNames(md protoreflect.MessageDescriptor, pairs []queryPair) bool {
	for _, p := range pairs {
		if p.leaf == "" {
			continue
		}
		target, ok := resolveKey(md, p.key)
		if ok && p.key != target.key(false) {
			return true
		}
	}
	return false
}

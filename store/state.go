package store

import (
	"cmp"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"time"
)

// State is the typed view of one revision. It is immutable and safe for concurrent use, and so is everything that it
// hands out: copy a record before changing it.
type State struct {
	head       Head
	raw        map[Kind]*table[[]byte]
	targets    *table[*Target]
	names      *table[string] // lower-cased name -> target id
	executions *table[*Execution]
	usedBy     *table[[]string] // target id -> ids of the executions that list it, sorted
	includedBy *table[[]string] // execution id -> ids of the executions that include it, sorted
	deadT      *table[*Tombstone]
	deadE      *table[*Tombstone]

	targetOrder    []*Target    // by creation
	executionOrder []*Execution // by creation
}

// NewState builds the view of a dump. Returns an error that names the item if one cannot be decoded, or if two targets
// share a name.
func NewState(d Dump) (*State, error) {
	s, err := new(State).apply(d.Items)
	if err != nil {
		return nil, err
	}
	s.head = d.Head
	s.head.Oldest, s.head.Restored = 0, false
	return s, nil
}

// Apply returns the state after items were committed as the given revision,. The receiver is
// unchanged, also on error; errors are those of [NewState]. The cost depends on the number of items, hardly on the size
// of the state.
func (s *State) Apply(revision uint64, items []Item) (*State, error) {
	next, err := s.apply(items)
	if err != nil {
		return nil, err
	}
	next.head.Revision = revision
	return next, nil
}

// Revision is the revision that this is the view of; 0 if nothing was ever stored.
func (s *State) Revision() uint64 { return s.head.Revision }

// Head is the head that this is the view of, without Oldest and Restored: those are the store's to say.
func (s *State) Head() Head { return s.head }

// Time is the time of the last change; zero if nothing was ever stored.
func (s *State) Time() time.Time { return s.head.Time }

// Target returns the target with the id, or nil.
func (s *State) Target(id string) *Target {
	t, _ := s.targets.get(id)
	return t
}

// TargetByName returns the target whose name equals name when both are lower-cased, or nil.
func (s *State) TargetByName(name string) *Target {
	id, ok := s.names.get(strings.ToLower(name))
	if !ok {
		return nil
	}
	return s.Target(id)
}

// Targets returns all targets by creation time, then id. The slice must not be changed.
func (s *State) Targets() []*Target { return s.targetOrder }

// Execution returns the execution with the id, or nil.
func (s *State) Execution(id string) *Execution {
	e, _ := s.executions.get(id)
	return e
}

// Executions returns all executions by creation time, then id. The slice must not be changed.
func (s *State) Executions() []*Execution { return s.executionOrder }

// UsedBy returns the ids of the executions that list the target directly, sorted. The slice must not be changed.
func (s *State) UsedBy(targetID string) []string {
	ids, _ := s.usedBy.get(targetID)
	return ids
}

// IncludedBy returns the ids of the executions that include the execution directly, sorted. The slice must not be
// changed.
func (s *State) IncludedBy(executionID string) []string {
	ids, _ := s.includedBy.get(executionID)
	return ids
}

// TargetTombstone returns what is remembered of a deleted target, or nil.
func (s *State) TargetTombstone(id string) *Tombstone {
	t, _ := s.deadT.get(id)
	return t
}

// ExecutionTombstone returns what is remembered of a deleted execution, or nil.
func (s *State) ExecutionTombstone(id string) *Tombstone {
	t, _ := s.deadE.get(id)
	return t
}

// Item returns the value of an item of any kind. It must not be changed.
func (s *State) Item(kind Kind, id string) (value []byte, ok bool) { return s.raw[kind].get(id) }

// Items iterates over the ids and values of a kind, sorted by id. Values must not be changed.
func (s *State) Items(kind Kind) iter.Seq2[string, []byte] {
	return func(yield func(string, []byte) bool) {
		t := s.raw[kind]
		ids := make([]string, 0, t.len())
		for id := range t.all() {
			ids = append(ids, id)
		}
		slices.Sort(ids)
		for _, id := range ids {
			v, _ := t.get(id)
			if !yield(id, v) {
				return
			}
		}
	}
}

// Len is the number of items of a kind.
func (s *State) Len(kind Kind) int { return s.raw[kind].len() }

// Kinds returns the kinds that there are items of, sorted.
func (s *State) Kinds() []Kind {
	var kinds []Kind
	for kind, t := range s.raw {
		if t.len() > 0 {
			kinds = append(kinds, kind)
		}
	}
	slices.Sort(kinds)
	return kinds
}

// Dump returns everything. Items are sorted by kind and id; their values must not be changed.
func (s *State) Dump() Dump {
	d := Dump{Head: s.head}
	for _, kind := range s.Kinds() {
		for id, value := range s.Items(kind) {
			d.Items = append(d.Items, Item{Kind: kind, ID: id, Value: value})
		}
	}
	return d
}

// apply returns the next state with the head of s.
func (s *State) apply(items []Item) (*State, error) {
	b := newStateEdit(s)
	for _, it := range items {
		if err := b.item(it); err != nil {
			return nil, fmt.Errorf("%s %q: %w", it.Kind, it.ID, err)
		}
	}
	return b.done()
}

// stateEdit builds the next state.
type stateEdit struct {
	from       *State
	raw        map[Kind]*tableEdit[[]byte]
	targets    *tableEdit[*Target]
	names      *tableEdit[string]
	executions *tableEdit[*Execution]
	usedBy     *tableEdit[[]string]
	includedBy *tableEdit[[]string]
	deadT      *tableEdit[*Tombstone]
	deadE      *tableEdit[*Tombstone]

	changedTargets    map[string]*Target // id -> the record before, nil if there was none
	changedExecutions map[string]*Execution
}

func newStateEdit(s *State) *stateEdit {
	return &stateEdit{
		from:              s,
		raw:               make(map[Kind]*tableEdit[[]byte]),
		targets:           s.targets.edit(),
		names:             s.names.edit(),
		executions:        s.executions.edit(),
		usedBy:            s.usedBy.edit(),
		includedBy:        s.includedBy.edit(),
		deadT:             s.deadT.edit(),
		deadE:             s.deadE.edit(),
		changedTargets:    make(map[string]*Target),
		changedExecutions: make(map[string]*Execution),
	}
}

func (b *stateEdit) item(it Item) error {
	raw := b.raw[it.Kind]
	if raw == nil {
		raw = b.from.raw[it.Kind].edit()
		b.raw[it.Kind] = raw
	}
	if it.Value == nil {
		raw.delete(it.ID)
	} else {
		raw.set(it.ID, it.Value)
	}
	switch it.Kind {
	case KindTarget:
		return b.target(it)
	case KindExecution:
		return b.execution(it)
	case KindTargetTombstone:
		return tombstone(b.deadT, it)
	case KindExecutionTombstone:
		return tombstone(b.deadE, it)
	default:
		return nil
	}
}

func (b *stateEdit) target(it Item) error {
	var next *Target
	if it.Value != nil {
		t, err := DecodeTarget(it.Value)
		if err != nil {
			return err
		}
		if t.ID != it.ID {
			return fmt.Errorf("value is of id %q", t.ID)
		}
		next = t
	}
	before, _ := b.targets.get(it.ID)
	if _, ok := b.changedTargets[it.ID]; !ok {
		b.changedTargets[it.ID] = before
	}
	if next == nil {
		b.targets.delete(it.ID)
	} else {
		b.targets.set(it.ID, next)
	}
	return nil
}

func (b *stateEdit) execution(it Item) error {
	var next *Execution
	if it.Value != nil {
		e, err := DecodeExecution(it.Value)
		if err != nil {
			return err
		}
		if e.ID != it.ID {
			return fmt.Errorf("value is of id %q", e.ID)
		}
		next = e
	}
	before, _ := b.executions.get(it.ID)
	if _, ok := b.changedExecutions[it.ID]; !ok {
		b.changedExecutions[it.ID] = before
	}
	if next == nil {
		b.executions.delete(it.ID)
	} else {
		b.executions.set(it.ID, next)
	}
	return nil
}

func tombstone(dead *tableEdit[*Tombstone], it Item) error {
	if it.Value == nil {
		dead.delete(it.ID)
		return nil
	}
	t, err := DecodeTombstone(it.Value)
	if err != nil {
		return err
	}
	if t.ID != it.ID {
		return fmt.Errorf("value is of id %q", t.ID)
	}
	dead.set(it.ID, t)
	return nil
}

func (b *stateEdit) done() (*State, error) {
	if err := b.indexNames(); err != nil {
		return nil, err
	}
	b.indexReferences()
	next := &State{
		head:       b.from.head,
		raw:        b.from.raw,
		targets:    b.targets.done(),
		names:      b.names.done(),
		executions: b.executions.done(),
		usedBy:     b.usedBy.done(),
		includedBy: b.includedBy.done(),
		deadT:      b.deadT.done(),
		deadE:      b.deadE.done(),
	}
	if len(b.raw) > 0 {
		next.raw = make(map[Kind]*table[[]byte], len(b.from.raw)+1)
		maps.Copy(next.raw, b.from.raw)
		for kind, e := range b.raw {
			next.raw[kind] = e.done()
		}
	}
	next.targetOrder = reorder(b.from.targetOrder, b.changedTargets, next.targets, compareTargets)
	next.executionOrder = reorder(b.from.executionOrder, b.changedExecutions, next.executions, compareExecutions)
	return next, nil
}

// indexNames frees all old names before it takes the new ones, so that one commit can swap names.
func (b *stateEdit) indexNames() error {
	for id, before := range b.changedTargets {
		if before == nil {
			continue
		}
		name := strings.ToLower(before.Name)
		if owner, _ := b.names.get(name); owner == id {
			b.names.delete(name)
		}
	}
	for id := range b.changedTargets {
		now, ok := b.targets.get(id)
		if !ok {
			continue
		}
		name := strings.ToLower(now.Name)
		if owner, taken := b.names.get(name); taken {
			return fmt.Errorf("target %q: its name is that of target %q", id, owner)
		}
		b.names.set(name, id)
	}
	return nil
}

func (b *stateEdit) indexReferences() {
	targets, includes := make(references), make(references)
	for id, before := range b.changedExecutions {
		now, _ := b.executions.get(id)
		var oldT, newT, oldI, newI []string
		if before != nil {
			oldT, oldI = before.Targets, before.Includes
		}
		if now != nil {
			newT, newI = now.Targets, now.Includes
		}
		targets.move(id, oldT, newT)
		includes.move(id, oldI, newI)
	}
	targets.apply(b.usedBy)
	includes.apply(b.includedBy)
}

// references holds, for each thing that is referred to, the executions that begin (true) or cease (false) to. They are
// applied at once: an import of many executions over one target would otherwise copy that target's list for each.
type references map[string]map[string]bool

func (r references) move(id string, before, now []string) {
	for _, ref := range before {
		if !slices.Contains(now, ref) {
			r.note(ref, id, false)
		}
	}
	for _, ref := range now {
		if !slices.Contains(before, ref) {
			r.note(ref, id, true)
		}
	}
}

func (r references) note(ref, id string, refers bool) {
	if r[ref] == nil {
		r[ref] = make(map[string]bool)
	}
	r[ref][id] = refers
}

func (r references) apply(index *tableEdit[[]string]) {
	for ref, changes := range r {
		before, _ := index.get(ref)
		ids := make([]string, 0, len(before)+len(changes))
		for _, id := range before {
			if _, changed := changes[id]; !changed {
				ids = append(ids, id)
			}
		}
		kept := len(ids)
		for id, refers := range changes {
			if refers {
				ids = append(ids, id)
			}
		}
		switch {
		case len(ids) == 0:
			index.delete(ref)
		case len(ids) > kept:
			slices.Sort(ids)
			fallthrough
		default:
			index.set(ref, ids)
		}
	}
}

func compareTargets(a, b *Target) int {
	return cmp.Or(a.CreatedAt.Compare(b.CreatedAt), strings.Compare(a.ID, b.ID))
}

func compareExecutions(a, b *Execution) int {
	return cmp.Or(a.CreatedAt.Compare(b.CreatedAt), strings.Compare(a.ID, b.ID))
}

// reorder returns the sorted list of a table's records, made from the list before and the records that changed (id ->
// the record before, or nil).
func reorder[R any](order []*R, changed map[string]*R, now *table[*R], compare func(a, b *R) int) []*R {
	if len(changed) == 0 {
		return order
	}
	if len(changed) > 64 {
		all := make([]*R, 0, now.len())
		for _, r := range now.all() {
			all = append(all, r)
		}
		slices.SortFunc(all, compare)
		return all
	}
	next := slices.Grow(slices.Clone(order), len(changed))
	for id, before := range changed {
		if before != nil {
			if i, ok := slices.BinarySearchFunc(next, before, compare); ok {
				next = slices.Delete(next, i, i+1)
			}
		}
		if r, ok := now.get(id); ok {
			i, _ := slices.BinarySearchFunc(next, r, compare)
			next = slices.Insert(next, i, r)
		}
	}
	return next
}

// oldestTombstones returns the ids of the tombstones of a table that are to be forgotten: none up to max, else the
// oldest until nine tenths of max are left.
func oldestTombstones(dead *table[*Tombstone], limit int) []string {
	if dead.len() <= limit {
		return nil
	}
	all := make([]*Tombstone, 0, dead.len())
	for _, t := range dead.all() {
		all = append(all, t)
	}
	slices.SortFunc(all, func(a, b *Tombstone) int {
		return cmp.Or(a.DeletedAt.Compare(b.DeletedAt), strings.Compare(a.ID, b.ID))
	})
	ids := make([]string, 0, limit/10+1)
	for _, t := range all[:len(all)-limit*9/10] {
		ids = append(ids, t.ID)
	}
	return ids
}

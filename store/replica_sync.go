package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"
)

// maxCatchUp is how many revisions are read one by one; further behind, everything is loaded.
const maxCatchUp = 200

// sameHead says whether two heads are of the same commit.
func sameHead(a, b Head) bool {
	return a.Revision == b.Revision && a.Epoch == b.Epoch && a.ID == b.ID
}

// known is the newest state known: the current one, or at the start that of the local copy. The semaphore is held.
func (r *Replica) known() *State {
	if s := r.state.Load(); s != nil {
		return s
	}
	return r.copied
}

// sync brings the state up to that of the store, and records in the status whether that worked. Its error wraps
// ErrUnavailable or is the context's. The semaphore is held.
func (r *Replica) sync(ctx context.Context) error {
	var err error
	for range 3 { // a store that changes while it is compared is compared again
		if err = r.reconcile(ctx); !errors.Is(err, ErrConflict) {
			break
		}
	}
	if err != nil && !errors.Is(err, ErrUnavailable) && ctx.Err() == nil {
		err = fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	if ctx.Err() == nil || err == nil {
		r.setStatus(err)
	}
	return err
}

// reconcile compares with the store once. Returns ErrConflict if the store changed meanwhile.
func (r *Replica) reconcile(ctx context.Context) error {
	known := r.known()
	head, err := r.store.Head(ctx)
	if errors.Is(err, ErrDamaged) && r.restorable(known) {
		return r.restore(ctx, known, "damaged")
	}
	if err != nil {
		return err
	}
	switch {
	case known == nil || known.head.Revision == 0 && head.Revision > 0:
		return r.load(ctx, nil, "")
	case sameHead(known.head, head):
		if r.state.Load() == nil {
			r.publish(known)
		}
		return nil
	case head.Revision == 0:
		if r.restorable(known) {
			return r.restore(ctx, known, "empty")
		}
		return r.load(ctx, known, "is empty")
	case head.Epoch != known.head.Epoch:
		return r.load(ctx, known, "holds another history")
	case head.Revision > known.head.Revision:
		return r.catchUp(ctx, known, head)
	case head.Restored && head.Revision < known.head.Revision && r.restorable(known):
		// A gateway that knew less put it back before this one could.
		return r.restore(ctx, known, "restored to an earlier revision")
	default:
		return r.load(ctx, known, "went back")
	}
}

func (r *Replica) restorable(known *State) bool {
	return r.restorer != nil && known != nil && known.head.Revision > 0
}

// restore puts the known state back into a store that lost it.
func (r *Replica) restore(ctx context.Context, known *State, how string) error {
	if err := r.restorer.Restore(ctx, known.Dump()); err != nil {
		return err
	}
	r.log.Error("store: had lost its data; put back the last known configuration",
		"store_was", how, "revision", known.head.Revision, "changed_at", known.head.Time)
	if r.state.Load() == nil {
		r.publish(known)
	}
	return nil
}

// load adopts everything that the store holds. lost is the state that this replaces although it is not older, if any,
// and why says how the store got there.
func (r *Replica) load(ctx context.Context, lost *State, why string) error {
	d, err := r.store.Load(ctx)
	if err != nil {
		return err
	}
	if d.Revision > 0 && sameHead(d.Head, r.refused) {
		return r.refusedErr
	}
	next, err := NewState(d)
	if err == nil && r.o.Check != nil {
		err = r.o.Check(next)
	}
	if err != nil {
		return r.refuse(d.Head, err)
	}
	if lost != nil {
		if d.Revision == 0 && r.restorable(lost) {
			return fmt.Errorf("%w: became empty", ErrConflict)
		}
		r.keepPrevious(lost)
		r.log.Error("store: not what it was; following it", "how", why, "revision", d.Revision, "revision_before", lost.head.Revision,
			"previous_kept_in", r.previousPath())
	}
	r.publish(next)
	return nil
}

// refuse records that a state is not usable.
func (r *Replica) refuse(head Head, err error) error {
	r.refused, r.refusedErr = head, fmt.Errorf("%w: %w: %w", ErrUnavailable, ErrRefused, err)
	r.log.Error("store: a configuration is refused; keeping the one before",
		"error", err, "revision", head.Revision, "kept", r.knownRevision())
	return r.refusedErr
}

// catchUp applies the revisions from known to the head. The log's entry for the known revision must be the one known:
// otherwise the histories parted before, as after a failover that lost writes.
func (r *Replica) catchUp(ctx context.Context, known *State, head Head) error {
	if sameHead(head, r.refused) {
		return r.refusedErr
	}
	behind := head.Revision - known.head.Revision
	if behind > maxCatchUp {
		return r.load(ctx, nil, "")
	}
	revs, err := r.store.Revisions(ctx, known.head.Revision-1, int(behind)+1)
	if errors.Is(err, ErrCompacted) {
		return r.load(ctx, nil, "")
	}
	if err != nil {
		return err
	}
	if len(revs) < 2 || revs[0].Number != known.head.Revision {
		return r.load(ctx, nil, "")
	}
	if revs[0].ID != known.head.ID {
		return r.load(ctx, known, "went back and on")
	}
	type key struct {
		kind Kind
		id   string
	}
	last := make(map[key]int)
	var items []Item
	for _, rev := range revs[1:] {
		for _, it := range rev.Items {
			k := key{it.Kind, it.ID}
			if i, ok := last[k]; ok {
				items[i].Value = it.After
				continue
			}
			last[k] = len(items)
			items = append(items, Item{Kind: it.Kind, ID: it.ID, Value: it.After})
		}
	}
	next, err := known.apply(items)
	if err == nil {
		newest := revs[len(revs)-1]
		next.head = Head{Epoch: known.head.Epoch, Revision: newest.Number, ID: newest.ID, Time: newest.Time}
		if r.o.Check != nil {
			err = r.o.Check(next)
		}
	}
	if err != nil {
		return r.refuse(head, err)
	}
	r.publish(next)
	return nil
}

// poll compares with the store again and again, until ctx ends.
func (r *Replica) poll(ctx context.Context) {
	wait := r.o.PollInterval
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-r.kick:
		}
		if r.acquire(ctx) != nil {
			return
		}
		err := r.sync(ctx)
		<-r.sem
		if err == nil {
			wait = r.o.PollInterval
		} else {
			wait = min(2*wait, max(maxPollInterval, r.o.PollInterval))
		}
		timer.Reset(wait)
	}
}

// watch listens to the store's notices until ctx ends.
func (r *Replica) watch(ctx context.Context) {
	for {
		_ = r.store.Watch(ctx, func(revision uint64) {
			if s := r.state.Load(); s != nil && revision != 0 && revision == s.Revision() {
				return // most likely our own
			}
			r.wake()
		})
		select {
		case <-ctx.Done():
			return
		case <-time.After(r.o.PollInterval):
		}
	}
}

// copies says whether there is a local copy to keep.
func (r *Replica) copies() bool { return r.restorer != nil && r.o.CopyPath != "" }

func (r *Replica) previousPath() string {
	if !r.copies() {
		return ""
	}
	return r.o.CopyPath + ".previous"
}

// readCopy reads the local copy at the start.
func (r *Replica) readCopy() {
	if !r.copies() {
		return
	}
	d, identity, err := ReadCopy(r.o.CopyPath)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err != nil {
		r.log.Error("store: the local copy cannot be used", "path", r.o.CopyPath, "error", err)
		return
	}
	if identity != r.restorer.Identity() {
		r.log.Warn("store: the local copy is of another store and is not used; it is kept aside",
			"path", r.o.CopyPath, "of", identity, "kept_in", r.previousPath())
		if err := os.Rename(r.o.CopyPath, r.previousPath()); err != nil {
			r.log.Error("store: keep the copy aside", "error", err)
		}
		return
	}
	s, err := NewState(d)
	if err == nil && r.o.Check != nil {
		err = r.o.Check(s)
	}
	if err != nil {
		r.log.Error("store: the local copy is refused", "path", r.o.CopyPath, "error", err)
		return
	}
	r.copied = s
}

// keepPrevious keeps a state that the store no longer has.
func (r *Replica) keepPrevious(s *State) {
	if !r.copies() {
		return
	}
	if err := WriteCopy(r.previousPath(), r.restorer.Identity(), s.Dump()); err != nil {
		r.log.Error("store: keep the previous configuration", "path", r.previousPath(), "error", err)
	}
}

// copyLoop writes the local copy after changes, spending a fifth of the time at most, and once more at the end.
func (r *Replica) copyLoop(ctx context.Context) {
	if !r.copies() {
		return
	}
	var written *State
	write := func() bool {
		s := r.state.Load()
		if s == nil || s == written || s.head.Revision == 0 {
			return true
		}
		if err := WriteCopy(r.o.CopyPath, r.restorer.Identity(), s.Dump()); err != nil {
			r.log.Error("store: write the local copy", "path", r.o.CopyPath, "error", err)
			return false
		}
		written = s
		return true
	}
	defer write()
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.copyDirty:
		}
		began := time.Now()
		pause := 10 * time.Second
		if write() {
			pause = min(4*time.Since(began), 2*time.Second)
		} else {
			select {
			case r.copyDirty <- struct{}{}: // once more, after the pause
			default:
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

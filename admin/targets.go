package admin

import (
	"bytes"
	"context"
	"errors"
	"net/url"
	"slices"

	"github.com/execgate/execgate/store"
)

// targetEdit changes a record to what a caller wants. It may be applied several times, and owns the record but not the
// slices in it.
type targetEdit func(t *store.Target) error

// createTarget stores a new target and returns it.
func (c *core) createTarget(ctx context.Context, edit targetEdit) (*store.Target, error) {
	var created *store.Target
	err := c.change(ctx, "CreateTarget", func(s *store.State) ([]store.Item, error) {
		t := &store.Target{ID: c.freeTargetID(s), SigningKey: newSigningKey(), Sequence: 1}
		if err := edit(t); err != nil {
			return nil, err
		}
		if s.TargetByName(t.Name) != nil {
			return nil, errTargetExists
		}
		t.CreatedAt = c.changeTime(s.Time())
		t.ChangedAt = t.CreatedAt
		created = t
		return one(t.Item())
	})
	return created, err
}

func (c *core) freeTargetID(s *store.State) string {
	for {
		id := c.ids.next()
		if s.Target(id) == nil && s.TargetTombstone(id) == nil {
			return id
		}
	}
}

// updateTarget changes a target and returns it as it is after that. A change to what already is changes nothing.
func (c *core) updateTarget(ctx context.Context, action, id string, missing error, edit targetEdit) (*store.Target, error) {
	var after *store.Target
	err := c.change(ctx, action, func(s *store.State) ([]store.Item, error) {
		before := s.Target(id)
		if before == nil {
			return nil, missing
		}
		t := *before
		if err := edit(&t); err != nil {
			return nil, err
		}
		if sameTarget(before, &t) {
			after = before
			return nil, nil
		}
		if owner := s.TargetByName(t.Name); owner != nil && owner.ID != id {
			return nil, errTargetExists
		}
		t.Sequence++
		t.ChangedAt = c.changeTime(before.ChangedAt)
		after = &t
		return one(t.Item())
	})
	return after, err
}

// sameTarget compares what a caller can change.
func sameTarget(a, b *store.Target) bool {
	return a.Name == b.Name && a.Endpoint == b.Endpoint && a.Type == b.Type && a.Async == b.Async &&
		a.InterruptOnError == b.InterruptOnError && a.Timeout == b.Timeout && a.SigningKey == b.SigningKey &&
		a.PayloadType == b.PayloadType && slices.EqualFunc(a.PublicKeys, b.PublicKeys, samePublicKey)
}

func samePublicKey(a, b store.PublicKey) bool {
	return a.ID == b.ID && bytes.Equal(a.PEM, b.PEM) && a.Active == b.Active &&
		a.ExpiresAt.Equal(b.ExpiresAt) && a.CreatedAt.Equal(b.CreatedAt) && a.ChangedAt.Equal(b.ChangedAt)
}

// deleteTarget removes a target from the store and from every execution that lists it, and returns what is remembered
// of it: also when it was deleted before, then found is false. Nil if there never was one.
func (c *core) deleteTarget(ctx context.Context, id string) (deleted *store.Tombstone, found bool, err error) {
	err = c.change(ctx, "DeleteTarget", func(s *store.State) ([]store.Item, error) {
		t := s.Target(id)
		if t == nil {
			deleted, found = s.TargetTombstone(id), false
			return nil, nil
		}
		items := changes{}
		deleted, found = c.buryTarget(s, t, &items), true
		for _, user := range s.UsedBy(id) {
			e := *s.Execution(user)
			e.Targets = slices.DeleteFunc(slices.Clone(e.Targets), func(listed string) bool { return listed == id })
			e.Sequence++
			e.ChangedAt = c.changeTime(e.ChangedAt)
			items.add(e.Item())
		}
		return items.done()
	})
	return deleted, found, err
}

// buryTarget removes a target and its policy, and returns what is remembered of it. Executions that list it are the
// caller's to change.
func (c *core) buryTarget(s *store.State, t *store.Target, items *changes) *store.Tombstone {
	grave := &store.Tombstone{ID: t.ID, Sequence: t.Sequence + 1, DeletedAt: c.changeTime(t.ChangedAt)}
	items.remove(s, store.KindTarget, t.ID)
	items.add(grave.TargetItem())
	items.remove(s, store.KindTargetPolicy, t.ID)
	return grave
}

// getTarget returns a target.
func (c *core) getTarget(ctx context.Context, id string) (*store.Target, error) {
	s, err := c.read(ctx)
	if err != nil {
		return nil, err
	}
	t := s.Target(id)
	if t == nil {
		return nil, errTargetGoneGet
	}
	return t, nil
}

// allowedURL says whether a target may be called at the URL; refused is the answer if not. It can resolve a name, so it
// is not to be called from within a change.
func (c *core) allowedURL(ctx context.Context, raw string, refused error) error {
	if checkAbsoluteURL(raw) != nil {
		return refused
	}
	if c.checkURL == nil {
		return nil
	}
	if err := c.checkURL(ctx, raw); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return refused
	}
	return nil
}

// checkAbsoluteURL refuses what is not an absolute http or https URL with a host.
func checkAbsoluteURL(raw string) error {
	u, err := url.Parse(raw)
	switch {
	case err != nil:
		return errors.New("not a URL") // the parser's own text repeats the URL, which may hold a secret
	case !u.IsAbs():
		return errors.New("not absolute")
	case u.Scheme != "http" && u.Scheme != "https":
		return errors.New("neither http nor https")
	case u.Hostname() == "":
		return errors.New("without a host")
	}
	return nil
}

func one(item store.Item, err error) ([]store.Item, error) {
	if err != nil {
		return nil, err
	}
	return []store.Item{item}, nil
}

package admin

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/execgate/execgate/store"
)

// Store keeps what is managed. *store.Replica is one.
type Store interface {
	// Fresh returns a state that is at least as new as every acknowledged change, whichever gateway made it. When the
	// store is away it returns the last known state, or nil, and an error that wraps store.ErrUnavailable.
	Fresh(ctx context.Context) (*store.State, error)
	// Update writes the items that fn returns for the newest state, all or none; none is no change. It may call fn
	// several times. Returns fn's error as it is, and errors that wrap store.ErrUnavailable or store.ErrConflict.
	Update(ctx context.Context, actor, action string, fn func(*store.State) ([]store.Item, error)) (*store.State, error)
}

// core has the commands and queries that both APIs are made of.
type core struct {
	store      Store
	ids        *idGenerator
	now        func() time.Time
	schema     func() (methods, services []string, known bool)
	eventTypes func() (types []string, known bool)
	functions  []string // beside those of ZITADEL
	checkURL   func(ctx context.Context, url string) error
	limits     Limits
	logger     *slog.Logger
}

// read returns the state that a query is answered from: the last known one while the store is away.
func (c *core) read(ctx context.Context) (*store.State, error) {
	s, err := c.store.Fresh(ctx)
	if s == nil && err == nil {
		err = store.ErrUnavailable
	}
	if err != nil && (s == nil || !errors.Is(err, store.ErrUnavailable)) {
		return nil, err
	}
	return s, nil
}

// change runs fn as one atomic change by the caller of ctx.
func (c *core) change(ctx context.Context, action string, fn func(*store.State) ([]store.Item, error)) error {
	_, err := c.store.Update(ctx, callerName(ctx), action, fn)
	return err
}

// changeTime is the time of a change of something that was last changed before: time stands still rather than going
// back when clocks of gateways differ.
func (c *core) changeTime(before time.Time) time.Time {
	now := c.now().UTC()
	if now.Before(before) {
		return before
	}
	return now
}

// changes collects the items of one commit.
type changes struct {
	items []store.Item
	err   error
}

func (c *changes) add(item store.Item, err error) {
	c.items = append(c.items, item)
	c.err = errors.Join(c.err, err)
}

// remove adds the absence of an item that is there.
func (c *changes) remove(s *store.State, kind store.Kind, id string) {
	if _, ok := s.Item(kind, id); ok {
		c.items = append(c.items, store.Absent(kind, id))
	}
}

func (c *changes) done() ([]store.Item, error) { return c.items, c.err }

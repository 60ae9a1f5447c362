package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Kind says what an [Item] is. Kinds that this version does not know are kept as they are and can be read through
// [State.Item] and [State.Items].
type Kind string

// The kinds in use. The values of the first four are typed here; policies and switches are decoded by those who
// define them.
const (
	KindTarget             Kind = "target"              // Target, by target id
	KindExecution          Kind = "execution"           // Execution, by execution id
	KindTargetTombstone    Kind = "target_tombstone"    // Tombstone of a deleted target, by target id
	KindExecutionTombstone Kind = "execution_tombstone" // Tombstone of a deleted execution, by execution id
	KindTargetPolicy       Kind = "target_policy"       // by target id
	KindExecutionPolicy    Kind = "execution_policy"    // by execution id
	KindSwitch             Kind = "switch"              // by name
	KindDeliveries         Kind = "deliveries"          // what an operator last did to deliveries, for the log; one item
)

// Item is one value. Value is JSON; nil means that the item is absent.
type Item struct {
	Kind  Kind
	ID    string
	Value []byte
}

// Absent returns the item that removes kind and id in a [Commit].
func Absent(kind Kind, id string) Item { return Item{Kind: kind, ID: id} }

// MaxCommitItems is the largest number of items that one commit may hold.
const MaxCommitItems = 100_000

// Commit is one atomic change.
type Commit struct {
	// ID makes the commit recognisable: committing the same ID on the same base again has no second effect and returns
	// the revision of the first. Empty: the store makes one up.
	ID string
	// Epoch is the history that the commit belongs to; on an empty store it names the new history. Empty: any history,
	// and a made-up name for a new one.
	Epoch string
	// Base is the revision that the commit was made on; 0 is the empty store.
	Base uint64
	// Items are the new values. Two items of the same kind and id are an error.
	Items []Item
	// Actor and Action say who did what, for the revision log. Both may be empty.
	Actor, Action string
	// Time is when; zero means now.
	Time time.Time
}

// RevisionItem is one changed item of a [Revision]. Nil values mean absent.
type RevisionItem struct {
	Kind          Kind
	ID            string
	Before, After []byte
}

// Revision is a commit as the log remembers it.
type Revision struct {
	Number        uint64
	ID            string
	Time          time.Time
	Actor, Action string
	Items         []RevisionItem
}

// Head says where a store stands, without its items. The zero Head is that of a store nothing was ever committed to.
type Head struct {
	// Epoch names the history: made up at the first commit, the same for the life of the data.
	Epoch string
	// Revision counts the commits.
	Revision uint64
	// ID is the id of the last commit. Revision and ID together say that two states are the same.
	ID string
	// Time is the time of the last commit.
	Time time.Time
	// Oldest is the oldest revision that the log still holds, 0 if it holds none.
	Oldest uint64
	// Restored says that the items were put back by a gateway after the store had lost them, and that nothing was
	// committed since.
	Restored bool
}

// Dump is everything that a store holds at one revision.
type Dump struct {
	Head
	Items []Item
}

// Errors of a [Store]. They come wrapped; test with errors.Is.
var (
	// ErrConflict says that the store is not at the base of the commit; nothing was written.
	ErrConflict = errors.New("store: changed meanwhile")
	// ErrUnavailable says that the store cannot be reached or used now. A commit that ended so was not acknowledged:
	// it may or may not have been applied.
	ErrUnavailable = errors.New("store: unavailable")
	// ErrCompacted says that the revision log does not reach back as far as asked for.
	ErrCompacted = errors.New("store: revision log does not reach back that far")
	// ErrDamaged says that the store answers, but that what it holds is not whole. It comes together with
	// ErrUnavailable.
	ErrDamaged = errors.New("store: data is not whole")
	// ErrRefused says that what the store holds does not decode, or was refused by ReplicaOptions.Check. It comes
	// together with ErrUnavailable.
	ErrRefused = errors.New("store: what it holds is refused")
)

// Store is a backend. Every method is safe for concurrent use, returns within a bounded time when the backend is away
// (an error that wraps ErrUnavailable), and returns the context's error when the context ends first.
type Store interface {
	// Head returns where the store stands. It is cheap: replicas poll it.
	Head(ctx context.Context) (Head, error)
	// Load returns everything, as of one revision. Items are in no particular order.
	Load(ctx context.Context) (Dump, error)
	// Commit writes all items as revision Base+1, and returns it, or writes nothing. When it returns without error the
	// change is as durable as the backend makes it: on disk (embedded), or as Redis' own persistence says. Returns
	// ErrConflict if the store is at another revision or in another epoch.
	Commit(ctx context.Context, c Commit) (uint64, error)
	// Revisions returns the revisions after the given one, oldest first, at most limit (limit <= 0: all that the log
	// holds). Returns ErrCompacted if the log no longer holds revision after+1.
	Revisions(ctx context.Context, after uint64, limit int) ([]Revision, error)
	// Watch calls notify, one call at a time, soon after every commit with its revision, by whichever process; with 0
	// when something may have been missed (also once at the beginning). It is a hint: calls may be lost or merged, so a
	// watcher polls Head as well. Watch blocks until ctx ends, and returns its error, or until it cannot go on.
	Watch(ctx context.Context, notify func(revision uint64)) error
	// Close releases what the store holds. Later calls return ErrUnavailable.
	Close() error
}

// Restorer is implemented by stores that live outside the gateway and can lose their data while it keeps running.
type Restorer interface {
	// Restore puts a dump back, with its epoch and revision, into a store that is empty or damaged, or that was
	// restored to a lower revision of the same epoch and not changed since. Otherwise it returns ErrConflict.
	Restore(ctx context.Context, d Dump) error
	// Identity names the place of the data (address, database, prefix, instance; no credentials), so that a local copy
	// of one store is not taken for another's.
	Identity() string
}

// maxIDBytes bounds an item's id: an execution id has up to 1,020 runes.
const maxIDBytes = 8192

// validate reports what makes a commit unusable for any backend.
func (c *Commit) validate() error {
	if len(c.Items) == 0 {
		return errors.New("store: commit without items")
	}
	if len(c.Items) > MaxCommitItems {
		return fmt.Errorf("store: commit of %d items, at most %d are possible", len(c.Items), MaxCommitItems)
	}
	seen := make(map[string]struct{}, len(c.Items))
	for _, it := range c.Items {
		if it.Kind == "" || strings.ContainsRune(string(it.Kind), '/') {
			return fmt.Errorf("store: kind %q is not valid", it.Kind)
		}
		if it.ID == "" || len(it.ID) > maxIDBytes {
			return fmt.Errorf("store: id of %d bytes is not valid for kind %q", len(it.ID), it.Kind)
		}
		if it.Value != nil && len(it.Value) == 0 {
			return fmt.Errorf("store: empty value for %s %q", it.Kind, it.ID)
		}
		k := itemKey(it.Kind, it.ID)
		if _, ok := seen[k]; ok {
			return fmt.Errorf("store: %s %q occurs twice in one commit", it.Kind, it.ID)
		}
		seen[k] = struct{}{}
	}
	return nil
}

// itemKey is the key of an item within a backend. A kind holds no slash.
func itemKey(kind Kind, id string) string { return string(kind) + "/" + id }

// splitItemKey undoes itemKey.
func splitItemKey(key string) (Kind, string, bool) {
	kind, id, ok := strings.Cut(key, "/")
	return Kind(kind), id, ok
}

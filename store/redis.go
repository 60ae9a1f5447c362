package store

import (
	"context"
	"crypto/rand"
	_ "embed"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	loadTimeout    = 15 * time.Second
	commitAttempts = 3
	logPage        = 100             // revisions read at once
	watchCheck     = 5 * time.Second // between looks at an idle subscription
)

var (
	//go:embed commit.lua
	commitSource string
	//go:embed restore.lua
	restoreSource string

	commitScript  = redis.NewScript(commitSource)
	restoreScript = redis.NewScript(restoreSource)
)

// Redis is a [Store] that several gateways share: a standalone server, one behind Sentinel, or a Cluster; version 5 or
// later. A commit is one script, so that it is atomic and compares the revision itself.
//
// The keys of an instance: prefix:{instance}:head (hash), :items (hash, "kind/id" to value), :log (stream, one entry per
// revision, whose id is the number), and the channel :changes. They must not be edited by hand, nor evicted: a store
// whose items do not match its head answers [ErrDamaged]. A Redis user needs these keys and this channel, and the
// command categories read, write, scripting, transaction, connection and pubsub; without the channel, changes are found
// by polling alone.
type Redis struct {
	o        RedisOptions
	client   redis.UniversalClient
	identity string
	keys     []string // head, items, log
	channel  string
}

var (
	_ Store    = (*Redis)(nil)
	_ Restorer = (*Redis)(nil)
)

// quietRedis drops what go-redis would write to standard error on its own: everything that matters comes back as an
// error.
type quietRedis struct{}

func (quietRedis) Printf(context.Context, string, ...any) {}

// OpenRedis returns the store in Redis. It does not connect; errors are about the options.
func OpenRedis(o RedisOptions) (*Redis, error) {
	o.complete()
	u, err := o.universal()
	if err != nil {
		return nil, err
	}
	redis.SetLogger(quietRedis{}) // there is one for the whole process
	base := o.KeyPrefix + ":{" + url.PathEscape(o.Instance) + "}:"
	return &Redis{
		o:        o,
		client:   redis.NewUniversalClient(u),
		identity: o.identity(u),
		keys:     []string{base + "head", base + "items", base + "log"},
		channel:  base + "changes",
	}, nil
}

// Identity implements [Restorer].
func (s *Redis) Identity() string { return s.identity }

// Close implements [Store].
func (s *Redis) Close() error {
	if err := s.client.Close(); err != nil && !errors.Is(err, redis.ErrClosed) {
		return err
	}
	return nil
}

// fault classifies an error of an exchange: the caller's own context, or the store.
func fault(ctx context.Context, doing string, err error) error {
	if ctxErr := ctx.Err(); ctxErr != nil {
		return ctxErr
	}
	if errors.Is(err, ErrUnavailable) {
		return err
	}
	if errors.Is(err, context.DeadlineExceeded) {
		err = errors.New("redis does not answer")
	}
	return fmt.Errorf("%w: %s: %w", ErrUnavailable, doing, err)
}

func damaged(why string) error {
	return fmt.Errorf("%w: %w: %s; were keys evicted, or edited by hand?", ErrUnavailable, ErrDamaged, why)
}

// headReply collects the replies of a transaction that reads the head.
type headReply struct {
	fields  *redis.SliceCmd
	count   *redis.IntCmd
	entries *redis.IntCmd
}

func (s *Redis) queueHead(ctx context.Context, p redis.Pipeliner) headReply {
	return headReply{
		fields:  p.HMGet(ctx, s.keys[0], "epoch", "revision", "id", "time", "count", "oldest", "restored"),
		count:   p.HLen(ctx, s.keys[1]),
		entries: p.Exists(ctx, s.keys[2]),
	}
}

func (r *headReply) head() (Head, error) {
	field := func(i int) string {
		f, _ := r.fields.Val()[i].(string)
		return f
	}
	if r.fields.Val()[0] == nil {
		if r.count.Val() > 0 || r.entries.Val() > 0 {
			return Head{}, damaged("the head is missing")
		}
		return Head{}, nil
	}
	h := Head{Epoch: field(0), ID: field(2), Restored: field(6) == "1"}
	var errs [3]error
	h.Revision, errs[0] = strconv.ParseUint(field(1), 10, 64)
	h.Time, errs[1] = parseTime(field(3))
	h.Oldest, errs[2] = strconv.ParseUint(field(5), 10, 64)
	if errors.Join(errs[:]...) != nil {
		return Head{}, damaged("the head cannot be read")
	}
	if count := strconv.FormatInt(r.count.Val(), 10); count != field(4) {
		return Head{}, damaged(fmt.Sprintf("%s items instead of %s", count, field(4)))
	}
	return h, nil
}

// Head implements [Store].
func (s *Redis) Head(ctx context.Context) (Head, error) {
	opCtx, cancel := context.WithTimeout(ctx, s.o.Timeout)
	defer cancel()
	var reply headReply
	_, err := s.client.TxPipelined(opCtx, func(p redis.Pipeliner) error {
		reply = s.queueHead(opCtx, p)
		return nil
	})
	if err != nil {
		return Head{}, fault(ctx, "read the head", err)
	}
	return reply.head()
}

// Load implements [Store].
func (s *Redis) Load(ctx context.Context) (Dump, error) {
	opCtx, cancel := context.WithTimeout(ctx, loadTimeout)
	defer cancel()
	var reply headReply
	var items *redis.MapStringStringCmd
	_, err := s.client.TxPipelined(opCtx, func(p redis.Pipeliner) error {
		reply = s.queueHead(opCtx, p)
		items = p.HGetAll(opCtx, s.keys[1])
		return nil
	})
	if err != nil {
		return Dump{}, fault(ctx, "load", err)
	}
	head, err := reply.head()
	if err != nil {
		return Dump{}, err
	}
	d := Dump{Head: head, Items: make([]Item, 0, len(items.Val()))}
	for key, value := range items.Val() {
		kind, id, ok := splitItemKey(key)
		if !ok {
			return Dump{}, damaged("an item's key is not valid")
		}
		d.Items = append(d.Items, Item{Kind: kind, ID: id, Value: []byte(value)})
	}
	return d, nil
}

// Commit implements [Store]. When the connection breaks before the answer, the same commit is sent again: its id lets
// the script find out that it was applied.
func (s *Redis) Commit(ctx context.Context, c Commit) (uint64, error) {
	if err := c.validate(); err != nil {
		return 0, err
	}
	c.complete()
	meta, err := (&revisionMeta{ID: c.ID, Time: c.Time, Actor: c.Actor, Action: c.Action}).encode()
	if err != nil {
		return 0, err
	}
	args := make([]any, 0, 9+2*len(c.Items))
	args = append(args, strconv.FormatUint(c.Base, 10), c.Epoch, rand.Text(), c.ID, formatTime(c.Time), meta,
		s.o.MaxRevisions, s.o.MaxLogBytes, s.channel)
	size := 0
	for _, it := range c.Items {
		args = append(args, itemKey(it.Kind, it.ID), it.Value)
		size += len(it.ID) + len(it.Value)
	}
	for attempt := 1; ; attempt++ {
		rev, err := s.run(ctx, commitScript, "commit", size, args)
		var unanswered *unansweredError
		if err == nil || !errors.As(err, &unanswered) || attempt == commitAttempts {
			return rev, err
		}
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(time.Duration(attempt) * 50 * time.Millisecond):
		}
	}
}

// unansweredError says that a script was perhaps sent, and that no answer came.
type unansweredError struct{ err error }

func (e *unansweredError) Error() string {
	return e.err.Error() + "; it is not known whether it was applied"
}
func (e *unansweredError) Unwrap() error { return e.err }

// run runs one of the two writing scripts. size is about what the arguments take.
func (s *Redis) run(ctx context.Context, script *redis.Script, doing string, size int, args []any) (uint64, error) {
	opCtx, cancel := context.WithTimeout(ctx, s.o.Timeout+time.Duration(size>>20)*time.Second)
	defer cancel()
	reply, err := script.Run(opCtx, s.client, s.keys, args...).StringSlice()
	if err != nil {
		answered := redis.Error(nil)
		if errors.As(err, &answered) || errors.Is(err, redis.ErrClosed) || ctx.Err() != nil {
			return 0, fault(ctx, doing, err)
		}
		return 0, &unansweredError{fault(ctx, doing, err)}
	}
	if len(reply) != 2 {
		return 0, damaged("unexpected answer of a script")
	}
	switch reply[0] {
	case "ok":
		return strconv.ParseUint(reply[1], 10, 64)
	case "conflict":
		return 0, fmt.Errorf("%w: at revision %s", ErrConflict, reply[1])
	default:
		return 0, damaged(reply[1])
	}
}

// Restore implements [Restorer].
func (s *Redis) Restore(ctx context.Context, d Dump) error {
	if d.Revision == 0 || d.Epoch == "" {
		return errors.New("store: nothing to restore")
	}
	args := make([]any, 0, 6+2*len(d.Items))
	args = append(args, d.Epoch, strconv.FormatUint(d.Revision, 10), d.ID, formatTime(d.Time), len(d.Items), s.channel)
	size := 0
	for _, it := range d.Items {
		args = append(args, itemKey(it.Kind, it.ID), it.Value)
		size += len(it.ID) + len(it.Value)
	}
	_, err := s.run(ctx, restoreScript, "restore", size, args)
	return err
}

// Revisions implements [Store].
func (s *Redis) Revisions(ctx context.Context, after uint64, limit int) ([]Revision, error) {
	var revs []Revision
	for limit <= 0 || len(revs) < limit {
		page := logPage
		if limit > 0 {
			page = min(page, limit-len(revs))
		}
		next, err := s.revisions(ctx, after, page)
		if err != nil {
			return nil, err
		}
		revs = append(revs, next...)
		if len(next) < page {
			break
		}
		after += uint64(len(next))
	}
	return revs, nil
}

func (s *Redis) revisions(ctx context.Context, after uint64, limit int) ([]Revision, error) {
	opCtx, cancel := context.WithTimeout(ctx, loadTimeout)
	defer cancel()
	var revision *redis.StringCmd
	var entries *redis.XMessageSliceCmd
	_, err := s.client.TxPipelined(opCtx, func(p redis.Pipeliner) error {
		revision = p.HGet(opCtx, s.keys[0], "revision")
		entries = p.XRangeN(opCtx, s.keys[2], strconv.FormatUint(after+1, 10)+"-0", "+", int64(limit))
		return nil
	})
	if err != nil && !errors.Is(err, redis.Nil) {
		return nil, fault(ctx, "read the revision log", err)
	}
	head, err := revision.Uint64()
	if errors.Is(err, redis.Nil) {
		return nil, nil
	}
	if err != nil {
		return nil, damaged("the head cannot be read")
	}
	if after >= head {
		return nil, nil
	}
	revs := make([]Revision, 0, len(entries.Val()))
	for _, entry := range entries.Val() {
		number, err := strconv.ParseUint(strings.TrimSuffix(entry.ID, "-0"), 10, 64)
		if err != nil {
			return nil, damaged("an entry of the revision log has no number")
		}
		if number != after+1+uint64(len(revs)) {
			break // a gap: what follows is of no use
		}
		meta, _ := entry.Values["meta"].(string)
		items, _ := entry.Values["items"].(string)
		r, err := decodeRevision(number, []byte(meta), []byte(items))
		if err != nil {
			return nil, damaged(err.Error())
		}
		revs = append(revs, r)
	}
	if len(revs) == 0 {
		return nil, fmt.Errorf("%w: revision %d is not there", ErrCompacted, after+1)
	}
	return revs, nil
}

// Watch implements [Store]. The subscription renews itself when the connection breaks.
func (s *Redis) Watch(ctx context.Context, notify func(revision uint64)) error {
	sub := s.client.Subscribe(ctx, s.channel)
	defer sub.Close()
	events := sub.ChannelWithSubscriptions(redis.WithChannelHealthCheckInterval(watchCheck))
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case event, ok := <-events:
			if !ok {
				return fmt.Errorf("%w: watch: the subscription ended", ErrUnavailable)
			}
			var revision uint64
			if m, ok := event.(*redis.Message); ok {
				revision, _ = strconv.ParseUint(m.Payload, 10, 64)
			}
			notify(revision)
		}
	}
}

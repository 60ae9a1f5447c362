package queue

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// read sends a pipeline of reads. An answer of nil is none of its errors.
func (q *Redis) read(ctx context.Context, doing string, size int, queue func(redis.Pipeliner)) error {
	if q.writes.isClosed() {
		return ErrStopped
	}
	opCtx, cancel := q.patience(ctx, size)
	defer cancel()
	cmds, err := q.client.Pipelined(opCtx, func(pipe redis.Pipeliner) error {
		queue(pipe)
		return nil
	})
	for _, cmd := range cmds {
		if cmdErr := cmd.Err(); cmdErr != nil && !errors.Is(cmdErr, redis.Nil) {
			return fault(ctx, doing, cmdErr)
		}
	}
	if err != nil && !errors.Is(err, redis.Nil) {
		return fault(ctx, doing, err)
	}
	return nil
}

// askTime asks the server that holds the keys for its time: in a cluster, a
// command without a key would go to any.
func (q *Redis) askTime(ctx context.Context, pipe redis.Pipeliner) *redis.Cmd {
	return pipe.Eval(ctx, "local t = redis.call('TIME') return t[1] * 1000 + math.floor(t[2] / 1000)", []string{q.key("stat")})
}

func answeredTime(cmd *redis.Cmd) time.Time {
	ms, _ := cmd.Int64()
	return fromMillis(ms)
}

// targets returns the ids of all targets that have something, and the time.
func (q *Redis) targets(ctx context.Context) (targets []string, now time.Time, err error) {
	var members *redis.StringSliceCmd
	var clock *redis.Cmd
	err = q.read(ctx, "list targets", 0, func(pipe redis.Pipeliner) {
		members, clock = pipe.SMembers(ctx, q.key("targets")), q.askTime(ctx, pipe)
	})
	if err != nil {
		return nil, time.Time{}, err
	}
	return members.Val(), answeredTime(clock), nil
}

// parked returns which targets are parked.
func (q *Redis) parked(ctx context.Context) (map[string]bool, error) {
	var until *redis.ZSliceCmd
	var clock *redis.Cmd
	err := q.read(ctx, "list parked targets", 0, func(pipe redis.Pipeliner) {
		until, clock = pipe.ZRangeWithScores(ctx, q.key("parked"), 0, -1), q.askTime(ctx, pipe)
	})
	if err != nil {
		return nil, err
	}
	parked := make(map[string]bool)
	for _, z := range until.Val() {
		if target, ok := z.Member.(string); ok && int64(z.Score) > answeredTime(clock).UnixMilli() {
			parked[target] = true
		}
	}
	return parked, nil
}

// Counts implements [Desk].
func (q *Redis) Counts(ctx context.Context) ([]Count, error) {
	targets, _, err := q.targets(ctx)
	if err != nil {
		return nil, err
	}
	parked, err := q.parked(ctx)
	if err != nil {
		return nil, err
	}
	type cards struct{ open, dead, done *redis.IntCmd }
	var stat *redis.MapStringStringCmd
	all := make([]cards, len(targets))
	err = q.read(ctx, "count", 0, func(pipe redis.Pipeliner) {
		stat = pipe.HGetAll(ctx, q.key("stat"))
		for i, target := range targets {
			all[i] = cards{
				pipe.ZCard(ctx, q.laneKey("open", target)), pipe.ZCard(ctx, q.laneKey("dead", target)),
				pipe.ZCard(ctx, q.laneKey("done", target)),
			}
		}
	})
	if err != nil {
		return nil, err
	}
	counts := make([]Count, len(targets))
	for i, target := range targets {
		counts[i] = Count{
			Target: target, Pending: int(all[i].open.Val()), Bytes: number(stat.Val()["bytes:"+target]),
			Parked: parked[target], Dead: int(all[i].dead.Val()), Delivered: int(all[i].done.Val()),
		}
	}
	return counts, nil
}

// find returns the record without its body; ErrNotFound.
func (q *Redis) find(ctx context.Context, id string) (*Record, error) {
	targets, _, err := q.targets(ctx)
	if err != nil {
		return nil, err
	}
	heads := make([]*redis.StringCmd, len(targets))
	err = q.read(ctx, "find a delivery", 0, func(pipe redis.Pipeliner) {
		for i, target := range targets {
			heads[i] = pipe.HGet(ctx, q.laneKey("heads", target), id)
		}
	})
	if err != nil {
		return nil, err
	}
	for _, cmd := range heads {
		if stored := cmd.Val(); stored != "" {
			return decodeHead([]byte(stored))
		}
	}
	return nil, ErrNotFound
}

// Get implements [Desk].
func (q *Redis) Get(ctx context.Context, id string) (*Record, error) {
	r, err := q.find(ctx, id)
	if err != nil {
		return nil, err
	}
	parked, err := q.parked(ctx)
	if err != nil {
		return nil, err
	}
	var body *redis.StringCmd
	var due *redis.FloatCmd
	err = q.read(ctx, "get a delivery", r.Size, func(pipe redis.Pipeliner) {
		body, due = pipe.HGet(ctx, q.laneKey("bodies", r.Target), id), pipe.ZScore(ctx, q.laneKey("due", r.Target), id)
	})
	if err != nil {
		return nil, err
	}
	fill(r, due.Val(), parked[r.Target])
	if stored := body.Val(); stored != "" {
		r.Body, err = q.o.Sealer.open(r, []byte(stored))
	}
	if err != nil && !errors.Is(err, ErrSealed) {
		return nil, err
	}
	return r, err
}

// fill adds what the head does not know. due is 0 for what is due already.
func fill(r *Record, due float64, parked bool) {
	if r.State != StatePending {
		return
	}
	if r.Next = fromMillis(int64(due)); due == 0 {
		r.Next = r.Since
	}
	if parked {
		r.State = StateParked
	}
}

// List implements [Desk].
func (q *Redis) List(ctx context.Context, f Filter) (Page, error) {
	targets, _, err := q.targets(ctx)
	if err != nil {
		return Page{}, err
	}
	parked, err := q.parked(ctx)
	if err != nil {
		return Page{}, err
	}
	if f.Target != "" {
		targets = []string{f.Target}
	}
	found, err := q.newest(ctx, targets, &f, parked)
	if err != nil {
		return Page{}, err
	}
	limit := f.limit()
	heads, due := make([]*redis.StringCmd, len(found)), make([]*redis.FloatCmd, len(found))
	err = q.read(ctx, "list", 0, func(pipe redis.Pipeliner) {
		for i, ref := range found {
			heads[i] = pipe.HGet(ctx, q.laneKey("heads", ref.target), ref.id)
			due[i] = pipe.ZScore(ctx, q.laneKey("due", ref.target), ref.id)
		}
	})
	if err != nil {
		return Page{}, err
	}
	records := make([]*Record, 0, len(found))
	for i, cmd := range heads {
		stored := cmd.Val()
		if stored == "" {
			continue // gone in the meantime
		}
		r, err := decodeHead([]byte(stored))
		if err != nil {
			return Page{}, err
		}
		fill(r, due[i].Val(), parked[r.Target])
		records = append(records, r)
	}
	page := Page{Records: records}
	if len(found) > limit {
		page.Next = found[limit-1].id
		page.Records = slices.DeleteFunc(records, func(r *Record) bool { return r.ID < page.Next })
	}
	return page, nil
}

// reference is where a delivery is.
type reference struct{ target, id string }

// newest returns the newest ids that the filter selects, one more than fit.
func (q *Redis) newest(ctx context.Context, targets []string, f *Filter, parked map[string]bool) (found []reference, err error) {
	type list struct {
		target string
		ids    *redis.StringSliceCmd
	}
	var lists []list
	by := &redis.ZRangeBy{Max: "+", Min: "-", Count: int64(f.limit() + 1)}
	if f.Cursor != "" {
		by.Max = "(" + f.Cursor
	}
	err = q.read(ctx, "list", 0, func(pipe redis.Pipeliner) {
		ask := func(name, target string) {
			lists = append(lists, list{target, pipe.ZRevRangeByLex(ctx, q.laneKey(name, target), by)})
		}
		for _, target := range targets {
			if f.State == 0 || (f.State == StatePending && !parked[target]) || (f.State == StateParked && parked[target]) {
				ask("open", target)
			}
			if f.State == 0 || f.State == StateDead {
				ask("dead", target)
			}
			if f.State == 0 || f.State == StateDelivered {
				ask("done", target)
			}
		}
	})
	if err != nil {
		return nil, err
	}
	for _, l := range lists {
		for _, id := range l.ids.Val() {
			found = append(found, reference{l.target, id})
		}
	}
	slices.SortFunc(found, func(a, b reference) int { return strings.Compare(b.id, a.id) })
	return found[:min(len(found), f.limit()+1)], nil
}

// Replay implements [Desk].
func (q *Redis) Replay(ctx context.Context, id string) error {
	r, err := q.find(ctx, id)
	switch {
	case err != nil:
		return err
	case r.State != StateDead:
		return ErrNotDead
	}
	n, err := q.ReplayEach(ctx, []*Record{r})
	if err == nil && n == 0 {
		return ErrNotDead
	}
	return err
}

// ReplayEach implements [Desk].
func (q *Redis) ReplayEach(ctx context.Context, listed []*Record) (int, error) {
	_, now, err := q.targets(ctx)
	if err != nil {
		return 0, err
	}
	writes := make([]*redisWrite, len(listed))
	for i, r := range listed {
		pending := *r
		pending.State, pending.Reason, pending.Ended = StatePending, "", time.Time{}
		pending.Replayed, pending.Since = r.Attempts, now
		writes[i] = q.newWrite(replayScript, r.Target, r.ID, encodeHead(&pending), orderKeyOf(r))
	}
	return q.writeAll(ctx, "replay", writes)
}

// Drop implements [Desk].
func (q *Redis) Drop(ctx context.Context, id string) error {
	r, err := q.find(ctx, id)
	if err != nil {
		return err
	}
	n, err := q.DropEach(ctx, []*Record{r})
	if err == nil && n == 0 {
		return ErrNotFound
	}
	return err
}

// DropEach implements [Desk].
func (q *Redis) DropEach(ctx context.Context, listed []*Record) (int, error) {
	writes := make([]*redisWrite, len(listed))
	for i, r := range listed {
		writes[i] = q.newWrite(dropScript, r.Target, r.ID)
	}
	return q.writeAll(ctx, "drop", writes)
}

// writeAll runs scripts that answer ok, or why there was nothing to do, and
// returns how many did something.
func (q *Redis) writeAll(ctx context.Context, doing string, writes []*redisWrite) (n int, err error) {
	for i, writeErr := range q.writes.doAll(writes) {
		switch {
		case writeErr != nil:
			err = firstError(err, fault(ctx, doing, writeErr))
		case writes[i].reply == "ok":
			n++
		}
	}
	return n, err
}

package queue

import (
	"context"
	"crypto/rand"
	_ "embed" // the scripts
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// RedisOptions configures [NewRedis].
type RedisOptions struct {
	// KeyPrefix and Instance are part of every key: prefix:{instance}:queue:name.
	// Defaults "execgate" and "default". The braces keep the keys of one instance
	// in one hash slot.
	KeyPrefix, Instance string
	// Visibility is how long a lease lasts without being renewed. Default 30s.
	Visibility time.Duration
	// Timeout bounds each exchange; large ones get more. Default 1s.
	Timeout time.Duration
	// Limits bound what is kept.
	Limits Limits
	// Sealer encrypts payloads. Nil: they are stored as they are.
	Sealer *Sealer
}

// Redis is a [Backend] that several gateways share: a standalone server, one
// behind Sentinel, or a Cluster; version 6.2 or later. Every target has a stream
// with a consumer group, a sorted set for what is due later, and hashes for what
// the deliveries are. Each change is one script. All times are those of the
// server.
//
// A delivery is as safe as Redis is. With appendfsync always nothing that was
// accepted is lost by a crash of the server; with everysec about the last second
// is; without AOF, all that came after the last snapshot. A failover loses what
// had not reached the replica. Use maxmemory-policy noeviction.
type Redis struct {
	o        RedisOptions
	limits   Limits
	client   redis.UniversalClient
	consumer string
	base     string
	writes   *committer[*redisWrite]
}

var _ Backend = (*Redis)(nil)

var (
	//go:embed lua/lane.lua
	laneSource string
	//go:embed lua/put.lua
	putSource string
	//go:embed lua/lease.lua
	leaseSource string
	//go:embed lua/settle.lua
	settleSource string
	//go:embed lua/renew.lua
	renewSource string
	//go:embed lua/replay.lua
	replaySource string
	//go:embed lua/drop.lua
	dropSource string
	//go:embed lua/maintain.lua
	maintainSource string
	//go:embed lua/ready.lua
	readySource string
	//go:embed lua/park.lua
	parkSource string

	putScript      = redis.NewScript(laneSource + putSource)
	leaseScript    = redis.NewScript(laneSource + leaseSource)
	settleScript   = redis.NewScript(laneSource + settleSource)
	renewScript    = redis.NewScript(laneSource + renewSource)
	replayScript   = redis.NewScript(laneSource + replaySource)
	dropScript     = redis.NewScript(laneSource + dropSource)
	maintainScript = redis.NewScript(laneSource + maintainSource)
	readyScript    = redis.NewScript(readySource)
	parkScript     = redis.NewScript(parkSource)
)

// consumerGone is after which time a consumer that holds nothing is forgotten.
const consumerGone = time.Hour

// NewRedis returns a queue in Redis. It does not connect. The client stays the
// caller's, and should obey contexts (ContextTimeoutEnabled).
func NewRedis(client redis.UniversalClient, o RedisOptions) (*Redis, error) {
	if strings.ContainsAny(o.KeyPrefix, "{}") {
		return nil, errors.New("queue: key_prefix must not hold braces: they choose the hash slot of the keys")
	}
	if o.KeyPrefix == "" {
		o.KeyPrefix = "execgate"
	}
	if o.Instance == "" {
		o.Instance = "default"
	}
	o.Visibility = orDefault(o.Visibility, 30*time.Second)
	o.Timeout = orDefault(o.Timeout, time.Second)
	host, _ := os.Hostname()
	q := &Redis{
		o: o, limits: o.Limits.complete(), client: client,
		consumer: fmt.Sprintf("%s-%d-%s", host, os.Getpid(), rand.Text()[:8]),
		base:     o.KeyPrefix + ":{" + url.PathEscape(o.Instance) + "}:queue:",
	}
	q.writes = newCommitter(16<<20, q.commit)
	return q, nil
}

// Close implements [Backend]. What this gateway leased is free when the
// visibility has passed; release it before.
func (q *Redis) Close() error {
	q.writes.close()
	return nil
}

// The keys. Those of one instance are in one hash slot.
func (q *Redis) key(name string) string             { return q.base + name }
func (q *Redis) laneKey(name, target string) string { return q.base + name + ":" + target }

func (q *Redis) laneKeys(target string) []string {
	return []string{
		q.key("lanes"), q.key("targets"), q.key("stat"),
		q.laneKey("stream", target), q.laneKey("due", target), q.laneKey("heads", target), q.laneKey("bodies", target),
		q.laneKey("open", target), q.laneKey("dead", target), q.laneKey("done", target),
		q.laneKey("order", target), q.laneKey("places", target),
	}
}

// redisWrite is a script that goes out together with others.
type redisWrite struct {
	script *redis.Script
	keys   []string
	args   []any
	reply  string
}

// commit sends a batch as one pipeline.
func (q *Redis) commit(batch []*pending[*redisWrite]) {
	size := 0
	for _, p := range batch {
		size += p.size
	}
	ctx, cancel := q.patience(context.Background(), size)
	defer cancel()
	replies := make([]*redis.Cmd, len(batch))
	_, _ = q.client.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for i, p := range batch {
			replies[i] = p.what.script.EvalSha(ctx, pipe, p.what.keys, p.what.args...)
		}
		return nil
	})
	for i, p := range batch {
		p.what.reply, p.err = replies[i].Text()
		if redis.HasErrorPrefix(p.err, "NOSCRIPT") {
			// A server that restarted, or another one: it learns the script.
			p.what.reply, p.err = p.what.script.Eval(ctx, q.client, p.what.keys, p.what.args...).Text()
		}
	}
}

// patience bounds an exchange of so many bytes.
func (q *Redis) patience(ctx context.Context, size int) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, q.o.Timeout+time.Duration(size>>20)*time.Second)
}

// write runs a script together with others, and returns its answer.
func (q *Redis) write(ctx context.Context, doing string, size int, script *redis.Script, target string, args ...any) (string, error) {
	w := q.newWrite(script, target, args...)
	if err := q.writes.do(ctx, size, w); err != nil {
		return "", fault(ctx, doing, err)
	}
	return w.reply, nil
}

// newWrite returns the write of a script on a lane.
func (q *Redis) newWrite(script *redis.Script, target string, args ...any) *redisWrite {
	return &redisWrite{script: script, keys: q.laneKeys(target), args: append([]any{target}, args...)}
}

// run runs a script by itself.
func (q *Redis) run(ctx context.Context, doing string, script *redis.Script, keys []string, args ...any) (any, error) {
	opCtx, cancel := q.patience(ctx, 0)
	defer cancel()
	reply, err := script.Run(opCtx, q.client, keys, args...).Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		return nil, fault(ctx, doing, err)
	}
	return reply, nil
}

// fault classifies an error of an exchange: the caller's own context, or Redis.
func fault(ctx context.Context, doing string, err error) error {
	switch {
	case errors.Is(err, ErrStopped):
		return err
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, context.DeadlineExceeded):
		err = errors.New("redis does not answer")
	}
	return fmt.Errorf("%w: %s: %w", ErrUnavailable, doing, err)
}

func unexpected(doing string) error {
	return fmt.Errorf("%w: %s: redis gave an unexpected answer", ErrUnavailable, doing)
}

// orderKeyOf keeps what the scripts take apart free of their separators.
func orderKeyOf(r *Record) string { return hex.EncodeToString([]byte(r.OrderKey)) }

// Put implements [Inbox].
func (q *Redis) Put(ctx context.Context, r *Record) error {
	if len(r.Body) > q.limits.MaxBody && !r.accepted {
		return ErrTooLarge
	}
	if !ValidID(r.ID) || r.Target == "" {
		return errors.New("queue: a delivery needs an id and a target")
	}
	stored := *r
	stored.Created, stored.Since, stored.Next = time.Time{}, time.Time{}, time.Time{}
	stored.Size = len(r.Body)
	accepted := "0"
	if r.accepted {
		accepted = "1"
	}
	body := q.o.Sealer.seal(r)
	reply, err := q.write(ctx, "put", len(body), putScript, r.Target,
		r.ID, encodeHead(&stored), body, stored.Size, orderKeyOf(r), accepted,
		q.limits.MaxPending, q.limits.MaxPendingPerTarget, q.limits.MaxBytes)
	switch {
	case err != nil:
		return err
	case reply == "full":
		return ErrFull
	case reply == "target_full":
		return ErrTargetFull
	}
	return nil
}

// Ready implements [Worker].
func (q *Redis) Ready(ctx context.Context) (targets []string, wait time.Duration, err error) {
	if q.writes.isClosed() {
		return nil, 0, ErrStopped
	}
	reply, err := q.run(ctx, "look for deliveries", readyScript, []string{q.key("lanes")})
	if err != nil {
		return nil, 0, err
	}
	answer, _ := reply.([]any)
	if len(answer) != 2 {
		return nil, 0, unexpected("look for deliveries")
	}
	found, _ := answer[0].([]any)
	for _, target := range found {
		if target, ok := target.(string); ok {
			targets = append(targets, target)
		}
	}
	wait = never
	if ms, _ := answer[1].(int64); ms >= 0 {
		wait = time.Duration(ms) * time.Millisecond
	}
	return targets, wait, nil
}

// Lease implements [Worker].
func (q *Redis) Lease(ctx context.Context, target string, limit int) ([]*Lease, error) {
	if q.writes.isClosed() {
		return nil, ErrStopped
	}
	if limit <= 0 {
		return nil, nil
	}
	reply, err := q.run(ctx, "lease", leaseScript, q.laneKeys(target), target, q.consumer, limit, q.o.Visibility.Milliseconds())
	if err != nil {
		return nil, err
	}
	answer, _ := reply.([]any)
	if len(answer) != 2 {
		return nil, unexpected("lease")
	}
	now, _ := answer[0].(int64)
	fields, _ := answer[1].([]any)
	leases := make([]*Lease, 0, len(fields)/4)
	for i := 0; i+3 < len(fields); i += 4 {
		entry, _ := fields[i].(string)
		id, _ := fields[i+1].(string)
		stored, _ := fields[i+2].(string)
		body, _ := fields[i+3].(string)
		l := &Lease{Now: fromMillis(now), token: entry, since: time.Now()}
		l.read(target, id, []byte(stored), []byte(body), q.o.Sealer)
		leases = append(leases, l)
	}
	return leases, nil
}

// Visibility implements [Worker].
func (q *Redis) Visibility() time.Duration { return q.o.Visibility }

// Renew implements [Worker].
func (q *Redis) Renew(ctx context.Context, leases []*Lease) (lost []*Lease, err error) {
	byTarget := make(map[string][]*Lease)
	for _, l := range leases {
		byTarget[l.Record.Target] = append(byTarget[l.Record.Target], l)
	}
	for target, held := range byTarget {
		args := []any{target, q.consumer}
		for _, l := range held {
			args = append(args, l.token)
		}
		reply, err := q.run(ctx, "renew leases", renewScript, q.laneKeys(target), args...)
		if err != nil {
			return lost, err
		}
		gone, _ := reply.([]any)
		for _, token := range gone {
			for _, l := range held {
				if l.token == token {
					lost = append(lost, l)
				}
			}
		}
	}
	return lost, nil
}

// Settle implements [Worker]. The success of a lease that is lost still counts,
// as long as the delivery is pending.
func (q *Redis) Settle(ctx context.Context, l *Lease, v Verdict) error {
	r := *l.Record
	var action string
	switch v.Action {
	case Delivered:
		action, r.State, r.Ended, r.Next = "delivered", StateDelivered, l.clock(), time.Time{}
	case Retry:
		action, r.State = "retry", StatePending
	case Dead:
		action, r.State, r.Ended, r.Next = "dead", StateDead, l.clock(), time.Time{}
	case Release:
		action = "release"
	default:
		return fmt.Errorf("queue: a lease cannot be settled with action %d", v.Action)
	}
	reply, err := q.write(ctx, "settle", 0, settleScript, r.Target,
		q.consumer, l.token, r.ID, action, encodeHead(&r), v.After.Milliseconds(),
		q.limits.Ledger, q.limits.MaxDead, q.limits.MaxDeadBytes)
	if err == nil && reply == "lost" {
		return ErrLeaseLost
	}
	return err
}

// Park implements [Worker].
func (q *Redis) Park(ctx context.Context, target string, d time.Duration) error {
	_, err := q.run(ctx, "park", parkScript, []string{q.key("parked")}, target, d.Milliseconds())
	return err
}

// Maintain implements [Worker].
func (q *Redis) Maintain(ctx context.Context) (expired int, err error) {
	targets, now, err := q.targets(ctx)
	if err != nil {
		return 0, err
	}
	before := firstID(now.Add(-q.limits.DeadFor))
	for _, target := range targets {
		reply, err := q.run(ctx, "maintain", maintainScript, q.laneKeys(target), target, before,
			q.limits.MaxDead, q.limits.MaxDeadBytes, consumerGone.Milliseconds())
		if err != nil {
			return expired, err
		}
		n, _ := reply.(int64)
		expired += int(n)
	}
	return expired, nil
}

func number(s string) int64 {
	n, _ := strconv.ParseInt(s, 10, 64)
	return n
}

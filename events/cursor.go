package events

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/redis/go-redis/v9"
)

// ErrNotHolder says that another gateway polls.
var ErrNotHolder = errors.New("another gateway polls the events")

// Cursor keeps the position of a [Poller].
type Cursor interface {
	// Acquire makes sure that this gateway is the one that polls, or returns
	// ErrNotHolder. If fresh, it was not before, and the position is to be loaded.
	Acquire(ctx context.Context) (fresh bool, err error)
	// Load returns the position, nil if there is none.
	Load(ctx context.Context) (*Position, error)
	// Save keeps the position, durably, or returns ErrNotHolder.
	Save(ctx context.Context, p *Position) error
	// Release lets another gateway poll.
	Release(ctx context.Context)
}

// FileCursor keeps the position in a file, for the one gateway that has it.
type FileCursor struct{ Path string }

// Acquire always succeeds.
func (c FileCursor) Acquire(context.Context) (bool, error) { return false, nil }

// Release does nothing.
func (c FileCursor) Release(context.Context) {}

// Load reads the file.
func (c FileCursor) Load(context.Context) (*Position, error) {
	text, err := os.ReadFile(c.Path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil //nolint:nilnil // there is none, as documented
	}
	if err != nil {
		return nil, fmt.Errorf("read the position in the events: %w", err)
	}
	return readPosition(text)
}

// Save replaces the file.
func (c FileCursor) Save(_ context.Context, p *Position) error {
	if err := c.write(p); err != nil {
		return fmt.Errorf("keep the position in the events: %w", err)
	}
	return nil
}

func (c FileCursor) write(p *Position) error {
	text, err := json.Marshal(p)
	if err != nil {
		return err
	}
	dir := filepath.Dir(c.Path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, filepath.Base(c.Path)+".*")
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), c.Path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// RedisCursorOptions configure a [RedisCursor].
type RedisCursorOptions struct {
	// KeyPrefix and Instance are part of every key: prefix:{instance}:events:name.
	KeyPrefix, Instance string
	// Lease is how long a gateway that died keeps the others from polling. 0: 30 s.
	Lease time.Duration
}

// RedisCursor keeps the position in Redis, with a lease, so that one gateway of
// a group polls. Each holder has a larger fencing token than the one before, and
// what is saved with a smaller one is refused.
type RedisCursor struct {
	client             redis.UniversalClient
	holder             string
	lease              time.Duration
	keyLease, keyFence string
	keyState           string
	fence              int64
}

// NewRedisCursor returns a cursor. It does not connect.
func NewRedisCursor(client redis.UniversalClient, o RedisCursorOptions) *RedisCursor {
	if o.Lease <= 0 {
		o.Lease = 30 * time.Second
	}
	base := o.KeyPrefix + ":{" + url.PathEscape(o.Instance) + "}:events:"
	return &RedisCursor{
		client: client, holder: rand.Text(), lease: o.Lease,
		keyLease: base + "lease", keyFence: base + "fence", keyState: base + "position",
	}
}

const redisTimeout = 2 * time.Second

var (
	acquireScript = redis.NewScript(`
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
if holder and tonumber(ARGV[3]) > 0 then return tonumber(ARGV[3]) end
return redis.call('INCR', KEYS[2])`)
	saveScript = redis.NewScript(`
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
local fence = redis.call('HGET', KEYS[3], 'fence')
if fence and tonumber(fence) > tonumber(ARGV[3]) then return 0 end
redis.call('HSET', KEYS[3], 'fence', ARGV[3], 'position', ARGV[4])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1`)
	releaseScript = redis.NewScript(`
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 1`)
)

func (c *RedisCursor) run(ctx context.Context, script *redis.Script, args ...any) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, redisTimeout)
	defer cancel()
	n, err := script.Run(ctx, c.client, []string{c.keyLease, c.keyFence, c.keyState}, append([]any{c.holder, c.lease.Milliseconds()}, args...)...).Int64()
	if err != nil {
		return 0, errors.New("redis cannot be asked for the position in the events")
	}
	return n, nil
}

// Acquire takes or renews the lease.
func (c *RedisCursor) Acquire(ctx context.Context) (fresh bool, err error) {
	fence, err := c.run(ctx, acquireScript, c.fence)
	if err != nil {
		return false, err
	}
	if fence == 0 {
		c.fence = 0
		return false, ErrNotHolder
	}
	fresh, c.fence = fence != c.fence, fence
	return fresh, nil
}

// Load reads the position.
func (c *RedisCursor) Load(ctx context.Context) (*Position, error) {
	ctx, cancel := context.WithTimeout(ctx, redisTimeout)
	defer cancel()
	text, err := c.client.HGet(ctx, c.keyState, "position").Bytes()
	if errors.Is(err, redis.Nil) {
		return nil, nil //nolint:nilnil // there is none, as documented
	}
	if err != nil {
		return nil, errors.New("redis cannot be asked for the position in the events")
	}
	return readPosition(text)
}

// Save keeps the position and renews the lease.
func (c *RedisCursor) Save(ctx context.Context, p *Position) error {
	text, err := json.Marshal(p)
	if err != nil {
		return err
	}
	kept, err := c.run(ctx, saveScript, c.fence, text)
	if err == nil && kept == 0 {
		c.fence = 0
		return ErrNotHolder
	}
	return err
}

// Release gives the lease back.
func (c *RedisCursor) Release(ctx context.Context) { _, _ = c.run(ctx, releaseScript) }

package store_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/execgate/execgate/internal/testkit"
	"github.com/execgate/execgate/store"
)

var stateKeys = []string{"execgate:{default}:head", "execgate:{default}:items", "execgate:{default}:log"}

func TestRedisAway(t *testing.T) {
	t.Parallel()
	server := testkit.StartRedis(t, testkit.RedisOptions{AOF: true})
	var mu sync.Mutex
	var ups []bool
	r := redisReplica(t, server, store.ReplicaOptions{OnUp: func(up bool) {
		mu.Lock()
		defer mu.Unlock()
		ups = append(ups, up)
	}})
	put(t, r, "1", "a")
	for _, how := range []struct{ away, back func() }{
		{server.Kill, server.Restart},
		{server.Freeze, server.Thaw},
	} {
		how.away()
		eventually(t, "the replica to notice", func() bool { return !r.Up() })
		if !errors.Is(r.Err(), store.ErrUnavailable) {
			t.Fatalf("err is %v", r.Err())
		}
		equal(t, targetIDs(r.State()), "1")
		began := time.Now()
		_, err := r.Update(t.Context(), "", "", func(*store.State) ([]store.Item, error) {
			t.Error("fn was called")
			return nil, nil
		})
		if !errors.Is(err, store.ErrUnavailable) {
			t.Fatalf("update: got error %v", err)
		}
		s, err := r.Fresh(t.Context())
		if !errors.Is(err, store.ErrUnavailable) || targetIDs(s) != "1" {
			t.Fatalf("fresh: got %v, %v", s, err)
		}
		if d := time.Since(began); d > 6*time.Second {
			t.Fatalf("took %v", d)
		}
		how.back()
		within(t, 6*time.Second, "the replica to recover", r.Up)
		equal(t, r.Err(), nil)
		put(t, r, "1", "again "+time.Now().String())
	}
	mu.Lock()
	defer mu.Unlock()
	equal(t, fmt.Sprint(ups), "[true false true false true]")
}

func TestRestartWhileRedisIsAway(t *testing.T) {
	t.Parallel()
	server := testkit.StartRedis(t, testkit.RedisOptions{AOF: true})
	path := filepath.Join(t.TempDir(), "data", "copy.db")
	r := redisReplica(t, server, store.ReplicaOptions{CopyPath: path})
	put(t, r, "1", "a")
	want := put(t, r, "2", "b")
	stopReplica(t, r)
	fi, err := os.Stat(path)
	if err != nil || fi.Mode().Perm() != 0o600 {
		t.Fatalf("copy: %v, %v", fi, err)
	}
	server.Kill()

	began := time.Now()
	r = redisReplica(t, server, store.ReplicaOptions{CopyPath: path})
	if d := time.Since(began); d > 5*time.Second {
		t.Fatalf("start took %v", d)
	}
	equal(t, r.Up(), false)
	equal(t, r.State().Head().ID, want.Head().ID)
	equal(t, targetIDs(r.State()), "1 2")
	server.Restart()
	within(t, 6*time.Second, "the replica to recover", r.Up)
	equal(t, put(t, r, "3", "c").Revision(), 3)
	equal(t, server.Client().HGet(t.Context(), stateKeys[0], "restored").Val(), "")
	stopReplica(t, r)
	if files, _ := os.ReadDir(filepath.Dir(path)); len(files) != 1 {
		t.Fatalf("left behind: %v", files)
	}
}

func TestStartWithoutRedisAndCopy(t *testing.T) {
	t.Parallel()
	server := testkit.StartRedis(t, testkit.RedisOptions{AOF: true})
	put(t, redisReplica(t, server, store.ReplicaOptions{}), "1", "a")
	server.Kill()
	r := redisReplica(t, server, store.ReplicaOptions{CopyPath: filepath.Join(t.TempDir(), "copy.db")})
	if r.State() != nil || r.Up() {
		t.Fatal("a state out of nothing")
	}
	if s, err := r.Fresh(t.Context()); s != nil || !errors.Is(err, store.ErrUnavailable) {
		t.Fatalf("fresh: got %v, %v", s, err)
	}
	told := make(chan string, 1)
	r.Subscribe(func(s *store.State) { told <- targetIDs(s) })
	server.Restart()
	equal(t, <-told, "1")
	eventually(t, "the replica to be up", r.Up)
}

// A Redis that keeps nothing and is restarted gets the configuration back from the gateways.
func TestRedisRestartedWithoutPersistence(t *testing.T) {
	t.Parallel()
	server := testkit.StartRedis(t, testkit.RedisOptions{})
	ahead := redisReplica(t, server, store.ReplicaOptions{})
	behind := startReplica(t, deaf{openRedis(t, store.RedisOptions{URL: server.URL})}, store.ReplicaOptions{PollInterval: never})
	put(t, ahead, "1", "a")
	if _, err := behind.Fresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	put(t, ahead, "2", "b")
	equal(t, targetIDs(behind.State()), "1")

	stopReplica(t, ahead) // so that the one that knows less comes first
	server.Restart()
	eventually(t, "the first to put back what it knows", func() bool {
		s, err := behind.Fresh(t.Context())
		return err == nil && targetIDs(s) == "1"
	})
	equal(t, server.Client().HGet(t.Context(), stateKeys[0], "revision").Val(), "1")

	s, err := ahead.Fresh(t.Context()) // and the better informed one later
	equal(t, err, nil)
	equal(t, targetIDs(s), "1 2")
	equal(t, server.Client().HGet(t.Context(), stateKeys[0], "revision").Val(), "2")
	s, err = behind.Fresh(t.Context())
	equal(t, err, nil)
	equal(t, targetIDs(s), "1 2")
	equal(t, put(t, behind, "3", "c").Revision(), 3)
	s, err = ahead.Fresh(t.Context())
	equal(t, err, nil)
	equal(t, targetIDs(s), "1 2 3")
}

func TestRedisFlushedWhileServing(t *testing.T) {
	t.Parallel()
	server := testkit.StartRedis(t, testkit.RedisOptions{})
	path := filepath.Join(t.TempDir(), "copy.db")
	r := redisReplica(t, server, store.ReplicaOptions{CopyPath: path})
	put(t, r, "1", "a")
	client := server.Client()
	for name, lose := range map[string]func() error{
		"flush":         func() error { return client.FlushAll(t.Context()).Err() },
		"items evicted": func() error { return client.Del(t.Context(), stateKeys[1]).Err() },
		"head evicted":  func() error { return client.Del(t.Context(), stateKeys[0]).Err() },
	} {
		if err := lose(); err != nil {
			t.Fatal(err)
		}
		within(t, 3*time.Second, name+": the configuration to come back", func() bool {
			n, err := client.Exists(t.Context(), stateKeys[0], stateKeys[1]).Result()
			equal(t, targetIDs(r.State()), "1")
			return err == nil && n == 2
		})
		put(t, r, "1", name)
	}
	// The log is the only thing whose loss is borne: it begins anew.
	if err := client.Del(t.Context(), stateKeys[2]).Err(); err != nil {
		t.Fatal(err)
	}
	put(t, r, "2", "b")
	other := redisReplica(t, server, store.ReplicaOptions{})
	equal(t, targetIDs(other.State()), "1 2")

	// Over a restart of both as well.
	stopReplica(t, r)
	stopReplica(t, other)
	server.Restart()
	r = redisReplica(t, server, store.ReplicaOptions{CopyPath: path})
	equal(t, r.Up(), true)
	equal(t, targetIDs(r.State()), "1 2")
	equal(t, client.HGet(t.Context(), stateKeys[0], "restored").Val(), "1")
}

// snapshotRedis remembers the keys of the store; the returned function puts them back, as a failover to a replica that
// was behind does.
func snapshotRedis(t testing.TB, c *redis.Client) (putBack func()) {
	t.Helper()
	dumps := make([]string, len(stateKeys))
	for i, key := range stateKeys {
		var err error
		if dumps[i], err = c.Dump(t.Context(), key).Result(); err != nil {
			t.Fatal(err)
		}
	}
	return func() {
		t.Helper()
		_, err := c.TxPipelined(t.Context(), func(p redis.Pipeliner) error {
			for i, key := range stateKeys {
				p.RestoreReplace(t.Context(), key, 0, dumps[i])
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestStoreThatWentBackIsFollowed(t *testing.T) {
	t.Parallel()
	server := testkit.StartRedis(t, testkit.RedisOptions{})
	path := filepath.Join(t.TempDir(), "copy.db")
	r := redisReplica(t, server, store.ReplicaOptions{CopyPath: path, PollInterval: never})
	other := redisReplica(t, server, store.ReplicaOptions{})
	put(t, r, "1", "a")
	putBack := snapshotRedis(t, server.Client())
	put(t, r, "2", "b")

	putBack()
	s, err := r.Fresh(t.Context())
	equal(t, err, nil)
	equal(t, targetIDs(s), "1")
	previous, _, err := store.ReadCopy(path + ".previous")
	if err != nil || previous.Revision != 2 || len(previous.Items) != 2 {
		t.Fatalf("previous: %+v, %v", previous, err)
	}

	// Back and on, past what was known: the lost change must not shine through.
	put(t, r, "3", "c")
	if _, err := other.Fresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	stopReplica(t, other)
	putBack()
	put(t, r, "4", "d")
	put(t, r, "5", "e")
	s, err = other.Fresh(t.Context())
	equal(t, err, nil)
	equal(t, targetIDs(s), "1 4 5")
}

func TestStoreWithAnotherHistoryIsFollowed(t *testing.T) {
	t.Parallel()
	server := testkit.StartRedis(t, testkit.RedisOptions{})
	path := filepath.Join(t.TempDir(), "copy.db")
	r := redisReplica(t, server, store.ReplicaOptions{CopyPath: path})
	put(t, r, "1", "a")
	stopReplica(t, r)
	if err := server.Client().FlushAll(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	put(t, redisReplica(t, server, store.ReplicaOptions{}), "2", "b") // a gateway that knew nothing

	r = redisReplica(t, server, store.ReplicaOptions{CopyPath: path})
	equal(t, targetIDs(r.State()), "2")
	previous, _, err := store.ReadCopy(path + ".previous")
	if err != nil || len(previous.Items) != 1 || previous.Items[0].ID != "1" {
		t.Fatalf("previous: %+v, %v", previous, err)
	}
}

func TestCopyOfAnotherStoreIsNotUsed(t *testing.T) {
	t.Parallel()
	one, two := testkit.StartRedis(t, testkit.RedisOptions{}), testkit.StartRedis(t, testkit.RedisOptions{})
	path := filepath.Join(t.TempDir(), "copy.db")
	r := redisReplica(t, one, store.ReplicaOptions{CopyPath: path})
	put(t, r, "1", "a")
	stopReplica(t, r)
	r = redisReplica(t, two, store.ReplicaOptions{CopyPath: path})
	equal(t, r.State().Revision(), 0)
	if d, _, err := store.ReadCopy(path + ".previous"); err != nil || d.Revision != 1 {
		t.Fatalf("previous: %+v, %v", d, err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("copy: %v", err)
	}
}

func TestBrokenCopyIsNotUsed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "copy")
	d := store.Dump{Head: store.Head{Epoch: "e", Revision: 3, ID: "c", Time: day}, Items: []store.Item{
		targetItem(t, "1", "a", 0), {Kind: "k", ID: "a/b", Value: []byte("1")},
	}}
	if err := store.WriteCopy(path, "here", d); err != nil {
		t.Fatal(err)
	}
	got, identity, err := store.ReadCopy(path)
	if err != nil || identity != "here" || fmt.Sprint(got) != fmt.Sprint(d) {
		t.Fatalf("got %v of %q, %v", got, identity, err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range len(whole) {
		for name, b := range map[string][]byte{
			"cut":     whole[:i],
			"flipped": append(append(append([]byte{}, whole[:i]...), whole[i]^1), whole[i+1:]...),
		} {
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
			if _, _, err := store.ReadCopy(path); err == nil {
				t.Fatalf("%s at %d of %d bytes was read", name, i, len(whole))
			}
		}
	}
	s := openRedis(t, store.RedisOptions{Addrs: []string{"127.0.0.1:1"}})
	r := startReplica(t, s, store.ReplicaOptions{CopyPath: path})
	if r.State() != nil {
		t.Fatal("a broken copy was used")
	}
}

func TestUnusableStateIsRefusedWhole(t *testing.T) {
	t.Parallel()
	server := testkit.StartRedis(t, testkit.RedisOptions{})
	raw := openRedis(t, store.RedisOptions{URL: server.URL})
	r := redisReplica(t, server, store.ReplicaOptions{Check: func(s *store.State) error {
		if s.Target("unwanted") != nil {
			return errors.New("unwanted")
		}
		return nil
	}})
	good := put(t, r, "1", "a")
	commit := func(base uint64, items ...store.Item) {
		t.Helper()
		if _, err := raw.Commit(t.Context(), store.Commit{Base: base, Items: items}); err != nil {
			t.Fatal(err)
		}
	}
	commit(1, targetItem(t, "2", "b", 0), store.Item{Kind: store.KindTarget, ID: "3", Value: []byte(`{"name":1}`)})
	eventually(t, "the refusal", func() bool { return !r.Up() })
	if err := r.Err(); !errors.Is(err, store.ErrUnavailable) || !strings.Contains(err.Error(), `target "3"`) {
		t.Fatalf("err is %v", err)
	}
	equal(t, r.State(), good)
	fresh := redisReplica(t, server, store.ReplicaOptions{})
	if fresh.State() != nil {
		t.Fatal("loaded what it cannot decode")
	}
	_, err := r.Update(t.Context(), "", "", nil)
	if !errors.Is(err, store.ErrUnavailable) {
		t.Fatalf("update: got error %v", err)
	}

	commit(2, store.Absent(store.KindTarget, "3"))
	within(t, 3*time.Second, "the recovery", r.Up)
	equal(t, targetIDs(r.State()), "1 2")

	commit(3, targetItem(t, "unwanted", "c", 0))
	eventually(t, "the refusal", func() bool { return !r.Up() })
	equal(t, targetIDs(r.State()), "1 2")
	commit(4, store.Absent(store.KindTarget, "unwanted"))
	within(t, 3*time.Second, "the recovery", r.Up)
	equal(t, r.State().Revision(), 5)
}

// A connection that breaks after the server has got the commit, and before the answer came, leaves it applied once, and
// the update succeeds.
func TestUnknownOutcomeIsFoundOut(t *testing.T) {
	t.Parallel()
	server := testkit.StartRedis(t, testkit.RedisOptions{})
	var cut atomic.Bool
	addr := cuttingProxy(t, server.Addr, &cut)
	s := openRedis(t, store.RedisOptions{Addrs: []string{addr}})
	r := startReplica(t, s, store.ReplicaOptions{PollInterval: never})
	put(t, r, "0", "0") // the script is known now
	for i := range 5 {
		calls := 0
		before := r.State().Revision()
		state, err := r.Update(t.Context(), "", "", func(*store.State) ([]store.Item, error) {
			calls++
			cut.Store(true)
			return []store.Item{targetItem(t, "1", fmt.Sprint("name ", i), 0)}, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		equal(t, cut.Load(), false)
		equal(t, calls, 1)
		equal(t, state.Revision(), before+1)
		equal(t, server.Client().HGet(t.Context(), stateKeys[0], "revision").Val(), fmt.Sprint(before+1))
	}
}

package store_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/execgate/execgate/internal/testkit"
	"github.com/execgate/execgate/store"
	"github.com/execgate/execgate/store/storetest"
)

var noContext = context.Background()

func openRedis(t testing.TB, o store.RedisOptions) *store.Redis {
	t.Helper()
	s, err := store.OpenRedis(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// redisBackends returns what storetest.Run needs: places that differ by their instance on one Redis.
func redisBackends(o store.RedisOptions, client redis.UniversalClient) func(t testing.TB) storetest.Backend {
	return func(t testing.TB) storetest.Backend {
		o := o
		o.Instance = t.Name()
		base := "execgate:{" + strings.ReplaceAll(t.Name(), "/", "%2F") + "}:"
		wipe := func(t testing.TB) {
			n, err := client.Del(t.Context(), base+"head", base+"items", base+"log").Result()
			if err != nil || n == 0 {
				t.Fatalf("wipe: %d keys, %v", n, err)
			}
		}
		t.Cleanup(func() { _ = client.Del(noContext, base+"head", base+"items", base+"log").Err() })
		return storetest.Backend{
			Open: func(t testing.TB, l storetest.Limits) store.Store {
				o := o
				o.MaxRevisions, o.MaxLogBytes = l.MaxRevisions, l.MaxLogBytes
				return openRedis(t, o)
			},
			Wipe: wipe,
			Damage: func(t testing.TB) {
				if n, err := client.HDel(t.Context(), base+"items", "thing/a").Result(); err != nil || n != 1 {
					t.Fatalf("damage: %d, %v", n, err)
				}
			},
		}
	}
}

func TestRedisConformance(t *testing.T) {
	t.Parallel()
	r := testkit.StartRedis(t, testkit.RedisOptions{})
	storetest.Run(t, redisBackends(store.RedisOptions{URL: r.URL}, r.Client()))
}

func TestRedisClusterConformance(t *testing.T) {
	t.Parallel()
	c := testkit.StartRedisCluster(t, testkit.RedisOptions{})
	client := redis.NewClusterClient(&redis.ClusterOptions{Addrs: c.Addrs})
	t.Cleanup(func() { _ = client.Close() })
	storetest.Run(t, redisBackends(store.RedisOptions{Addrs: c.Addrs[:1], Cluster: true}, client))
}

// exercise commits, loads, reads the log and sees a notice.
func exercise(t *testing.T, o store.RedisOptions) {
	t.Helper()
	s, other := openRedis(t, o), openRedis(t, o)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	told := make(chan uint64, 10)
	watched := make(chan struct{})
	watchCtx, stop := context.WithCancel(ctx)
	go func() {
		defer close(watched)
		_ = s.Watch(watchCtx, func(rev uint64) { told <- rev })
	}()
	defer func() { stop(); <-watched }()
	<-told
	if rev, err := other.Commit(ctx, store.Commit{Items: []store.Item{{Kind: "k", ID: "a", Value: []byte("1")}}}); err != nil || rev != 1 {
		t.Fatalf("commit: %d, %v", rev, err)
	}
	for rev := uint64(0); rev != 1; {
		select {
		case rev = <-told:
		case <-ctx.Done():
			t.Fatal("no notice")
		}
	}
	d, err := s.Load(ctx)
	if err != nil || d.Revision != 1 || len(d.Items) != 1 {
		t.Fatalf("load: %+v, %v", d, err)
	}
	if revs, err := s.Revisions(ctx, 0, 0); err != nil || len(revs) != 1 {
		t.Fatalf("revisions: %v, %v", revs, err)
	}
}

func TestRedisConnections(t *testing.T) {
	t.Parallel()
	t.Run("password in the url", func(t *testing.T) {
		t.Parallel()
		r := testkit.StartRedis(t, testkit.RedisOptions{Password: "p@ss/w:rd"})
		exercise(t, store.RedisOptions{URL: r.URL})
	})
	t.Run("password beside the address", func(t *testing.T) {
		t.Parallel()
		r := testkit.StartRedis(t, testkit.RedisOptions{Password: "secret"})
		exercise(t, store.RedisOptions{Addrs: []string{r.Addr}, Password: "secret", DB: 3})
		_, err := openRedis(t, store.RedisOptions{Addrs: []string{r.Addr}, Password: "wrong"}).Head(t.Context())
		if !errors.Is(err, store.ErrUnavailable) || !strings.Contains(err.Error(), "WRONGPASS") {
			t.Fatalf("got error %v", err)
		}
	})
	t.Run("tls", func(t *testing.T) {
		t.Parallel()
		r := testkit.StartRedis(t, testkit.RedisOptions{TLS: true})
		exercise(t, store.RedisOptions{URL: r.URL, CAFile: r.CAFile})
		_, err := openRedis(t, store.RedisOptions{URL: r.URL}).Head(t.Context())
		if !errors.Is(err, store.ErrUnavailable) || !strings.Contains(err.Error(), "certificate") {
			t.Fatalf("got error %v for a server with an unknown CA", err)
		}
		_, err = openRedis(t, store.RedisOptions{URL: r.URL, CAFile: r.CAFile, ServerName: "elsewhere"}).Head(t.Context())
		if !errors.Is(err, store.ErrUnavailable) {
			t.Fatalf("got error %v for a server of another name", err)
		}
	})
	t.Run("tls with client certificate", func(t *testing.T) {
		t.Parallel()
		r := testkit.StartRedis(t, testkit.RedisOptions{TLS: true, TLSClients: true, Password: "secret"})
		exercise(t, store.RedisOptions{
			Addrs: []string{r.Addr}, Password: "secret", CAFile: r.CAFile, CertFile: r.CertFile, KeyFile: r.KeyFile,
		})
		_, err := openRedis(t, store.RedisOptions{URL: r.URL, CAFile: r.CAFile}).Head(t.Context())
		if !errors.Is(err, store.ErrUnavailable) {
			t.Fatalf("got error %v without a client certificate", err)
		}
	})
	t.Run("a user with as few rights as documented", func(t *testing.T) {
		t.Parallel()
		r := testkit.StartRedis(t, testkit.RedisOptions{})
		for _, user := range []string{
			"full on >secret ~execgate:* &execgate:* -@all +@read +@write +@scripting +@transaction +@connection +@pubsub",
			"silent on >secret ~other:* resetchannels -@all +@read +@write +@scripting +@transaction +@connection +@pubsub",
		} {
			args := []any{"acl", "setuser"}
			for _, word := range strings.Fields(user) {
				args = append(args, word)
			}
			if err := r.Client().Do(t.Context(), args...).Err(); err != nil {
				t.Fatal(err)
			}
		}
		exercise(t, store.RedisOptions{URL: r.URL, Username: "full", Password: "secret"})

		// Without the channel the poll remains.
		o := store.RedisOptions{URL: r.URL, Username: "silent", Password: "secret", KeyPrefix: "other"}
		one := startReplica(t, openRedis(t, o), store.ReplicaOptions{})
		two := startReplica(t, openRedis(t, o), store.ReplicaOptions{})
		put(t, one, "1", "a")
		within(t, time.Second, "the poll", sees(two, "1"))
	})
	t.Run("sentinel, over a failover", func(t *testing.T) {
		t.Parallel()
		r := testkit.StartRedisSentinel(t, testkit.RedisOptions{Password: "secret"})
		o := store.RedisOptions{Addrs: r.Addrs, MasterName: r.MasterName, Password: "secret"}
		exercise(t, o)
		s := openRedis(t, o)
		replica := r.Replica.Client()
		eventually(t, "the replica to have the commit", func() bool {
			return replica.HLen(t.Context(), "execgate:{default}:items").Val() == 1
		})
		gateway := startReplica(t, openRedis(t, o), store.ReplicaOptions{})
		equal(t, gateway.State().Revision(), 1)
		r.Master.Kill()
		eventually(t, "a commit after the failover", func() bool {
			_, err := s.Commit(t.Context(), store.Commit{Base: 1, Items: []store.Item{{Kind: "k", ID: "b", Value: []byte("2")}}})
			return err == nil
		})
		if d, err := s.Load(t.Context()); err != nil || d.Revision != 2 || len(d.Items) != 2 {
			t.Fatalf("load: %+v, %v", d, err)
		}
		within(t, 6*time.Second, "the replica to follow the new master", func() bool {
			return gateway.Up() && gateway.State().Revision() == 2
		})
	})
}

func TestRedisOptionErrors(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		o    store.RedisOptions
		want string
	}{
		"nothing":              {store.RedisOptions{}, "neither url nor addrs"},
		"not a url":            {store.RedisOptions{URL: "redis://user:sec ret@%zz:1"}, "cannot be parsed"},
		"unencoded password":   {store.RedisOptions{URL: "redis://:sec/ret@host:1/0"}, "redis url"},
		"another scheme":       {store.RedisOptions{URL: "http://:secret@host"}, "not valid"},
		"a database in words":  {store.RedisOptions{URL: "redis://:secret@host/main"}, "not valid"},
		"a client's parameter": {store.RedisOptions{URL: "redis://host?pool_size=3"}, `"pool_size" is not supported`},
		"sentinel and cluster": {store.RedisOptions{Addrs: []string{"a:1"}, MasterName: "m", Cluster: true}, "exclude each other"},
		"several addresses":    {store.RedisOptions{Addrs: []string{"a:1", "b:1"}}, "need master_name"},
		"database in cluster":  {store.RedisOptions{Addrs: []string{"a:1"}, Cluster: true, DB: 1}, "no databases"},
		"braces in the prefix": {store.RedisOptions{Addrs: []string{"a:1"}, KeyPrefix: "x{y}"}, "braces"},
		"missing CA":           {store.RedisOptions{Addrs: []string{"a:1"}, CAFile: "/nonexistent"}, "read the CA"},
		"CA without a cert":    {store.RedisOptions{Addrs: []string{"a:1"}, CAFile: "redis.go"}, "no PEM certificate"},
		"cert without key":     {store.RedisOptions{Addrs: []string{"a:1"}, CertFile: "redis.go"}, "both cert_file and key_file"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := store.OpenRedis(tt.o)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got error %v, want one with %q", err, tt.want)
			}
			if strings.Contains(err.Error(), "sec") {
				t.Fatalf("error %v holds the password", err)
			}
		})
	}
}

func TestRedisIdentityHoldsNoCredentials(t *testing.T) {
	t.Parallel()
	for want, o := range map[string]store.RedisOptions{
		"redis h:1/2 execgate:{default}":       {URL: "redis://user:secret@h:1/2"},
		"redis h:1/0 p:{a%7Bb}":                {Addrs: []string{"h:1"}, Password: "secret", KeyPrefix: "p", Instance: "a{b"},
		"redis sentinel m/1 execgate:{x}":      {Addrs: []string{"b:1", "a:1"}, MasterName: "m", DB: 1, Instance: "x"},
		"redis cluster a:1,b:1 execgate:{a:b}": {Addrs: []string{"b:1", "a:1"}, Cluster: true, Instance: "a:b"},
	} {
		if got := openRedis(t, o).Identity(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestRedisInstancesDoNotMeet(t *testing.T) {
	t.Parallel()
	r := testkit.StartRedis(t, testkit.RedisOptions{})
	for i, o := range []store.RedisOptions{
		{}, {Instance: "other"}, {KeyPrefix: "other"}, {DB: 1}, {Instance: "a}b"}, {Instance: "a{b"},
	} {
		o.URL = r.URL
		s := openRedis(t, o)
		if h, err := s.Head(t.Context()); err != nil || h.Revision != 0 {
			t.Fatalf("store %d: %+v, %v", i, h, err)
		}
		if _, err := s.Commit(t.Context(), store.Commit{Items: []store.Item{{Kind: "k", ID: "a", Value: []byte("1")}}}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestRedisSurvivesKill(t *testing.T) {
	t.Parallel()
	r := testkit.StartRedis(t, testkit.RedisOptions{AOF: true})
	s := openRedis(t, store.RedisOptions{URL: r.URL})
	var acknowledged uint64
	for round := range 3 {
		stopped := make(chan struct{})
		reached := make(chan struct{})
		go func() {
			defer close(stopped)
			for n := 0; ; n++ {
				items := []store.Item{{Kind: "k", ID: fmt.Sprint(acknowledged + 1), Value: []byte("1")}}
				rev, err := s.Commit(t.Context(), store.Commit{Base: acknowledged, Items: items})
				if err != nil {
					return
				}
				acknowledged = rev
				if n == 20+10*round {
					close(reached)
				}
			}
		}()
		<-reached
		r.Kill()
		<-stopped
		r.Restart()
		var d store.Dump
		eventually(t, "the server to answer", func() bool {
			var err error
			d, err = s.Load(t.Context())
			return err == nil
		})
		if d.Revision < acknowledged || d.Revision > acknowledged+1 || uint64(len(d.Items)) != d.Revision {
			t.Fatalf("revision %d with %d items after %d acknowledged", d.Revision, len(d.Items), acknowledged)
		}
		acknowledged = d.Revision
	}
}

func TestRedisSurvivesScriptFlush(t *testing.T) {
	t.Parallel()
	r := testkit.StartRedis(t, testkit.RedisOptions{})
	s, client := openRedis(t, store.RedisOptions{URL: r.URL}), r.Client()
	for i := range uint64(3) {
		if _, err := s.Commit(t.Context(), store.Commit{Base: i, Items: []store.Item{{Kind: "k", ID: "a", Value: []byte(fmt.Sprint(i))}}}); err != nil {
			t.Fatal(err)
		}
		if err := client.ScriptFlush(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestRedisAwayIsBounded(t *testing.T) {
	t.Parallel()
	r := testkit.StartRedis(t, testkit.RedisOptions{})
	s := openRedis(t, store.RedisOptions{URL: r.URL, Timeout: 300 * time.Millisecond})
	commit := func() error {
		_, err := s.Commit(t.Context(), store.Commit{Items: []store.Item{{Kind: "k", ID: "a", Value: []byte("1")}}})
		return err
	}
	check := func(how string) {
		t.Helper()
		for name, op := range map[string]func() error{
			"head":   func() error { _, err := s.Head(t.Context()); return err },
			"commit": commit,
		} {
			began := time.Now()
			if err := op(); !errors.Is(err, store.ErrUnavailable) {
				t.Fatalf("%s of a server that %s: got error %v", name, how, err)
			}
			if d := time.Since(began); d > 5*time.Second {
				t.Fatalf("%s of a server that %s took %v", name, how, d)
			}
		}
	}
	if _, err := s.Head(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.Freeze()
	check("hangs")
	r.Thaw()
	eventually(t, "the server to answer", func() bool {
		_, err := s.Head(t.Context())
		return err == nil
	})
	r.Kill()
	check("is gone")
	r.Restart()
	eventually(t, "a commit after the restart", func() bool { return commit() == nil })
}

func TestRedisForeignKeyIsAnError(t *testing.T) {
	t.Parallel()
	r := testkit.StartRedis(t, testkit.RedisOptions{})
	s := openRedis(t, store.RedisOptions{URL: r.URL})
	if err := r.Client().Set(t.Context(), "execgate:{default}:log", "x", 0).Err(); err != nil {
		t.Fatal(err)
	}
	_, err := s.Commit(t.Context(), store.Commit{Items: []store.Item{{Kind: "k", ID: "a", Value: []byte("1")}}})
	if !errors.Is(err, store.ErrUnavailable) {
		t.Fatalf("got error %v", err)
	}
	if n := r.Client().Exists(t.Context(), "execgate:{default}:items").Val(); n != 0 {
		t.Fatal("half of the commit was written")
	}
}

// eventually polls: a server does not tell.
func eventually(t testing.TB, what string, done func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(20 * time.Second); !done(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("waited for %s in vain", what)
		}
	}
}

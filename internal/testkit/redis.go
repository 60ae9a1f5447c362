package testkit

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// redisPatience bounds every wait for a server.
const redisPatience = 20 * time.Second

// RedisOptions says what kind of server [StartRedis] starts. The zero value is a server that keeps nothing.
type RedisOptions struct {
	// AOF makes every acknowledged write survive a kill.
	AOF bool
	// TLS makes the server speak TLS only; see [Redis.CAFile].
	TLS bool
	// TLSClients makes it ask for client certificates as well.
	TLSClients bool
	// Password is asked for, if set.
	Password string
	// Args are more lines of the configuration, such as "maxmemory", "100mb".
	Args []string
}

// Redis is a real redis-server on a free loopback port, in its own directory. It ends with the test.
type Redis struct {
	// URL is what go-redis' ParseURL takes, with the password and the scheme that fit. Addr is host:port.
	URL, Addr string
	// CAFile signed the server's certificate; CertFile and KeyFile are a certificate that the server accepts as a
	// client's. Set with RedisOptions.TLS.
	CAFile, CertFile, KeyFile string

	t    testing.TB
	dir  string
	args []string
	opts RedisOptions

	mu   sync.Mutex
	proc *redisProcess
}

// StartRedis starts a redis-server and waits until it accepts connections. The test fails if there is no redis-server.
func StartRedis(t testing.TB, o RedisOptions) *Redis {
	t.Helper()
	return startRedis(t, o, nil)
}

func startRedis(t testing.TB, o RedisOptions, args func(port string) []string) *Redis {
	t.Helper()
	r := &Redis{t: t, dir: t.TempDir(), opts: o}
	if o.TLS {
		r.CAFile, r.CertFile, r.KeyFile = writeTestCertificates(t, r.dir)
	}
	t.Cleanup(r.Stop)
	var err error
	for range 5 { // another process may take the port in between
		port := freePort(t)
		r.Addr = net.JoinHostPort("127.0.0.1", port)
		r.args = r.serverArgs(port)
		if args != nil {
			r.args = append(r.args, args(port)...)
		}
		if err = r.start(); err == nil {
			r.URL = r.makeURL()
			return r
		}
	}
	t.Fatalf("start redis-server: %v", err)
	return nil
}

func (r *Redis) serverArgs(port string) []string {
	args := []string{"--bind", "127.0.0.1", "--dir", r.dir, "--save", "", "--daemonize", "no", "--logfile", ""}
	if r.opts.TLS {
		args = append(args, "--port", "0", "--tls-port", port, "--tls-cert-file", r.CertFile, "--tls-key-file", r.KeyFile,
			"--tls-ca-cert-file", r.CAFile, "--tls-auth-clients", map[bool]string{true: "yes", false: "no"}[r.opts.TLSClients])
	} else {
		args = append(args, "--port", port)
	}
	if r.opts.AOF {
		args = append(args, "--appendonly", "yes", "--appendfsync", "always")
	}
	if r.opts.Password != "" {
		args = append(args, "--requirepass", r.opts.Password, "--masterauth", r.opts.Password)
	}
	for i, a := range r.opts.Args {
		if i%2 == 0 {
			a = "--" + a
		}
		args = append(args, a)
	}
	return args
}

func (r *Redis) makeURL() string {
	u := url.URL{Scheme: "redis", Host: r.Addr, Path: "/0"}
	if r.opts.TLS {
		u.Scheme = "rediss"
	}
	if r.opts.Password != "" {
		u.User = url.UserPassword("default", r.opts.Password)
	}
	return u.String()
}

func (r *Redis) start() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	proc, err := startRedisProcess(r.dir, "Ready to accept connections", r.args...)
	if err != nil {
		return err
	}
	r.proc = proc
	return nil
}

// Kill ends the server as kill -9 does, and waits until it is gone. Nothing is saved.
func (r *Redis) Kill() { r.end(syscall.SIGKILL) }

// Stop ends the server in an orderly way. Safe to call when it is not running.
func (r *Redis) Stop() { r.end(syscall.SIGTERM) }

func (r *Redis) end(sig syscall.Signal) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.proc != nil {
		r.proc.end(sig)
		r.proc = nil
	}
}

// Restart starts a server that was killed or stopped again, on the same port and directory; a running one is killed
// first. Without RedisOptions.AOF it comes back empty.
func (r *Redis) Restart() {
	r.t.Helper()
	r.Kill()
	if err := r.start(); err != nil {
		r.t.Fatalf("restart redis-server: %v", err)
	}
}

// Freeze makes the server hang, with its connections open, until Thaw.
func (r *Redis) Freeze() { r.signal(syscall.SIGSTOP) }

// Thaw undoes Freeze.
func (r *Redis) Thaw() { r.signal(syscall.SIGCONT) }

func (r *Redis) signal(sig syscall.Signal) {
	r.t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.proc == nil {
		r.t.Fatal("redis-server is not running")
	}
	if err := r.proc.cmd.Process.Signal(sig); err != nil {
		r.t.Fatalf("signal redis-server: %v", err)
	}
}

// Client returns a client of the server, for what a test does behind the back of the code. It is closed with the test.
func (r *Redis) Client() *redis.Client {
	r.t.Helper()
	o, err := redis.ParseURL(r.URL)
	if err != nil {
		r.t.Fatal(err)
	}
	if o.TLSConfig != nil {
		cert, err := tls.LoadX509KeyPair(r.CertFile, r.KeyFile)
		if err != nil {
			r.t.Fatal(err)
		}
		ca, err := os.ReadFile(r.CAFile)
		if err != nil {
			r.t.Fatal(err)
		}
		o.TLSConfig.Certificates = []tls.Certificate{cert}
		o.TLSConfig.RootCAs = x509.NewCertPool()
		o.TLSConfig.RootCAs.AppendCertsFromPEM(ca)
	}
	c := redis.NewClient(o)
	r.t.Cleanup(func() { _ = c.Close() })
	return c
}

// RedisCluster is a Redis Cluster of three masters.
type RedisCluster struct {
	// Addrs are host:port of the nodes.
	Addrs []string
	Nodes []*Redis
}

// StartRedisCluster starts a cluster and waits until every node calls it whole.
func StartRedisCluster(t testing.TB, o RedisOptions) *RedisCluster {
	t.Helper()
	c := new(RedisCluster)
	for range 3 {
		node := startRedis(t, o, func(string) []string {
			return []string{"--cluster-enabled", "yes", "--cluster-port", freePort(t), "--cluster-node-timeout", "2000"}
		})
		c.Nodes = append(c.Nodes, node)
		c.Addrs = append(c.Addrs, node.Addr)
	}
	const slots, nodes = 16384, 3
	for i, node := range c.Nodes {
		redisDo(t, node.Client(), "cluster", "addslotsrange", i*slots/nodes, (i+1)*slots/nodes-1)
	}
	for _, node := range c.Nodes[1:] {
		host, port, _ := net.SplitHostPort(node.Addr)
		busPort := node.args[slices.Index(node.args, "--cluster-port")+1]
		redisDo(t, c.Nodes[0].Client(), "cluster", "meet", host, port, busPort)
	}
	for _, node := range c.Nodes {
		client := node.Client()
		redisWait(t, "the cluster to form", func() bool {
			info := client.ClusterInfo(context.Background()).Val()
			return strings.Contains(info, "cluster_state:ok") && strings.Contains(info, "cluster_known_nodes:3")
		})
	}
	return c
}

// RedisSentinel is a master and a replica watched by one sentinel that fails over within about two seconds.
type RedisSentinel struct {
	MasterName string
	// Addrs are host:port of the sentinels.
	Addrs           []string
	Master, Replica *Redis
}

// StartRedisSentinel starts the three and waits until the replica follows and the sentinel knows both.
func StartRedisSentinel(t testing.TB, o RedisOptions) *RedisSentinel {
	t.Helper()
	s := &RedisSentinel{MasterName: "main", Master: StartRedis(t, o)}
	host, port, _ := net.SplitHostPort(s.Master.Addr)
	s.Replica = startRedis(t, o, func(string) []string { return []string{"--replicaof", host + " " + port} })
	master := s.Master.Client()
	redisWait(t, "the replica to follow", func() bool {
		return strings.Contains(master.Info(context.Background(), "replication").Val(), "state=online")
	})

	dir := t.TempDir()
	var sentinel *redisProcess
	var err error
	for range 5 {
		sentinelPort := freePort(t)
		conf := fmt.Sprintf("bind 127.0.0.1\nport %s\ndir %s\nsentinel monitor main %s %s 1\n"+
			"sentinel down-after-milliseconds main 500\nsentinel failover-timeout main 3000\n", sentinelPort, dir, host, port)
		if o.Password != "" {
			conf += "sentinel auth-pass main " + o.Password + "\n"
		}
		path := filepath.Join(dir, "sentinel.conf")
		if err = os.WriteFile(path, []byte(conf), 0o600); err != nil {
			t.Fatal(err)
		}
		if sentinel, err = startRedisProcess(dir, "+monitor master", path, "--sentinel"); err == nil {
			s.Addrs = []string{net.JoinHostPort("127.0.0.1", sentinelPort)}
			break
		}
	}
	if err != nil {
		t.Fatalf("start the sentinel: %v", err)
	}
	t.Cleanup(func() { sentinel.end(syscall.SIGTERM) })
	client := redis.NewSentinelClient(&redis.Options{Addr: s.Addrs[0]})
	t.Cleanup(func() { _ = client.Close() })
	redisWait(t, "the sentinel to see the replica", func() bool {
		replicas, _ := client.Replicas(context.Background(), "main").Result()
		return len(replicas) == 1 && replicas[0]["flags"] == "slave" && replicas[0]["master-link-status"] == "ok"
	})
	return s
}

func redisDo(t testing.TB, c *redis.Client, args ...any) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), redisPatience)
	defer cancel()
	if err := c.Do(ctx, args...).Err(); err != nil {
		t.Fatalf("redis %v: %v", args, err)
	}
}

// redisWait polls: servers do not tell.
func redisWait(t testing.TB, what string, done func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(redisPatience); !done(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("waited %v for %s", redisPatience, what)
		}
	}
}

func freePort(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

// redisProcess is a running redis-server.
type redisProcess struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when the process is gone

	mu   sync.Mutex
	tail []string // the last lines it logged
}

// startRedisProcess starts a server and waits until it logs a line that holds ready.
func startRedisProcess(dir, ready string, args ...string) (*redisProcess, error) {
	path, err := exec.LookPath("redis-server")
	if err != nil {
		return nil, fmt.Errorf("the tests need a real redis-server on the PATH (Debian and Ubuntu: apt-get install "+
			"redis-server; macOS: brew install redis): %w", err)
	}
	p := &redisProcess{cmd: exec.Command(path, args...), done: make(chan struct{})}
	p.cmd.Dir = dir
	out, in, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	p.cmd.Stdout, p.cmd.Stderr = in, in
	err = startWithParent(p.cmd)
	in.Close()
	if err != nil {
		out.Close()
		return nil, err
	}
	isReady := make(chan struct{})
	go func() {
		defer out.Close()
		told := false
		for lines := bufio.NewScanner(out); lines.Scan(); {
			p.mu.Lock()
			p.tail = append(p.tail, lines.Text())
			if len(p.tail) > 20 {
				p.tail = p.tail[1:]
			}
			p.mu.Unlock()
			if !told && strings.Contains(lines.Text(), ready) {
				told = true
				close(isReady)
			}
		}
		_ = p.cmd.Wait()
		close(p.done)
	}()
	select {
	case <-isReady:
		return p, nil
	case <-p.done:
		err = fmt.Errorf("redis-server ended at once")
	case <-time.After(redisPatience):
		err = fmt.Errorf("redis-server was not ready within %v", redisPatience)
		p.end(syscall.SIGKILL)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return nil, fmt.Errorf("%w; it said:\n%s", err, strings.Join(p.tail, "\n"))
}

// end sends sig, and SIGKILL if that does not help, and waits until the process is gone.
func (p *redisProcess) end(sig syscall.Signal) {
	_ = p.cmd.Process.Signal(syscall.SIGCONT) // it may be frozen
	_ = p.cmd.Process.Signal(sig)
	select {
	case <-p.done:
	case <-time.After(redisPatience / 4):
		_ = p.cmd.Process.Kill()
		<-p.done
	}
}

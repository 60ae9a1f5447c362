package testkit

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// S3 is a running versitygw: S3 over a directory.
type S3 struct {
	// Endpoint is host:port.
	Endpoint string
	// AccessKey and SecretKey are those of the owner of everything.
	AccessKey, SecretKey string
	// CAFile is the certificate authority of the endpoint, empty without TLS.
	CAFile string
	// Dir holds a directory for each bucket, and in it the objects.
	Dir string
}

// StartS3 starts a server with the buckets, that ends with the test.
func StartS3(t testing.TB, withTLS bool, buckets ...string) *S3 {
	t.Helper()
	dir := t.TempDir()
	s := &S3{Endpoint: FreeAddr(t), AccessKey: "test-access-key", SecretKey: "test-secret-key", Dir: filepath.Join(dir, "data")}
	for _, b := range append(buckets, "") {
		if err := os.MkdirAll(filepath.Join(s.Dir, b), 0o750); err != nil {
			t.Fatal(err)
		}
	}
	args := []string{"--port", s.Endpoint, "--access", s.AccessKey, "--secret", s.SecretKey, "--quiet"}
	if withTLS {
		ca, cert, key := writeTestCertificates(t, dir)
		s.CAFile = ca
		args = append(args, "--cert", cert, "--key", key)
	}
	startTool(t, "versitygw", s.Endpoint, append(args, "posix", "--nometa", s.Dir)...)
	return s
}

// GCS is a running fake-gcs-server.
type GCS struct {
	// URL is where it is.
	URL string
}

// StartGCS starts a server with the buckets, that ends with the test.
func StartGCS(t testing.TB, buckets ...string) *GCS {
	t.Helper()
	addr := FreeAddr(t)
	host, port, _ := net.SplitHostPort(addr)
	startTool(t, "fake-gcs-server", addr, "-backend", "memory", "-scheme", "http", "-host", host, "-port", port, "-log-level", "error")
	g := &GCS{URL: "http://" + addr}
	for _, b := range buckets {
		res, err := http.Post(g.URL+"/storage/v1/b", "application/json", bytes.NewBufferString(fmt.Sprintf(`{"name":%q}`, b)))
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode != http.StatusOK {
			t.Fatalf("make bucket %s: %s", b, res.Status)
		}
	}
	http.DefaultClient.CloseIdleConnections()
	return g
}

// startTool starts a server of bin/ or the PATH and waits until it listens on addr.
func startTool(t testing.TB, name, addr string, args ...string) {
	t.Helper()
	path, err := toolPath(name)
	if err != nil {
		t.Fatal(err)
	}
	var out lastOutput
	cmd := exec.Command(path, args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.Dir = t.TempDir()
	if err := startWithParent(cmd); err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
	})
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(redisPatience); ; {
		if conn, err := net.Dial("tcp", addr); err == nil {
			_ = conn.Close()
			return
		}
		select {
		case <-ended:
			t.Fatalf("%s ended at once:\n%s", name, out.text())
		case <-tick.C:
			if time.Now().After(deadline) {
				t.Fatalf("%s does not listen on %s:\n%s", name, addr, out.text())
			}
		}
	}
}

// toolPath finds a program in bin/ of the repository, or else on the PATH.
func toolPath(name string) (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			if path := filepath.Join(dir, "bin", name); executable(path) {
				return path, nil
			}
			break
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			break
		}
		dir = parent
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("the tests need a real %s: run \"make test-tools\"", name)
	}
	return path, nil
}

func executable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode()&0o111 != 0
}

// lastOutput keeps the end of what a program writes.
type lastOutput struct {
	mu sync.Mutex
	b  []byte
}

func (o *lastOutput) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.b = append(o.b, p...)
	if over := len(o.b) - 4096; over > 0 {
		o.b = o.b[over:]
	}
	return len(p), nil
}

func (o *lastOutput) text() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return string(o.b)
}

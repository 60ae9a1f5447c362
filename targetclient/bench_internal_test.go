//go:build unix

package targetclient

import (
	"bufio"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// cannedTarget answers every request with the same bytes and allocates nothing:
// what is measured is the client.
func cannedTarget(b *testing.B, answer string) string {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer conn.Close()
				r := bufio.NewReader(conn)
				for {
					size := 0
					for {
						line, err := r.ReadSlice('\n')
						if err != nil {
							return
						}
						if len(line) == 2 {
							break
						}
						if rest, ok := strings.CutPrefix(string(line), "Content-Length: "); ok {
							size, _ = strconv.Atoi(strings.TrimSpace(rest))
						}
					}
					if _, err := r.Discard(size); err != nil {
						return
					}
					if _, err := io.WriteString(conn, answer); err != nil {
						return
					}
				}
			})
		}
	})
	b.Cleanup(func() { l.Close(); wg.Wait() })
	return "http://" + l.Addr().String()
}

// cpuTime is what the process has used so far. Half of what a call costs is the
// target's, the same for both clients.
func cpuTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// benchmarkBare writes and reads the same bytes with no client at all: what is
// left is the kernel, the runtime and the target.
func benchmarkBare(b *testing.B, url string, size, answer int) {
	b.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	request := []byte("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: " + strconv.Itoa(size) + "\r\n\r\n" + strings.Repeat("a", size))
	in := make([]byte, answer)
	b.ReportAllocs()
	before := cpuTime()
	for b.Loop() {
		if _, err := conn.Write(request); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(conn, in); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64((cpuTime()-before).Nanoseconds())/float64(b.N), "cpu-ns/op")
}

// BenchmarkCall compares the client with the same client over net/http, in one
// run, and with no client at all: bodies of 200 bytes, of 16 KiB, and without a signature.
func BenchmarkCall(b *testing.B) {
	const answer = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nDate: Mon, 02 Jan 2006 15:04:05 GMT\r\nContent-Length: 14\r\n\r\n{\"name\":\"ann\"}"
	for _, size := range []int{200, 16 << 10} {
		for _, keys := range [][]string{{"0aB3dE6gH9jK2mN5pQ8sT1vW4yZ7aB0cD3eF"}, nil} {
			for _, over := range []string{"net_http", "own", "nothing"} {
				name := strconv.Itoa(size) + "B/signed=" + strconv.FormatBool(keys != nil) + "/" + over
				b.Run(name, func(b *testing.B) {
					c, err := New(Options{DenyList: []string{"10.0.0.0/8"}})
					if err != nil {
						b.Fatal(err)
					}
					defer c.Close()
					c.transport.allHTTP = over == "net_http"
					url := cannedTarget(b, answer)
					if over == "nothing" {
						benchmarkBare(b, url, size, len(answer))
						return
					}
					call := Call{
						Target: &Target{ID: "a", URL: url, SigningKeys: keys},
						Body:   []byte(strings.Repeat("a", size)),
					}
					ctx := b.Context()
					b.ReportAllocs()
					before := cpuTime()
					for b.Loop() {
						if _, err := c.Do(ctx, call); err != nil {
							b.Fatal(err)
						}
					}
					b.ReportMetric(float64((cpuTime()-before).Nanoseconds())/float64(b.N), "cpu-ns/op")
				})
			}
		}
	}
}

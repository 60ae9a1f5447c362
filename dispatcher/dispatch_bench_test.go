//go:build unix

package dispatcher_test

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/execgate/execgate/conditions"
	"github.com/execgate/execgate/dispatcher"
	"github.com/execgate/execgate/targetclient"
)

// webhook is a target that says yes and costs next to nothing.
func webhook(b *testing.B) (url string) {
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
					if _, err := io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"); err != nil {
						return
					}
				}
			})
		}
	})
	b.Cleanup(func() { l.Close(); wg.Wait() })
	return "http://" + l.Addr().String()
}

// BenchmarkDispatchOverASocket is one call with one signed, synchronous webhook on a real
// socket. The CPU time is that of both ends.
func BenchmarkDispatchOverASocket(b *testing.B) {
	url := webhook(b) // ends last: its connections are the client's to close
	client, err := targetclient.New(targetclient.Options{DenyList: []string{"10.0.0.0/8"}})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(client.Close)
	d := dispatcher.New(dispatcher.Options{Caller: client, ChainTimeout: 30 * time.Second, Logger: slog.New(slog.DiscardHandler)})
	hook := target("hook", targetclient.KindWebhook, interrupts)
	hook.URL, hook.SigningKeys = url, []string{"0aB3dE6gH9jK2mN5pQ8sT1vW4yZ7aB0cD3eF"}
	inv := &dispatcher.Invocation{
		Plan:       &dispatcher.Plan{Execution: "request", Phase: conditions.Request, Targets: []*targetclient.Target{hook}, Interrupts: true},
		FullMethod: "/zitadel.user.v2.UserService/AddHumanUser", InstanceID: "default",
		Headers: map[string][]string{"Content-Type": {"application/grpc"}, "Host": {"localhost:8080"}},
		Request: &message{json: `{"profile":{"givenName":"Minnie","familyName":"Mouse"},"email":{"email":"minnie@example.com"}}`},
	}
	ctx, cancel := context.WithCancel(b.Context()) // as the server's
	defer cancel()
	cpu := func() int64 {
		var u syscall.Rusage
		_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
		return u.Utime.Nano() + u.Stime.Nano()
	}
	b.ReportAllocs()
	before := cpu()
	for b.Loop() {
		if _, err := d.Dispatch(ctx, inv); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(cpu()-before)/float64(b.N), "cpu-ns/op")
}

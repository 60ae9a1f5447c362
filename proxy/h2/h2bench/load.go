package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// scenario is one kind of load: a closed loop of unary calls.
type scenario struct {
	conns, streams, size int
}

func (s scenario) String() string { return fmt.Sprintf("%dx%d, %d B", s.conns, s.streams, s.size) }

// result is what one round brought.
type result struct {
	calls     int
	took      time.Duration
	latencies []time.Duration
}

var errStatus = errors.New("a call did not end with OK")

// load makes calls for as long as d.
func load(address string, s scenario, d time.Duration) (result, error) {
	var (
		mu    sync.Mutex
		total result
		first error
		wg    sync.WaitGroup
	)
	begin := time.Now()
	for range s.conns {
		wg.Go(func() {
			r, err := loadConn(address, s, begin.Add(d))
			mu.Lock()
			defer mu.Unlock()
			total.calls += r.calls
			total.latencies = append(total.latencies, r.latencies...)
			if err != nil && first == nil {
				first = err
			}
		})
	}
	wg.Wait()
	total.took = time.Since(begin)
	slices.Sort(total.latencies)
	return total, first
}

var errTimeUp = errors.New("time is up")

func loadConn(address string, s scenario, until time.Time) (result, error) {
	var r result
	var dialer net.Dialer
	nc, err := dialer.DialContext(context.Background(), "tcp", address)
	if err != nil {
		return r, err
	}
	defer nc.Close()
	w := newWire(nc)
	w.out = append(w.out, http2.ClientPreface...)
	w.start()
	message := make([]byte, 5+s.size)
	binary.BigEndian.PutUint32(message[1:], uint32(s.size))
	var next uint32 = 1
	began := map[uint32]time.Time{}
	call := func(now time.Time) {
		id := next
		next += 2
		began[id] = now
		w.headers(id, false,
			hpack.HeaderField{Name: ":method", Value: "POST"},
			hpack.HeaderField{Name: ":scheme", Value: "http"},
			hpack.HeaderField{Name: ":path", Value: "/zitadel.user.v2.UserService/GetUserByID"},
			hpack.HeaderField{Name: ":authority", Value: "auth.example.com"},
			hpack.HeaderField{Name: "content-type", Value: "application/grpc"},
			hpack.HeaderField{Name: "user-agent", Value: "grpc-go/1.85.0"},
			hpack.HeaderField{Name: "te", Value: "trailers"},
			hpack.HeaderField{Name: "grpc-accept-encoding", Value: "gzip"},
			hpack.HeaderField{Name: "authorization", Value: "Bearer dG9rZW4tdG9rZW4tdG9rZW4tdG9rZW4tdG9rZW4tdG9rZW4"},
			hpack.HeaderField{Name: "grpc-timeout", Value: fmt.Sprint(4999000+id%1000, "u")},
		)
		w.data(id, message, nil)
	}
	now := time.Now()
	for range s.streams {
		call(now)
	}
	got := 0
	err = w.read(func(kind http2.FrameType, flags http2.Flags, id uint32, p []byte) error {
		switch kind {
		case http2.FrameData:
			got += len(p)
		case http2.FrameRSTStream, http2.FrameGoAway:
			return fmt.Errorf("%w: %v on stream %d: %x", errStatus, kind, id, p)
		}
		if (kind != http2.FrameHeaders && kind != http2.FrameData) || flags&http2.FlagDataEndStream == 0 {
			return nil
		}
		now := time.Now()
		r.calls++
		r.latencies = append(r.latencies, now.Sub(began[id]))
		delete(began, id)
		if now.After(until) {
			return errTimeUp
		}
		call(now)
		return nil
	})
	if errors.Is(err, errTimeUp) {
		err = nil
		if want := r.calls * len(message); got < want {
			err = errStatus
		}
	}
	return r, err
}

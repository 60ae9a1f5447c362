package h2_test

import (
	"testing"

	"golang.org/x/net/http2"
)

// TestAnswersThatComeBeforeTheRequestIsWhole: the rest of the request is swallowed, and given up after a moment.
func TestAnswersThatComeBeforeTheRequestIsWhole(t *testing.T) {
	t.Parallel()
	const answer = unavailable
	start := func(t *testing.T) *rawPeer {
		t.Helper()
		ln := listen(t)
		address := ln.Addr().String()
		_ = ln.Close()
		client := rawClient(t, newFront(t, address, nil))
		client.request(1, false, "content-type", "application/grpc")
		client.expect(answer)
		return client
	}
	t.Run("a client that ends its request is not reset", func(t *testing.T) {
		t.Parallel()
		client := start(t)
		for range 20 {
			client.must(client.WriteData(1, false, make([]byte, 16<<10)))
		}
		client.must(client.WriteData(1, true, nil))
		for {
			f, err := client.ReadFrame()
			if err != nil {
				t.Fatal(err)
			}
			if ping, ok := f.(*http2.PingFrame); ok && string(ping.Data[:]) == "execling" {
				break
			}
			if f.Header().Type == http2.FrameRSTStream {
				t.Fatal("it was reset")
			}
		}
		client.request(3, true, "content-type", "application/grpc")
		client.expect("HEADERS 3" + answer[len("HEADERS 1"):])
	})
	t.Run("one that goes on is", func(t *testing.T) {
		t.Parallel()
		client := start(t)
		client.must(client.WriteData(1, false, []byte("on and on")))
		client.expect("RST 1 NO_ERROR")
		client.must(client.WriteData(1, true, []byte("late"))) // It could not know.
		client.request(3, true, "content-type", "application/grpc")
		client.expect("HEADERS 3" + answer[len("HEADERS 1"):])
	})
}

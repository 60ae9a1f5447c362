package queue_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"

	"github.com/execgate/execgate/queue"
	"github.com/execgate/execgate/targetclient"
)

func ExampleDurable() {
	done := make(chan struct{})
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Printf("attempt %s: %s\n", r.Header.Get("execgate-attempt"), body)
		close(done)
	}))
	defer receiver.Close()
	target := &targetclient.Target{ID: "1", Name: "example", URL: receiver.URL}

	dir, _ := os.MkdirTemp("", "example")
	defer os.RemoveAll(dir)
	backend, err := queue.OpenEmbedded(queue.EmbeddedOptions{Path: filepath.Join(dir, "queue.db")})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer backend.Close()
	client, err := targetclient.New(targetclient.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer client.Close()

	q, err := queue.NewDurable(queue.DurableOptions{
		Backend: backend,
		Caller:  client,
		Targets: func(id string) (*queue.Settings, bool) {
			if id != target.ID {
				return nil, true
			}
			return &queue.Settings{Target: target}, true
		},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx := context.Background()
	if err := q.Start(ctx); err != nil {
		fmt.Println(err)
		return
	}
	err = q.Enqueue(ctx, queue.Delivery{Execution: "request", Target: target, Body: []byte(`{"hello":"target"}`)})
	if err != nil {
		fmt.Println(err)
		return
	}
	<-done
	q.Stop(ctx)
	page, err := backend.List(ctx, queue.Filter{})
	fmt.Println(page.Records[0].State, err)
	// Output:
	// attempt 1: {"hello":"target"}
	// delivered <nil>
}

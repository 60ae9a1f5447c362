package app

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"

	"google.golang.org/grpc"

	"github.com/execgate/execgate/events"
	"github.com/execgate/execgate/store"
)

// polling reads events from the upstream. Without a poller it does nothing.
type polling struct {
	poller *events.Poller
	cancel context.CancelFunc
	done   sync.WaitGroup
}

// start begins to poll. The end of ctx does not stop it.
func (p *polling) start(ctx context.Context) {
	if p.poller == nil {
		return
	}
	var run context.Context
	run, p.cancel = context.WithCancel(context.WithoutCancel(ctx))
	p.done.Go(func() { p.poller.Run(run) })
}

// stop ends it, while the queue still takes events.
func (p *polling) stop() {
	if p.cancel != nil {
		p.cancel()
	}
	p.done.Wait()
}

// assemblePolling makes what polls, if the configuration asks for it.
func (a *App) assemblePolling(upstreamTLS *tls.Config) error {
	cfg := a.config.Events.Poll
	if !cfg.Enabled {
		return nil
	}
	to, err := upstreamTarget(a.config.Upstream, upstreamTLS)
	if err != nil {
		return err
	}
	conn, err := grpc.NewClient(to.Target, to.DialOptions...)
	if err != nil {
		return fmt.Errorf("reach the upstream: %w", err)
	}
	a.teardown.add(func(context.Context) { a.warn("close the connection for events", conn.Close()) })
	var kept *events.FileCursor
	var cursor events.Cursor = events.FileCursor{Path: a.config.PollPath()}
	if a.config.Store.Driver == "redis" {
		client, err := store.NewRedisClient(a.redisOptions())
		if err != nil {
			return err
		}
		a.teardown.add(func(context.Context) { a.warn("close the connections for events", client.Close()) })
		cursor = events.NewRedisCursor(client, events.RedisCursorOptions{
			KeyPrefix: a.config.Store.Redis.KeyPrefix, Instance: a.config.InstanceID,
		})
		kept = &events.FileCursor{Path: a.config.PollCopyPath()}
	}
	a.polling.poller = events.NewPoller(events.PollerOptions{
		Conn:       conn,
		Schema:     a.learner.Current,
		Token:      func() (string, error) { return tokenIn(cfg.TokenFile) },
		Sink:       a.newSink(),
		Cursor:     cursor,
		Copy:       kept,
		InstanceID: a.config.InstanceID,
		Interval:   cfg.Interval,
		Overlap:    cfg.Overlap,
		MaxAge:     cfg.MaxAge,
		OnGap:      a.metrics.EventGap,
		OnPoll:     a.metrics.EventPoll,
		Logger:     a.logger,
	})
	return nil
}

// tokenIn reads a token, none without a file.
func tokenIn(file string) (string, error) {
	if file == "" {
		return "", nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("events.poll.token_file: %w", fileProblem(err))
	}
	token := strings.TrimSpace(string(text))
	if token == "" {
		return "", errors.New("events.poll.token_file is empty")
	}
	return token, nil
}

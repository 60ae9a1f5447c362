package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/execgate/execgate/configfile"
	"github.com/execgate/execgate/store"
)

const (
	// maxDocument bounds what is read, so that a wrong path cannot fill the memory.
	maxDocument = 64 << 20
	// applyActor stands in the audit log.
	applyActor = "serve --apply"
	applyRetry = time.Second
)

// readDocument reads and parses the document that Options.Apply names, so that
// what is wrong with it is told before anything is opened.
func (a *App) readDocument() error {
	if a.apply == "" {
		return nil
	}
	var err error
	if a.document, err = readBounded(a.apply); err != nil {
		return configfile.Faults{{File: a.apply, Text: err.Error(), Hint: "check the path given with --apply"}}
	}
	_, err = configfile.Parse(a.document, configfile.ParseOptions{File: a.apply, ReadFile: a.besideDocument})
	return err
}

// besideDocument reads a file that the document names; relative names are
// relative to the document.
func (a *App) besideDocument(name string) ([]byte, error) {
	if !filepath.IsAbs(name) {
		name = filepath.Join(filepath.Dir(a.apply), name)
	}
	return readBounded(name)
}

// readBounded reads a file. Its errors leave the path out.
func readBounded(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fileProblem(err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxDocument+1))
	if err != nil {
		return nil, fileProblem(err)
	}
	if len(text) > maxDocument {
		return nil, fmt.Errorf("larger than %d bytes", maxDocument)
	}
	return text, nil
}

func fileProblem(err error) error {
	var path *fs.PathError
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return errors.New("no such file")
	case errors.As(err, &path):
		return path.Err
	}
	return err
}

// applyDocument brings targets and executions to what the document says, before
// any call is taken. A document that cannot be applied ends the start. With the
// store away the gateway starts all the same, on its last known configuration,
// and the document is applied when the store is back.
func (a *App) applyDocument(ctx context.Context) error {
	if a.apply == "" {
		return nil
	}
	err := a.applyOnce(ctx)
	if err == nil || !errors.Is(err, store.ErrUnavailable) {
		return err
	}
	a.logger.Warn("the store is away: the document will be applied when it is back", "file", a.apply)
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan struct{})
	go func() {
		defer close(done)
		a.applyLater(run)
	}()
	a.teardown.add(func(context.Context) {
		cancel()
		<-done
	})
	return nil
}

func (a *App) applyOnce(ctx context.Context) error {
	changes, err := a.admin.ApplyFile(ctx, applyActor, a.apply, a.document, a.besideDocument)
	if err != nil {
		return err
	}
	a.logger.Info("document applied", "file", a.apply, "changes", changes)
	return nil
}

// applyLater tries until the store is back. Calls are served meanwhile, so a
// document that proves to be faulty only then is an error in the log, and the
// configuration stays what it is.
func (a *App) applyLater(ctx context.Context) {
	tick := time.NewTicker(applyRetry)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		switch err := a.applyOnce(ctx); {
		case err == nil:
			return
		case !errors.Is(err, store.ErrUnavailable) && ctx.Err() == nil:
			a.logger.Error("the document cannot be applied, the configuration stays as it is", "file", a.apply, "error", err)
			return
		}
	}
}

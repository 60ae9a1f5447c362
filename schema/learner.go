package schema

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// LearnerOptions says where a Learner learns from. Exactly one of Reflection
// and DescriptorSetPath is set.
type LearnerOptions struct {
	// Reflection learns from the upstream's server reflection, v1 or v1alpha.
	Reflection *Reflection
	// DescriptorSetPath names a file with a serialized FileDescriptorSet. It is
	// read again when it changes.
	DescriptorSetPath string
	// CachePath names the file that keeps the last learned schema across
	// restarts, written atomically and readable by the owner only. Empty: none.
	CachePath string
	// BasePaths mounts the REST routes of services elsewhere, see [WithBasePaths].
	BasePaths map[string]string
	// RefreshInterval is the time between two looks at the reflection service.
	// 0 is 30 s; negative is never.
	RefreshInterval time.Duration
	// RefreshGap is the least time between two looks that [Learner.Refresh] asks
	// for. 0 is 2 s.
	RefreshGap time.Duration
	// PollInterval is the time between two looks at the age of the descriptor set
	// file. 0 is 1 s.
	PollInterval time.Duration
	// Logger takes what an operator should know. Nil: slog.Default.
	Logger *slog.Logger
}

// Waits between failed looks: from the first one, growing by half each time.
const (
	firstRetry = 100 * time.Millisecond
	// lastRetryFirst bounds them until the first look has succeeded, so that an
	// upstream that comes up is known within a second.
	lastRetryFirst = 500 * time.Millisecond
	// lastRetry bounds them afterwards.
	lastRetry = 5 * time.Second
)

// Learner keeps the newest schema of the upstream. All its methods are safe for
// concurrent use. A look that fails leaves the schema as it is.
type Learner struct {
	o       LearnerOptions
	current atomic.Pointer[Schema]
	wake    chan struct{}
	ready   chan struct{}

	loadOnce sync.Once
	loadErr  error

	// What only the goroutine of Run, or Load before it, touches.
	file      fileAge
	fileRead  bool
	lastSet   []byte // as the source gave it, to see without parsing that nothing changed
	lastError string
	cacheErr  string

	mu          sync.Mutex
	subscribers []func(*Schema)
	err         error
}

// fileAge is what tells one version of a file from the next.
type fileAge struct {
	modified time.Time
	size     int64
}

// NewLearner checks the options and returns a Learner that knows nothing yet.
func NewLearner(o LearnerOptions) (*Learner, error) {
	if (o.Reflection == nil) == (o.DescriptorSetPath == "") {
		return nil, errors.New("schema: set one of Reflection and DescriptorSetPath")
	}
	if o.Reflection != nil && o.Reflection.Target == "" {
		return nil, errors.New("schema: Reflection.Target is empty")
	}
	if o.RefreshInterval == 0 {
		o.RefreshInterval = 30 * time.Second
	}
	if o.RefreshGap <= 0 {
		o.RefreshGap = 2 * time.Second
	}
	if o.PollInterval <= 0 {
		o.PollInterval = time.Second
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	return &Learner{o: o, wake: make(chan struct{}, 1), ready: make(chan struct{})}, nil
}

// Load takes the schema that the descriptor set file or else the cache file holds,
// so that there is one before Run has learned. That there is no cache file is no
// error. Run calls it if nobody has; only the first call does anything.
//
// The error is for the operator: Run goes on without a schema, and reads the
// descriptor set file again when it changes.
func (l *Learner) Load() error {
	l.loadOnce.Do(func() { l.loadErr = l.load() })
	return l.loadErr
}

func (l *Learner) load() error {
	var errFile error
	if l.o.DescriptorSetPath != "" {
		if errFile = l.look(context.Background()); errFile == nil {
			return nil
		}
	}
	if l.o.CachePath == "" {
		return errFile
	}
	set, err := readCache(l.o.CachePath)
	if err != nil || set == nil {
		return errors.Join(errFile, err)
	}
	s, err := FromDescriptorSet(set, WithBasePaths(l.o.BasePaths))
	if err != nil {
		return errors.Join(errFile, fmt.Errorf("read the schema cache: %w", err))
	}
	l.publish(s)
	l.o.Logger.Info("schema taken from the cache", "services", len(s.services), "methods", len(s.methodNames))
	return errFile
}

// Run learns and keeps learning until ctx ends; then it returns nil. It starts no
// goroutine that outlives it. Call it once.
func (l *Learner) Run(ctx context.Context) error {
	if err := l.Load(); err != nil {
		l.logError(err)
	}
	if l.o.Reflection == nil {
		l.runFile(ctx)
	} else {
		l.runReflection(ctx)
	}
	return nil
}

func (l *Learner) runFile(ctx context.Context) {
	ticker := time.NewTicker(l.o.PollInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		case <-l.wake:
			// A file that changed is seen by the next tick; nothing to hurry for.
			continue
		}
		if age, err := statFile(l.o.DescriptorSetPath); err == nil && l.fileRead && age == l.file {
			continue
		}
		l.logError(l.look(ctx))
	}
}

func (l *Learner) runReflection(ctx context.Context) {
	succeeded := false
	retry := firstRetry
	for {
		err := l.look(ctx)
		if ctx.Err() != nil {
			return
		}
		looked := time.Now()
		l.logError(err)
		wait := l.o.RefreshInterval
		if err == nil {
			succeeded, retry = true, firstRetry
		} else {
			limit := lastRetry
			if !succeeded {
				limit = lastRetryFirst
			}
			if wait <= 0 || retry < wait {
				wait = retry
			}
			retry = min(retry*3/2, limit)
			wait -= rand.N(wait/10 + 1) // replicas need not ask in step
		}
		if !l.wait(ctx, looked, wait) {
			return
		}
	}
}

// wait waits for the next look: for the given time, none if it is not positive, or
// until Refresh asks for one. It returns false when ctx ends.
func (l *Learner) wait(ctx context.Context, looked time.Time, d time.Duration) bool {
	var timeout <-chan time.Time
	if d > 0 {
		timer := time.NewTimer(d)
		defer timer.Stop()
		timeout = timer.C
	}
	select {
	case <-ctx.Done():
		return false
	case <-timeout:
		return true
	case <-l.wake:
	}
	gap := time.NewTimer(time.Until(looked.Add(l.o.RefreshGap)))
	defer gap.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timeout:
	case <-gap.C:
	}
	return true
}

// look asks the source once, and publishes what is new.
func (l *Learner) look(ctx context.Context) error {
	set, problems, err := l.fetch(ctx)
	if err != nil {
		return err
	}
	current := l.current.Load()
	if current != nil && l.lastSet != nil && bytes.Equal(set, l.lastSet) {
		return nil
	}
	s, err := FromDescriptorSet(set, WithBasePaths(l.o.BasePaths), withProblems(problems))
	if err != nil {
		return err
	}
	l.lastSet = set
	if s.Equal(current) {
		return nil
	}
	l.publish(s)
	l.o.Logger.Info("schema learned", "services", len(s.services), "methods", len(s.methodNames), "routes", len(s.routes.rules))
	for _, problem := range s.problems {
		l.o.Logger.Warn("part of the schema is not usable", "problem", problem)
	}
	l.writeCache(s)
	return nil
}

// fetch returns the source's descriptor set.
func (l *Learner) fetch(ctx context.Context) (set []byte, problems []string, err error) {
	if l.o.Reflection == nil {
		age, err := statFile(l.o.DescriptorSetPath)
		if err == nil {
			set, err = os.ReadFile(l.o.DescriptorSetPath)
		}
		if err != nil {
			l.fileRead = false
			return nil, nil, fmt.Errorf("read the descriptor set: %w", withoutPath(err))
		}
		l.file, l.fileRead = age, true
		return set, nil, nil
	}
	answer, err := l.o.Reflection.learn(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("learn the schema by server reflection: %w", err)
	}
	if current := l.current.Load(); current != nil {
		for _, service := range answer.missing {
			if slices.Contains(current.services, service) {
				return nil, nil, fmt.Errorf("learn the schema by server reflection: service %s did not resolve this time", service)
			}
		}
	}
	return answer.set, answer.problems, nil
}

func statFile(path string) (fileAge, error) {
	info, err := os.Stat(path)
	if err != nil {
		return fileAge{}, err
	}
	return fileAge{modified: info.ModTime(), size: info.Size()}, nil
}

// withoutPath strips the path that the operator configured from an error.
func withoutPath(err error) error {
	if e := (*fs.PathError)(nil); errors.As(err, &e) {
		return e.Err
	}
	return err
}

func (l *Learner) publish(s *Schema) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.current.Swap(s) == nil {
		close(l.ready)
	}
	for _, f := range l.subscribers {
		f(s)
	}
}

func (l *Learner) writeCache(s *Schema) {
	if l.o.CachePath == "" {
		return
	}
	err := writeCache(l.o.CachePath, s.set)
	if err == nil {
		l.cacheErr = ""
		return
	}
	if text := err.Error(); text != l.cacheErr {
		l.cacheErr = text
		l.o.Logger.Warn("schema cache not written", "error", err)
	}
}

// logError keeps the outcome of a look, and logs it when it is another than before.
func (l *Learner) logError(err error) {
	l.mu.Lock()
	l.err = err
	l.mu.Unlock()
	if err == nil {
		if l.lastError != "" {
			l.o.Logger.Info("schema source is back")
		}
		l.lastError = ""
		return
	}
	if text := err.Error(); text != l.lastError {
		l.lastError = text
		l.o.Logger.Warn("schema not learned", "error", err, "known", l.current.Load() != nil)
	}
}

// Current returns the newest schema, nil while none is known. It takes no lock.
func (l *Learner) Current() *Schema { return l.current.Load() }

// Ready is closed once a schema is known.
func (l *Learner) Ready() <-chan struct{} { return l.ready }

// Refresh asks for a look at the source soon. It returns at once, and is cheap
// enough to be called for every call of an unknown method: looks keep
// LearnerOptions.RefreshGap apart.
func (l *Learner) Refresh() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// OnChange has f called after every change of the schema, in order, and now if a
// schema is known already. f must return soon and must not call OnChange.
func (l *Learner) OnChange(f func(*Schema)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.subscribers = append(l.subscribers, f)
	if s := l.current.Load(); s != nil {
		f(s)
	}
}

// Err returns why the last look failed, nil if it did not.
func (l *Learner) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

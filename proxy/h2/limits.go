package h2

// Reason says which limit was hit. The set is closed; String is the metric label.
type Reason uint8

// The limits.
const (
	// ReasonRapidReset: streams are opened and reset, or made to be reset, faster than calls would be
	// (CVE-2023-44487, CVE-2025-8671).
	ReasonRapidReset Reason = iota + 1
	// ReasonContinuationFlood: a header block in too many, or too empty, pieces (CVE-2024-27316).
	ReasonContinuationFlood
	// ReasonHeaderList: a header list larger than allowed.
	ReasonHeaderList
	// ReasonSettingsFlood: too many SETTINGS (CVE-2019-9515).
	ReasonSettingsFlood
	// ReasonPingFlood: too many PINGs (CVE-2019-9512).
	ReasonPingFlood
	// ReasonEmptyFrames: too many frames without content (CVE-2019-9518).
	ReasonEmptyFrames
	// ReasonWindowUpdateFlood: more WINDOW_UPDATEs than what was sent can explain.
	ReasonWindowUpdateFlood
	// ReasonPriorityFlood: too many PRIORITY frames (CVE-2019-9513), or frames of unknown types.
	ReasonPriorityFlood
	// ReasonConcurrentStreams: more streams than allowed; the stream was refused.
	ReasonConcurrentStreams
	// ReasonHeaderTimeout: a preface or a header block that did not end in time.
	ReasonHeaderTimeout
	// ReasonWriteTimeout: the peer did not read (CVE-2019-9517).
	ReasonWriteTimeout
	// ReasonPingTimeout: the peer did not answer a PING.
	ReasonPingTimeout
	// ReasonQueueFull: the upstream has no stream left and too many calls wait already.
	ReasonQueueFull
	// ReasonQueueTimeout: a call waited too long for a stream.
	ReasonQueueTimeout

	reasonCount
)

var reasonNames = [reasonCount]string{
	ReasonRapidReset:        "rapid_reset",
	ReasonContinuationFlood: "continuation_flood",
	ReasonHeaderList:        "header_list",
	ReasonSettingsFlood:     "settings_flood",
	ReasonPingFlood:         "ping_flood",
	ReasonEmptyFrames:       "empty_frames",
	ReasonWindowUpdateFlood: "window_update_flood",
	ReasonPriorityFlood:     "priority_flood",
	ReasonConcurrentStreams: "concurrent_streams",
	ReasonHeaderTimeout:     "header_timeout",
	ReasonWriteTimeout:      "write_timeout",
	ReasonPingTimeout:       "ping_timeout",
	ReasonQueueFull:         "queue_full",
	ReasonQueueTimeout:      "queue_timeout",
}

// String returns the metric label.
func (r Reason) String() string {
	if r < reasonCount && reasonNames[r] != "" {
		return reasonNames[r]
	}
	return "unknown"
}

// Reasons returns all of them, for a metric that wants to start at zero.
func Reasons() []Reason {
	all := make([]Reason, 0, reasonCount)
	for r := Reason(1); r < reasonCount; r++ {
		all = append(all, r)
	}
	return all
}

// Rate is how often something may happen: Burst times at once, PerSecond times on average.
type Rate struct {
	Burst, PerSecond int
}

// Limits are the rates above which a client's connection is ended with ENHANCE_YOUR_CALM. A zero Rate means the default
// that is named.
type Limits struct {
	// Resets of streams by the client, and resets that its mistakes force. Default 1000 (or twice MaxConcurrentStreams,
	// if that is more) and 200.
	Resets Rate
	// Settings frames. Default 100 and 10.
	Settings Rate
	// Pings. Default 1000 and 100.
	Pings Rate
	// Empty frames: DATA, HEADERS or CONTINUATION without content that end nothing. Default 100 and 10.
	Empty Rate
	// WindowUpdates beyond four per DATA frame that was sent and two per stream. Default 2000 and 200.
	WindowUpdates Rate
	// Priorities and frames of unknown types, beyond two per stream that was opened. Default 1000 and 100.
	Priorities Rate
}

func (r Rate) or(burst, perSecond int) Rate {
	if r.Burst <= 0 {
		r.Burst = burst
	}
	if r.PerSecond <= 0 {
		r.PerSecond = perSecond
	}
	return r
}

func (l Limits) withDefaults(maxStreams int) Limits {
	l.Resets = l.Resets.or(max(1000, 2*maxStreams), 200)
	l.Settings = l.Settings.or(100, 10)
	l.Pings = l.Pings.or(1000, 100)
	l.Empty = l.Empty.or(100, 10)
	l.WindowUpdates = l.WindowUpdates.or(2000, 200)
	l.Priorities = l.Priorities.or(1000, 100)
	return l
}

// bucket counts against one Rate. It belongs to one goroutine.
type bucket struct {
	rate Rate
	used int   // how much of the burst is taken
	last int64 // when used was last reduced, in nanoseconds
}

// take reports whether one more is within the rate at now.
func (b *bucket) take(now int64) bool {
	if b.used++; b.used <= b.rate.Burst {
		return true
	}
	if passed := now - b.last; passed > 0 {
		const second = 1_000_000_000
		if passed > 100*second {
			passed = 100 * second
		}
		if back := int(passed * int64(b.rate.PerSecond) / second); back > 0 {
			b.used = max(0, b.used-back)
			b.last = now
		}
	}
	return b.used <= b.rate.Burst
}

// earn gives n back: work that explains as many.
func (b *bucket) earn(n int) { b.used = max(0, b.used-n) }

// guard watches what one peer does. It belongs to the connection's reader.
type guard struct {
	resets, settings, pings, empty, windows, priorities bucket
}

func newGuard(l Limits, now int64) guard {
	return guard{
		resets:     bucket{rate: l.Resets, last: now},
		settings:   bucket{rate: l.Settings, last: now},
		pings:      bucket{rate: l.Pings, last: now},
		empty:      bucket{rate: l.Empty, last: now},
		windows:    bucket{rate: l.WindowUpdates, last: now},
		priorities: bucket{rate: l.Priorities, last: now},
	}
}

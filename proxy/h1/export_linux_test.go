package h1

// Looped is how many clients' connections the event loops have.
func (e *Engine) Looped() (n int) {
	e.loops.mu.Lock()
	defer e.loops.mu.Unlock()
	for _, l := range e.loops.all {
		n += int(l.clients.Load())
	}
	return n
}

package allreduce

import (
	"sync"
	"time"
)

// How the rate of this member's links is estimated.
const (
	meterLeast = 4 << 20     // bytes below which nothing is said: sockets buffer that much
	meterMost  = 64 << 20    // bytes from which on older ones count for half
	fast       = 300_000_000 // bytes per second above which packing tightly costs more time than it saves
	timedFrame = 16 << 10    // bytes of a frame whose sending is timed
)

// meter estimates how many bytes per second this member can send: bytes over the time in which at least one link was
// being written to. A link that is faster than this member can pack never makes a writer wait, and looks even faster.
type meter struct {
	mu    sync.Mutex
	now   int // writers at work
	since time.Time
	bytes int64
	busy  time.Duration
}

// write times f, which sends so many bytes.
func (m *meter) write(bytes int, f func() error) error {
	if bytes < timedFrame {
		return f()
	}
	m.mu.Lock()
	if m.now++; m.now == 1 {
		m.since = time.Now()
	}
	m.mu.Unlock()
	err := f()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.now--; m.now == 0 {
		m.busy += time.Since(m.since)
	}
	if m.bytes += int64(bytes); m.bytes > meterMost && m.now == 0 {
		m.bytes, m.busy = m.bytes/2, m.busy/2
	}
	return err
}

// rate is the estimate in bytes per second, or 0.
func (m *meter) rate() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.bytes < meterLeast || m.busy <= 0 {
		return 0
	}
	return int64(float64(m.bytes) / m.busy.Seconds())
}

// slow says whether bytes are worth more than the time to save them.
func (m *meter) slow() bool { return m.rate() < fast }

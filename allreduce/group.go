package allreduce

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Defaults of a Config, and how long a group that ends waits for its neighbours' last word.
const (
	DefaultSilence   = 5 * time.Second
	DefaultHeartbeat = 200 * time.Millisecond
	lingerAbort      = 250 * time.Millisecond
	lingerBye        = time.Second
	hearsay          = 100 * time.Millisecond
)

// Why a group ended, besides what its links report.
var (
	ErrClosed = errors.New("the group was closed here")
	ErrLeft   = errors.New("the member left the group in good order")
	errBusy   = errors.New("another operation is in progress: a group does one at a time")
)

// Config describes one member's place in a group.
type Config struct {
	Run, Generation uint64
	Rank            int      // this member's index in Members
	Members         []string // ids, the same list in the same order on every member

	Silence   time.Duration // nothing at all from a neighbour for so long means that it is dead; 0 = DefaultSilence
	Heartbeat time.Duration // write something at least so often; 0 = DefaultHeartbeat
}

// Links are a member's connections to the others, by rank; its own is nil.
type Links []Link

// AbortError ends a group. The operation may be repeated in the next generation: accumulators are untouched.
type AbortError struct {
	Op      OpID   // in progress, or the last one when Phase is Idle
	Suspect string // the member that failed, as seen from one end of a link; "" when nobody is to blame (cancellation)
	Phase   Phase
	Cause   error
}

func (e *AbortError) Error() string {
	who := ""
	if e.Suspect != "" {
		who = "member " + e.Suspect + ": "
	}
	if e.Phase == Idle {
		return fmt.Sprintf("all-reduce run %x generation %d: aborted between operations: %s%v", e.Op.Run, e.Op.Generation, who, e.Cause)
	}
	return fmt.Sprintf("all-reduce %v: aborted in %v: %s%v", e.Op, e.Phase, who, e.Cause)
}

func (e *AbortError) Unwrap() error { return e.Cause }

// Group is one member's end of the collective operations of one generation. Every member calls the same
// operations in the same order, one at a time. After an error that is an AbortError the group is dead.
type Group struct {
	cfg      Config
	peers    []*peer                         // the others, by rank
	busy     sync.Mutex                      // held by the operation in progress
	run      reduction                       // its scratch, kept from step to step
	table    table                           // of all members' links, the same everywhere
	decide   func(values int) (Way, []int64) // table.choose, but in tests
	meter    meter
	entered  int64 // reductions
	compares int64 // when the members compare their links next

	op    atomic.Pointer[OpID]
	phase atomic.Uint32

	mu      sync.Mutex
	failure *AbortError
	closing bool
	dead    chan struct{} // closed at the first failure
	over    chan struct{} // closed when the group begins to end, for whatever reason
	readers sync.WaitGroup
	all     sync.WaitGroup
}

// NewGroup starts a member's end of a group over established links: heartbeats go out from now until Close.
// The clock of silence starts for each neighbour with its first frame. Close the group even after an abort.
func NewGroup(cfg Config, links Links) (*Group, error) {
	cfg.Silence = orDefault(cfg.Silence, DefaultSilence)
	cfg.Heartbeat = orDefault(cfg.Heartbeat, DefaultHeartbeat)
	n := len(cfg.Members)
	switch {
	case n == 0 || cfg.Rank < 0 || cfg.Rank >= n:
		return nil, fmt.Errorf("all-reduce group: rank %d of %d members: out of range", cfg.Rank, n)
	case slices.ContainsFunc(cfg.Members, func(id string) bool { return len(id) > 255 }):
		return nil, errors.New("all-reduce group: a member's id is longer than 255 bytes")
	case n > 1 && len(links) != n:
		return nil, fmt.Errorf("all-reduce group of %d: %d links", n, len(links))
	}
	g := &Group{cfg: cfg, table: newTable(n), compares: firstCompare, dead: make(chan struct{}), over: make(chan struct{})}
	g.op.Store(&OpID{Run: cfg.Run, Generation: cfg.Generation})
	for i := range n {
		if i == cfg.Rank {
			continue
		}
		if links[i] == nil {
			return nil, fmt.Errorf("all-reduce group of %d: the link to member %d is missing", n, i)
		}
		g.peers = append(g.peers, newPeer(cfg.Members[i], i, links[i]))
	}
	for _, p := range g.peers {
		g.readers.Add(1)
		g.all.Add(2)
		go g.read(p)
		go g.pulse(p)
	}
	return g, nil
}

func orDefault(d, def time.Duration) time.Duration {
	if d <= 0 {
		return def
	}
	return d
}

// neighbour is the member of this one's rank + d.
func (g *Group) neighbour(d int) *peer { return g.peer((g.cfg.Rank + d + g.Size()) % g.Size()) }

// peer is the member of a rank that is not this one's.
func (g *Group) peer(rank int) *peer {
	if rank > g.cfg.Rank {
		rank--
	}
	return g.peers[rank]
}

// traffic is what this member has sent and received.
func (g *Group) traffic() (sent, received int64) {
	for _, p := range g.peers {
		sent, received = sent+p.sent.Load(), received+p.received.Load()
	}
	return sent, received
}

// Size is the number of members.
func (g *Group) Size() int { return len(g.cfg.Members) }

// Rank is this member's index.
func (g *Group) Rank() int { return g.cfg.Rank }

// Done is closed when the group is dead, which may happen between operations; Err then says why.
func (g *Group) Done() <-chan struct{} { return g.dead }

// Err is nil, or the AbortError that ended the group.
func (g *Group) Err() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.failure == nil {
		return nil
	}
	return g.failure
}

// Close leaves the group in good order; it aborts an operation in progress, and cleans up after an abort. When
// it returns, no goroutine is left.
func (g *Group) Close() error {
	if !g.busy.TryLock() {
		_ = g.abort("", ErrClosed)
	} else {
		defer g.busy.Unlock()
	}
	g.mu.Lock()
	first := g.failure == nil && !g.closing
	if g.closing = true; first {
		close(g.over)
		g.all.Go(func() { g.farewell(Bye, nil, lingerBye) })
	}
	g.mu.Unlock()
	g.all.Wait()
	_ = g.abort("", ErrClosed)
	return nil
}

// abort ends the group; the first one is the one that counts.
func (g *Group) abort(suspect string, cause error) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.failure != nil {
		return g.failure
	}
	g.failure = &AbortError{Op: *g.op.Load(), Suspect: suspect, Phase: Phase(g.phase.Load()), Cause: cause}
	close(g.dead)
	if !g.closing {
		close(g.over)
		g.all.Go(func() { g.farewell(Abort, g.obituary(), lingerAbort) })
	}
	return g.failure
}

// farewell says the last word on every link, waits a moment for the neighbours' and closes the links. Closing
// at once could reset the connection and destroy what is still under way to the neighbour.
func (g *Group) farewell(t FrameType, payload []byte, linger time.Duration) {
	var writers sync.WaitGroup
	for _, p := range g.peers {
		writers.Go(func() { _ = p.write(g.header(t), payload) })
	}
	done := make(chan struct{})
	go func() { // ends with the links at the latest
		writers.Wait()
		g.readers.Wait()
		close(done)
	}()
	timer := time.NewTimer(linger)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
	}
	for _, p := range g.peers {
		_ = p.link.Close()
	}
	<-done
}

func (g *Group) header(t FrameType) Header {
	return Header{Type: t, Op: OpID{Run: g.cfg.Run, Generation: g.cfg.Generation}}
}

// maxFarewell bounds an Abort frame: the length of the suspect's id, the id, the cause in words.
const maxFarewell = 1 << 10

// relayed is a cause that another member saw, in its words.
type relayed string

func (r relayed) Error() string { return fmt.Sprintf("%q", string(r)) }

// obituary is the payload of this member's Abort frames. What was relayed to us goes on unchanged.
func (g *Group) obituary() []byte {
	text := fmt.Sprintf("seen by member %s: %v", g.cfg.Members[g.cfg.Rank], g.failure.Cause)
	var r relayed
	if errors.As(g.failure.Cause, &r) {
		text = string(r)
	}
	id := g.failure.Suspect
	b := append([]byte{byte(len(id))}, id...)
	return append(b, text[:min(len(text), maxFarewell-len(b))]...)
}

// reported reads an Abort frame from p.
func (g *Group) reported(p *peer, b []byte) (suspect string, cause error) {
	if len(b) == 0 || len(b) < 1+int(b[0]) {
		return p.id, ErrMagic
	}
	id, text := string(b[1:1+int(b[0])]), b[1+int(b[0]):]
	if id != "" && !slices.Contains(g.cfg.Members, id) {
		return p.id, fmt.Errorf("accused the unknown member %q", id)
	}
	return id, relayed(text)
}

// begin claims the group for one operation until the returned function is called; cancelling ctx aborts it.
func (g *Group) begin(ctx context.Context, op OpID, phase Phase) (end func(), err error) {
	if op.Run != g.cfg.Run || op.Generation != g.cfg.Generation {
		return nil, fmt.Errorf("all-reduce %v: wrong group: this one is run %x generation %d", op, g.cfg.Run, g.cfg.Generation)
	}
	if !g.busy.TryLock() {
		return nil, fmt.Errorf("all-reduce %v: %w", op, errBusy)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.failure != nil:
		err = g.failure
	case g.closing:
		err = &AbortError{Op: op, Cause: ErrClosed}
	}
	if err != nil {
		g.busy.Unlock()
		return nil, err
	}
	g.op.Store(&op)
	g.phase.Store(uint32(phase))
	stop := context.AfterFunc(ctx, func() { _ = g.abort("", context.Cause(ctx)) })
	return func() {
		stop()
		g.phase.Store(uint32(Idle))
		g.busy.Unlock()
	}, nil
}

// send writes a data frame to p.
func (g *Group) send(p *peer, h Header, payload []byte) error {
	return g.meter.write(len(payload), func() error { return p.write(h, payload) })
}

// receive waits for the data frame that the schedule expects from p.
func (g *Group) receive(p *peer, want Header) (packet, error) {
	select {
	case k, ok := <-p.in:
		if !ok {
			return k, g.abort(p.id, ErrLeft)
		}
		if want.Length = k.h.Length; k.h != want {
			p.release(k)
			return packet{}, g.abort(p.id, &FenceError{Want: want, Got: k.h})
		}
		return k, nil
	case <-g.dead:
		return packet{}, g.Err()
	}
}

package tcp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// Bounds of a Registry.
const (
	helloTimeout  = 5 * time.Second // to say hello, and to acknowledge a yes
	parkTime      = 5 * time.Second // a connection waits so long for the local node
	maxParked     = 64
	maxStrangers  = 64 // connections that have not said hello yet
	acceptBackoff = 50 * time.Millisecond
)

// ErrRegistryClosed is what Connect gets when the node shuts down.
var ErrRegistryClosed = errors.New("the registry of all-reduce connections is closed")

// Registry owns the listener for all-reduce streams and hands each connection to the Connect that expects it.
type Registry struct {
	self   string
	peerID func(net.Conn) (id string, ok bool)

	mu       sync.Mutex
	waiting  map[key]chan arrival // by those that Connect expects; buffered, one arrival
	parked   map[key]arrival
	newest   map[uint64]uint64 // run -> newest generation that the local node has connected to
	conns    map[net.Conn]bool // strangers and parked ones: what Close must close
	closed   bool
	listener net.Listener

	strangers chan struct{}
	work      sync.WaitGroup
}

// key is what tells connections apart.
type key struct {
	run, generation uint64
	from            string
}

// arrival is a connection that has said hello.
type arrival struct {
	conn  net.Conn
	hello hello
	timer *time.Timer // ends its parking
}

// NewRegistry makes the registry of member self. peerID says whom the secure transport has proved to be at the
// other end; a hello in another name is refused.
func NewRegistry(self string, peerID func(net.Conn) (id string, ok bool)) *Registry {
	return &Registry{
		self: self, peerID: peerID,
		waiting: map[key]chan arrival{}, parked: map[key]arrival{},
		newest: map[uint64]uint64{}, conns: map[net.Conn]bool{},
		strangers: make(chan struct{}, maxStrangers),
	}
}

// Serve accepts connections until Close, which also closes the listener; it then returns nil.
func (r *Registry) Serve(l net.Listener) error {
	r.mu.Lock()
	r.listener = l
	closed := r.closed
	r.mu.Unlock()
	if closed {
		return l.Close()
	}
	for {
		conn, err := l.Accept()
		switch {
		case r.isClosed() || errors.Is(err, net.ErrClosed):
			if err == nil {
				_ = conn.Close()
			}
			return nil
		case err != nil: // out of file descriptors and the like: it passes
			time.Sleep(acceptBackoff)
		default:
			r.welcome(conn)
		}
	}
}

func (r *Registry) isClosed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.closed
}

// welcome reads the hello in the background, unless too many others are at it.
func (r *Registry) welcome(conn net.Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	select {
	case r.strangers <- struct{}{}:
	default:
		_ = conn.Close()
		return
	}
	if r.closed {
		_ = conn.Close()
		<-r.strangers
		return
	}
	r.conns[conn] = true
	r.work.Go(func() {
		defer func() { <-r.strangers }()
		r.meet(conn)
	})
}

// meet reads a stranger's hello and finds it a place.
func (r *Registry) meet(conn net.Conn) {
	_ = conn.SetDeadline(time.Now().Add(helloTimeout))
	h, err := readHello(conn)
	if err != nil {
		r.turnAway(conn, no, err.Error())
		return
	}
	err = r.verify(conn, h.From)
	switch {
	case err != nil:
		r.turnAway(conn, no, err.Error())
	case h.To != r.self:
		r.turnAway(conn, no, fmt.Sprintf("this is %s, not %s: check the addresses", r.self, h.To))
	default:
		if code, reason := r.offer(arrival{conn: conn, hello: h}); reason != "" {
			r.turnAway(conn, code, reason)
		}
	}
}

// verify compares who the other end claims to be with whom the secure transport has proved it to be.
func (r *Registry) verify(conn net.Conn, claim string) error {
	if id, ok := r.peerID(conn); !ok || id != claim {
		return refusedError(fmt.Sprintf("the certificate says %q, the hello %q", id, claim))
	}
	return nil
}

func (r *Registry) turnAway(conn net.Conn, code byte, reason string) {
	r.mu.Lock()
	delete(r.conns, conn)
	r.mu.Unlock()
	refuse(conn, code, reason)
}

// offer hands an arrival to who waits for it, or parks it, or says why not.
func (r *Registry) offer(a arrival) (code byte, reason string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	k := key{a.hello.Run, a.hello.Generation, a.hello.From}
	if newest, known := r.newest[k.run]; known && k.generation < newest {
		return no, fmt.Sprintf("generation %d is stale: this node is in %d", k.generation, newest)
	}
	if r.closed {
		return later, "shutting down"
	}
	if ch := r.waiting[k]; ch != nil {
		select {
		case ch <- a:
			delete(r.conns, a.conn)
			return 0, ""
		default:
			return later, "another connection of yours is being answered"
		}
	}
	if _, again := r.parked[k]; !again && len(r.parked) >= maxParked {
		return later, "too many connections wait here"
	}
	r.evict(k, "replaced by a later connection")
	a.timer = time.AfterFunc(parkTime, func() { r.expire(k, a.conn) })
	r.parked[k] = a
	return 0, ""
}

// expire ends the parking of conn.
func (r *Registry) expire(k key, conn net.Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.parked[k].conn == conn {
		r.evict(k, "this node has not been told of the generation")
	}
}

// evict sends a parked connection away, if there is one. The lock is held; the answer is short and its write
// has a deadline.
func (r *Registry) evict(k key, reason string) {
	a, ok := r.parked[k]
	if !ok {
		return
	}
	a.timer.Stop()
	delete(r.parked, k)
	delete(r.conns, a.conn)
	_ = a.conn.SetDeadline(time.Now().Add(time.Second))
	r.work.Go(func() { refuse(a.conn, later, reason) })
}

// enter notes the newest generation of a run: older ones are over for this node.
func (r *Registry) enter(run, generation uint64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch newest := r.newest[run]; {
	case r.closed:
		return ErrRegistryClosed
	case generation < newest:
		return fmt.Errorf("generation %d is stale: this node is in %d", generation, newest)
	}
	r.newest[run] = generation
	for old := range r.parked {
		if old.run == run && old.generation < generation {
			r.evict(old, "stale generation")
		}
	}
	return nil
}

// expect announces that Connect waits for k.
func (r *Registry) expect(k key) (<-chan arrival, error) {
	if err := r.enter(k.run, k.generation); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.waiting[k] != nil {
		return nil, fmt.Errorf("generation %d is being connected already", k.generation)
	}
	ch := make(chan arrival, 1)
	r.waiting[k] = ch
	if a, ok := r.parked[k]; ok {
		a.timer.Stop()
		delete(r.parked, k)
		delete(r.conns, a.conn)
		ch <- a
	}
	return ch, nil
}

// forget ends what expect began.
func (r *Registry) forget(k key) {
	r.mu.Lock()
	defer r.mu.Unlock()
	select {
	case a := <-r.waiting[k]:
		_ = a.conn.Close()
	default:
	}
	delete(r.waiting, k)
}

// accept waits for the connection of k.from, answers it and gets its acknowledgement.
func (r *Registry) accept(ctx context.Context, k key, members uint64) (net.Conn, error) {
	ch, err := r.expect(k)
	if err != nil {
		return nil, err
	}
	defer r.forget(k)
	for {
		select {
		case a := <-ch:
			if a.hello.Members != members {
				refuse(a.conn, no, "it has another list of members for this generation")
				return nil, errors.New("has another list of members for this generation")
			}
			if shake(ctx, a.conn) == nil {
				return a.conn, nil
			}
			_ = a.conn.Close() // its dialler has given up and may come again
		case <-ctx.Done():
			return nil, fmt.Errorf("has not called: %w", context.Cause(ctx))
		}
	}
}

// shake says yes and waits for the acknowledgement.
func shake(ctx context.Context, conn net.Conn) error {
	_ = conn.SetDeadline(time.Now().Add(helloTimeout))
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	if _, err := conn.Write([]byte{yes}); err != nil {
		return err
	}
	var b [1]byte
	if _, err := conn.Read(b[:]); err != nil {
		return err
	}
	if b[0] != ack {
		return errHello
	}
	return conn.SetDeadline(time.Time{})
}

// Close closes the listener and every connection that has no Connect yet. Groups are not touched.
func (r *Registry) Close() error {
	r.mu.Lock()
	r.closed = true
	if r.listener != nil {
		_ = r.listener.Close()
	}
	for k := range r.parked {
		r.evict(k, "shutting down")
	}
	for conn := range r.conns {
		_ = conn.Close()
	}
	r.mu.Unlock()
	r.work.Wait()
	return nil
}

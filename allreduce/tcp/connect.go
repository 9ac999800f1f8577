package tcp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"lorad/allreduce"
)

// barrier is the kind of the first collective, which Connect runs. Callers use small kinds.
const barrier = ^uint32(0)

// How long the dialler waits between two tries.
const (
	firstPause = 10 * time.Millisecond
	lastPause  = 500 * time.Millisecond
)

// Member is one of a group.
type Member struct {
	ID, Addr string
}

// Config says which group to join and how to reach its members.
type Config struct {
	Run, Generation uint64
	Rank            int
	Members         []Member // the same list in the same order on every member
	Dial            func(ctx context.Context, m Member) (net.Conn, error)
	Accept          *Registry

	Silence, Heartbeat time.Duration // of allreduce.Config
}

// ConnectError says which member could not be joined with.
type ConnectError struct {
	Run, Generation uint64
	Member          string
	Cause           error
}

func (e *ConnectError) Error() string {
	return fmt.Sprintf("all-reduce run %x generation %d: connect: member %s: %v", e.Run, e.Generation, e.Member, e.Cause)
}

func (e *ConnectError) Unwrap() error { return e.Cause }

// Connect builds this member's links to all others and returns when the whole group is alive. It tries until ctx
// ends. The error is a ConnectError (a member did not answer) or an AbortError (the group broke at once).
func Connect(ctx context.Context, c Config) (*allreduce.Group, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	links, err := c.links(ctx)
	if err != nil {
		return nil, err
	}
	g, err := allreduce.NewGroup(c.group(), links)
	if err != nil {
		return nil, err
	}
	op := allreduce.OpID{Run: c.Run, Generation: c.Generation, Kind: barrier}
	if err := g.Compare(ctx, op); err != nil {
		_ = g.Close()
		return nil, err
	}
	return g, nil
}

func (c *Config) check() error {
	n := len(c.Members)
	if c.Rank < 0 || c.Rank >= n {
		return fmt.Errorf("all-reduce connect: rank %d of %d members: out of range", c.Rank, n)
	}
	for i, m := range c.Members {
		if m.ID == "" || len(m.ID) > maxID {
			return fmt.Errorf("all-reduce connect: member id %q: must have 1 to %d bytes", m.ID, maxID)
		}
		if slices.ContainsFunc(c.Members[:i], func(o Member) bool { return o.ID == m.ID }) {
			return fmt.Errorf("all-reduce connect: member id %q: is there twice", m.ID)
		}
	}
	return nil
}

func (c *Config) group() allreduce.Config {
	ids := make([]string, len(c.Members))
	for i, m := range c.Members {
		ids[i] = m.ID
	}
	return allreduce.Config{
		Run: c.Run, Generation: c.Generation, Rank: c.Rank, Members: ids,
		Silence: c.Silence, Heartbeat: c.Heartbeat,
	}
}

// links dials one half of the other members and accepts the other half, all at the same time.
func (c *Config) links(ctx context.Context) (allreduce.Links, error) {
	if err := c.Accept.enter(c.Run, c.Generation); err != nil {
		return nil, c.failed(c.Members[c.Rank], err)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	conns := make([]net.Conn, len(c.Members))
	errs := make([]error, len(c.Members))
	var calls sync.WaitGroup
	for i, m := range c.Members {
		if i == c.Rank {
			continue
		}
		calls.Go(func() {
			if conns[i], errs[i] = c.meet(ctx, i); errs[i] != nil {
				errs[i] = c.failed(m, errs[i])
				cancel(errs[i])
			}
		})
	}
	calls.Wait()
	if err := first(ctx, errs); err != nil {
		hangUp(conns)
		return nil, err
	}
	links := make(allreduce.Links, len(conns))
	for i, conn := range conns {
		if conn != nil {
			links[i] = NewLink(conn)
		}
	}
	return links, nil
}

// meet gets the connection with the member of rank i.
func (c *Config) meet(ctx context.Context, i int) (net.Conn, error) {
	if dials(c.Rank, i, len(c.Members)) {
		return c.call(ctx, c.Members[i])
	}
	return c.Accept.accept(ctx, key{c.Run, c.Generation, c.Members[i].ID}, fingerprint(c.Members))
}

// dials says whether of n members that of rank i calls that of rank j: the half that follows it in a circle. So (but for
// the second of two) everybody calls somebody, and is told if its generation is over.
func dials(i, j, n int) bool {
	d := (j - i + n) % n
	return 2*d < n || 2*d == n && i < j
}

func hangUp(conns []net.Conn) {
	for _, conn := range conns {
		if conn != nil {
			_ = conn.Close()
		}
	}
}

// first is the failure that made the others: unless the caller's own ctx ended, the cause of ours.
func first(ctx context.Context, errs []error) error {
	err := errors.Join(errs...)
	var ce *ConnectError
	if cause := context.Cause(ctx); err != nil && errors.As(cause, &ce) {
		return cause
	}
	return err
}

func (c *Config) failed(m Member, err error) error {
	return &ConnectError{Run: c.Run, Generation: c.Generation, Member: m.ID, Cause: err}
}

// call dials m until it says yes, says no, or ctx ends.
func (c *Config) call(ctx context.Context, m Member) (net.Conn, error) {
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		conn, err := c.callOnce(ctx, m)
		var final refusedError
		if err == nil || errors.As(err, &final) {
			return conn, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("at %s: %w (last: %w)", m.Addr, context.Cause(ctx), err)
		case <-time.After(pause):
		}
	}
}

// callOnce dials m, introduces this member and waits for the answer as long as ctx allows.
func (c *Config) callOnce(ctx context.Context, m Member) (net.Conn, error) {
	conn, err := c.Dial(ctx, m)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	h := hello{c.Run, c.Generation, fingerprint(c.Members), c.Members[c.Rank].ID, m.ID}
	if err = introduce(conn, h); err == nil {
		err = c.Accept.verify(conn, m.ID)
	}
	if err == nil && stop() {
		return conn, nil
	}
	stop()
	_ = conn.Close()
	return nil, errors.Join(err, ctx.Err())
}

// introduce is the dialler's half of the handshake.
func introduce(conn net.Conn, h hello) error {
	if _, err := conn.Write(h.append(nil)); err != nil {
		return err
	}
	if err := readAnswer(conn); err != nil {
		return err
	}
	_, err := conn.Write([]byte{ack})
	return err
}

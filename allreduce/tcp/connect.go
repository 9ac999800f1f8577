package tcp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"lorad/allreduce"
)

// barrier is the kind of the empty all-gather that Connect runs. Callers use small kinds.
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

// Connect builds this member's end of the ring and returns when the whole ring is alive. It tries until ctx
// ends. The error is a ConnectError (a neighbour did not answer) or an AbortError (the ring broke at once).
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
	if _, err := g.AllGather(ctx, op, nil); err != nil {
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

// links dials the successor and accepts the predecessor at the same time.
func (c *Config) links(ctx context.Context) (allreduce.Links, error) {
	n := len(c.Members)
	if n == 1 {
		return allreduce.Links{}, nil
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	next, prev := c.Members[(c.Rank+1)%n], c.Members[(c.Rank+n-1)%n]
	type call struct {
		conn net.Conn
		err  error
	}
	called := make(chan call, 1)
	go func() {
		conn, err := c.call(ctx, next)
		if err != nil {
			err = c.failed(next, err)
			cancel(err)
		}
		called <- call{conn, err}
	}()
	in, err := c.Accept.accept(ctx, key{c.Run, c.Generation, prev.ID}, fingerprint(c.Members))
	if err != nil {
		err = c.failed(prev, err)
		cancel(err)
	}
	out := <-called
	if err == nil && out.err == nil {
		return allreduce.Links{Next: NewLink(out.conn), Prev: NewLink(in)}, nil
	}
	hangUp(in, out.conn)
	return allreduce.Links{}, first(ctx, out.err, err)
}

func hangUp(conns ...net.Conn) {
	for _, conn := range conns {
		if conn != nil {
			_ = conn.Close()
		}
	}
}

// first is the failure that made the other one: unless the caller's own ctx ended, the cause of ours.
func first(ctx context.Context, errs ...error) error {
	var ce *ConnectError
	if cause := context.Cause(ctx); errors.As(cause, &ce) {
		return cause
	}
	return errors.Join(errs...)
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

package transport

import (
	"container/list"
	"fmt"
	"net"
	"sync"
)

// crowd is a bounded set of connections of people we do not know yet. When it is full, a newcomer takes the place of
// the oldest one of the address that has the most: an honest peer is through in milliseconds, so the oldest is the one
// that stalls, and a flood from one address drives out itself.
type crowd struct {
	max int

	mu     sync.Mutex
	closed bool
	order  list.List // of net.Conn, oldest first
	at     map[net.Conn]*list.Element
	from   map[string]int // connections by host
}

func (w *crowd) add(c net.Conn) {
	if out := w.push(c); out != nil {
		out.Close()
	}
}

// push adds c and returns the connection that has to go for it, if any.
func (w *crowd) push(c net.Conn) net.Conn {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return c
	}
	if w.at == nil {
		w.at, w.from = map[net.Conn]*list.Element{}, map[string]int{}
	}
	w.at[c] = w.order.PushBack(c)
	w.from[host(c)]++
	if w.order.Len() <= w.max {
		return nil
	}
	return w.drop(w.victim())
}

// victim is the oldest connection of the host that has the most.
func (w *crowd) victim() *list.Element {
	most := 0
	for _, n := range w.from {
		most = max(most, n)
	}
	e := w.order.Front()
	for w.from[host(e.Value.(net.Conn))] < most {
		e = e.Next()
	}
	return e
}

func (w *crowd) drop(e *list.Element) net.Conn {
	c := w.order.Remove(e).(net.Conn)
	delete(w.at, c)
	if h := host(c); w.from[h] > 1 {
		w.from[h]--
	} else {
		delete(w.from, h)
	}
	return c
}

// host is the address at the other end without its port.
func host(c net.Conn) string {
	addr := c.RemoteAddr().String()
	if h, _, err := net.SplitHostPort(addr); err == nil {
		return h
	}
	return addr
}

func (w *crowd) remove(c net.Conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if e, ok := w.at[c]; ok {
		w.drop(e)
	}
}

func (w *crowd) closeAll() {
	w.mu.Lock()
	w.closed = true
	at := w.at
	w.at = nil
	w.order.Init()
	w.mu.Unlock()
	for c := range at {
		c.Close()
	}
}

// quota bounds how many connections somebody holds, whom we know.
type quota struct {
	max int

	mu   sync.Mutex
	held map[string]int
}

// hold counts c as who's until it closes, or fails.
func (q *quota) hold(c *Conn, who string) error {
	q.mu.Lock()
	if q.held == nil {
		q.held = map[string]int{}
	}
	full := q.held[who] >= q.max
	if !full {
		q.held[who]++
	}
	q.mu.Unlock()
	if full {
		return fmt.Errorf("%s has %d connections open already", who, q.max)
	}
	c.onClose(func() { q.release(who) })
	return nil
}

func (q *quota) release(who string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.held[who]--; q.held[who] <= 0 {
		delete(q.held, who)
	}
}

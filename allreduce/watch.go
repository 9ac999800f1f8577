package allreduce

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// read is the only reader of p's link. It delivers data and watches for the end.
func (g *Group) read(p *peer) {
	defer g.all.Done()
	defer g.readers.Done()
	defer close(p.in)
	var silence time.Duration
	for buf := p.buffer(); ; silence = g.cfg.Silence {
		h, payload, err := p.link.ReadFrame(buf, silence)
		if err != nil {
			g.lost(p, err)
			return
		}
		p.received.Add(int64(HeaderSize + len(payload)))
		if h.Op.Run != g.cfg.Run || h.Op.Generation != g.cfg.Generation {
			_ = g.abort(p.id, &FenceError{Want: Header{Op: *g.op.Load()}, Got: h})
			return
		}
		switch h.Type {
		case Data:
			buf = p.deliver(packet{h, payload, buf}, g.over)
		case Abort:
			_ = g.abort(g.reported(p, payload))
			return
		case Bye:
			p.left.Store(true)
			g.answer(p)
			return
		}
	}
}

// answer returns a neighbour's Bye, so that it need not wait for us, and says no more to it. An operation
// that still needs it finds out when its mailbox is empty.
func (g *Group) answer(p *peer) {
	select {
	case <-g.over: // our own last word is on its way
	default:
		_ = p.write(g.header(Bye), nil)
	}
}

// lost ends the group because p's link failed.
func (g *Group) lost(p *peer, err error) {
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		err = fmt.Errorf("silent for %v", g.cfg.Silence)
	case errors.Is(err, io.EOF):
		err = fmt.Errorf("connection closed without a goodbye: %w", io.ErrUnexpectedEOF)
	}
	select {
	case <-g.over: // a link that ends while we leave is no news
	default:
		_ = g.abort(p.id, err)
	}
}

// writeFailed ends the group because p could not be written to. Its reader may be about to learn the real
// reason from p's last frame: give it a moment.
func (g *Group) writeFailed(p *peer, err error) error {
	timer := time.NewTimer(hearsay)
	defer timer.Stop()
	select {
	case <-g.dead:
	case <-timer.C:
	}
	if p.left.Load() {
		err = ErrLeft
	}
	return g.abort(p.id, err)
}

// pulse keeps p from believing that we are dead. One goroutine per link: a neighbour that does not read must
// not keep the other one waiting.
func (g *Group) pulse(p *peer) {
	defer g.all.Done()
	tick := time.NewTicker(g.cfg.Heartbeat / 2)
	defer tick.Stop()
	for {
		// An error here shows on the reading side too, with its reason.
		_ = p.beat(g.header(Beat), g.cfg.Heartbeat/2)
		select {
		case <-tick.C:
		case <-g.over:
			return
		}
	}
}

package allreduce

import (
	"sync"
	"sync/atomic"
	"time"
)

// inDepth frames from a peer wait here for the operation that will read them; beyond that TCP holds them back.
const inDepth = 4

// packet is a data frame and the buffer its payload lies in.
type packet struct {
	h       Header
	payload []byte
	buf     []byte
}

// peer is one end of a link: who is there, a reader's mailbox and a writer's lock.
type peer struct {
	id   string
	rank int
	link Link
	in   chan packet // data frames in order of arrival; closed when the peer has said its last word
	free chan []byte // buffers for the reader
	made int         // buffers there are, at most inDepth+2: what bounds the frames in memory
	buf  []byte      // the sender's
	left atomic.Bool // it said goodbye

	mu        sync.Mutex   // one writer at a time
	lastWrite atomic.Int64 // unix nanoseconds
	sent      atomic.Int64 // bytes, heads and heartbeats included
	received  atomic.Int64
}

func newPeer(id string, rank int, link Link) *peer {
	return &peer{id: id, rank: rank, link: link, in: make(chan packet, inDepth), free: make(chan []byte, inDepth+2)}
}

// buffer is one for the reader; most peers never need more than one or two.
func (p *peer) buffer() []byte {
	select {
	case b := <-p.free:
		return b
	default:
	}
	if p.made == cap(p.free) {
		return <-p.free
	}
	p.made++
	return make([]byte, MaxPayload+slack)[:MaxPayload]
}

// scratch is where the one that sends data to p packs it.
func (p *peer) scratch() []byte {
	if p.buf == nil {
		p.buf = make([]byte, MaxPayload+slack)
	}
	return p.buf
}

// write sends a frame.
func (p *peer) write(h Header, payload []byte) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.writeLocked(h, payload)
}

func (p *peer) writeLocked(h Header, payload []byte) error {
	if err := p.link.WriteFrame(h, payload); err != nil {
		return err
	}
	p.lastWrite.Store(time.Now().UnixNano())
	p.sent.Add(int64(HeaderSize + len(payload)))
	return nil
}

// beat sends a heartbeat unless something was written within interval or is being written now.
func (p *peer) beat(h Header, interval time.Duration) error {
	if time.Since(time.Unix(0, p.lastWrite.Load())) < interval || !p.mu.TryLock() {
		return nil
	}
	defer p.mu.Unlock()
	return p.writeLocked(h, nil)
}

// deliver hands a packet to whoever operates the group and returns a buffer for the next frame. After done, when
// nobody operates it any more, it drops the packet and returns its own buffer. The operation holds one packet at a time, so of inDepth+2
// buffers one is always free.
func (p *peer) deliver(k packet, done <-chan struct{}) []byte {
	select {
	case p.in <- k:
		return p.buffer()
	case <-done:
		return k.buf
	}
}

// release gives a packet's buffer back to the reader.
func (p *peer) release(k packet) { p.free <- k.buf }

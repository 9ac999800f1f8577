package allreduce

import (
	"io"
	"os"
	"sync"
	"time"
)

// Link carries frames to and from one neighbour, in order. One goroutine may read while another writes.
// Close may be called at any time and unblocks both.
type Link interface {
	// WriteFrame sends one frame. It has sent or copied payload when it returns. h.Length is set by the link.
	WriteFrame(h Header, payload []byte) error
	// ReadFrame waits for the next frame and puts its payload at the front of buf, whose length bounds it.
	// When nothing at all arrives for silence (0 = for ever), the error is os.ErrDeadlineExceeded.
	// io.EOF means the other side is gone.
	ReadFrame(buf []byte, silence time.Duration) (Header, []byte, error)
	Close() error
}

// Pipe is a pair of connected links in memory.
func Pipe() (Link, Link) {
	ab, ba, done := newMemStream(), newMemStream(), &closer{c: make(chan struct{})}
	return &memLink{in: ba, out: ab, done: done}, &memLink{in: ab, out: ba, done: done}
}

// memDepth frames fit in one direction of a pipe before the writer waits.
const memDepth = 4

type memFrame struct {
	h       Header
	payload []byte
}

type memStream struct{ frames, free chan memFrame }

func newMemStream() memStream {
	s := memStream{make(chan memFrame, memDepth), make(chan memFrame, memDepth+1)}
	for range cap(s.free) {
		s.free <- memFrame{}
	}
	return s
}

type closer struct {
	once sync.Once
	c    chan struct{}
}

type memLink struct {
	in, out memStream
	done    *closer
}

func (l *memLink) WriteFrame(h Header, payload []byte) error {
	var f memFrame
	select {
	case f = <-l.out.free:
	case <-l.done.c:
		return io.ErrClosedPipe
	}
	h.Length = uint32(len(payload))
	f.h, f.payload = h, append(f.payload[:0], payload...)
	select {
	case l.out.frames <- f:
		return nil
	case <-l.done.c:
		return io.ErrClosedPipe
	}
}

func (l *memLink) ReadFrame(buf []byte, silence time.Duration) (Header, []byte, error) {
	f, err := l.next(silence)
	if err != nil {
		return Header{}, nil, err
	}
	defer func() { l.in.free <- f }()
	if len(f.payload) > len(buf) {
		return f.h, nil, ErrTooLarge
	}
	return f.h, buf[:copy(buf, f.payload)], nil
}

// next prefers frames that were written before the pipe closed, as TCP does.
func (l *memLink) next(silence time.Duration) (memFrame, error) {
	var late <-chan time.Time
	if silence > 0 {
		late = time.After(silence)
	}
	select {
	case f := <-l.in.frames:
		return f, nil
	case <-late:
		return memFrame{}, os.ErrDeadlineExceeded
	case <-l.done.c:
	}
	select {
	case f := <-l.in.frames:
		return f, nil
	default:
		return memFrame{}, io.EOF
	}
}

func (l *memLink) Close() error {
	l.done.once.Do(func() { close(l.done.c) })
	return nil
}

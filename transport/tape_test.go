package transport

import (
	"bytes"
	"io"
	"net"
	"sync"
	"testing"
)

// tape records what a relay passes on, both ways.
type tape struct {
	mu  sync.Mutex
	buf []byte
}

func (t *tape) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, b...)
	return len(b), nil
}

func (t *tape) len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.buf)
}

func (t *tape) relay(in net.Conn, to string) {
	out, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	var wg sync.WaitGroup
	wg.Go(func() { io.Copy(io.MultiWriter(in, t), out); in.Close() })
	io.Copy(io.MultiWriter(out, t), in)
	out.Close()
	wg.Wait()
}

func (t *tape) wantNone(test *testing.T, secrets ...string) {
	test.Helper()
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, s := range secrets {
		if bytes.Contains(t.buf, []byte(s)) {
			test.Errorf("%q is on the wire in clear", s)
		}
	}
}

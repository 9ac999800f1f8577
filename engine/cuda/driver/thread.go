//go:build cuda && linux

package driver

import (
	"errors"
	"runtime"
	"sync"
)

// thread runs calls, one after the other, on a thread of the operating system that nothing else runs on.
type thread struct {
	mu    sync.Mutex // one call at a time
	calls chan func() error
	done  chan error
	ended bool
}

func startThread() *thread {
	t := &thread{calls: make(chan func() error), done: make(chan error)}
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with its goroutine, and the current context with it
		for f := range t.calls {
			t.done <- f()
		}
	}()
	return t
}

var errClosed = errors.New("CUDA: the device is closed")

func (t *thread) do(f func() error) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ended {
		return errClosed
	}
	t.calls <- f
	return <-t.done
}

// end runs a last call.
func (t *thread) end(f func() error) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ended {
		return nil
	}
	t.ended = true
	t.calls <- f
	err := <-t.done
	close(t.calls)
	return err
}

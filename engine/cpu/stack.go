package cpu

import "sync"

// stack lends memory to whoever computes at the moment: as many exist as were in use at once. Why not sync.Pool: the collector
// empties it, and a slab that is zeroed again costs more than the product it is for.
type stack[T any] struct {
	mu   sync.Mutex
	free []*T
}

func (s *stack[T]) get() *T {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.free) - 1
	if n < 0 {
		return new(T)
	}
	x := s.free[n]
	s.free = s.free[:n]
	return x
}

func (s *stack[T]) put(x *T) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.free = append(s.free, x)
}

//go:build cuda && linux

package driver

import (
	"errors"
	"unsafe"

	"gorgonia.org/cu"

	"lorad/engine/cuda/device"
)

// staging is two pinned buffers between the memory that Go manages and the device's. Only pinned memory is copied while the processor goes on, and the
// driver may keep no pointer into Go's; with two, one is filled or emptied while the other travels. What the caller has pinned needs no buffer.
type staging struct {
	pins
	buffer [2][]byte
	free   [2]cu.Event // when the last copy out of, or into, the buffer is done
	turn   int
}

const stagingBytes = 8 << 20

func (s *staging) open() (err error) {
	for i := range s.buffer {
		if s.free[i], err = cu.MakeEvent(cu.DisableTiming); err != nil {
			return err
		}
		if s.buffer[i], err = allocPinned(stagingBytes); err != nil {
			return err
		}
	}
	return nil
}

func (s *staging) close() error {
	var errs []error
	for i, b := range s.buffer {
		if b != nil {
			errs = append(errs, cu.MemFreeHost(unsafe.Pointer(unsafe.SliceData(b))))
		}
		if s.free[i] != (cu.Event{}) {
			errs = append(errs, cu.DestroyEvent(&s.free[i]))
		}
	}
	errs = append(errs, s.pins.close())
	*s = staging{}
	return errors.Join(errs...)
}

// take waits until the next buffer is free.
func (s *staging) take() (i int, err error) {
	i, s.turn = s.turn, 1-s.turn
	return i, s.free[i].Synchronize()
}

func (s *staging) upload(dst device.Ptr, src []byte, on cu.Stream) error {
	if s.pinned(src) {
		return s.direct(dst, src, on)
	}
	for len(src) > 0 {
		i, err := s.take()
		if err != nil {
			return err
		}
		n := copy(s.buffer[i], src)
		if err := cu.MemcpyHtoDAsync(cu.DevicePtr(dst), unsafe.Pointer(&s.buffer[i][0]), int64(n), on); err != nil {
			return err
		}
		if err := s.free[i].Record(on); err != nil {
			return err
		}
		dst, src = dst+device.Ptr(n), src[n:]
	}
	return nil
}

// direct waits: src may be written again when it returns.
func (s *staging) direct(dst device.Ptr, src []byte, on cu.Stream) error {
	i, err := s.take()
	if err != nil {
		return err
	}
	if err := cu.MemcpyHtoDAsync(cu.DevicePtr(dst), unsafe.Pointer(&src[0]), int64(len(src)), on); err != nil {
		return err
	}
	if err := s.free[i].Record(on); err != nil {
		return err
	}
	return s.free[i].Synchronize()
}

// coming is a part of a download that is under way: from the device to a buffer, or to where it goes in the end.
type coming struct {
	to     []byte
	buffer []byte // nil: straight to it
	event  *cu.Event
}

// fetch keeps one copy under way ahead of the one that it waits for. arrived, if not nil, hears how much is there.
func (s *staging) fetch(dst []byte, src device.Ptr, on cu.Stream, arrived func(n int)) error {
	var before coming
	direct, n := s.pinned(dst), 0
	for at := 0; at < len(dst) || before.to != nil; {
		var next coming
		if at < len(dst) {
			next.to = dst[at:min(len(dst), at+stagingBytes)]
			if err := s.begin(&next, src+device.Ptr(at), direct, on); err != nil {
				return err
			}
			at += len(next.to)
		}
		if before.to != nil {
			if err := before.end(); err != nil {
				return err
			}
			if n += len(before.to); arrived != nil {
				arrived(n)
			}
		}
		before = next
	}
	return nil
}

func (s *staging) begin(c *coming, src device.Ptr, direct bool, on cu.Stream) error {
	i, err := s.take()
	if err != nil {
		return err
	}
	to := c.to
	if c.event = &s.free[i]; !direct {
		c.buffer = s.buffer[i]
		to = c.buffer
	}
	if err := cu.MemcpyDtoHAsync(unsafe.Pointer(&to[0]), cu.DevicePtr(src), int64(len(c.to)), on); err != nil {
		return err
	}
	return c.event.Record(on)
}

func (c *coming) end() error {
	if err := c.event.Synchronize(); err != nil {
		return err
	}
	copy(c.to, c.buffer)
	return nil
}

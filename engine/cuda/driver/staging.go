//go:build cuda && linux

package driver

import (
	"errors"
	"unsafe"

	"gorgonia.org/cu"

	"lorad/engine/cuda/device"
)

// staging is two pinned buffers between the memory that Go manages and the device's. Only pinned memory is copied while the processor goes on, and the
// driver may keep no pointer into Go's; with two, one is filled or emptied while the other travels.
type staging struct {
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
	*s = staging{}
	return errors.Join(errs...)
}

// take waits until the next buffer is free.
func (s *staging) take() (i int, err error) {
	i, s.turn = s.turn, 1-s.turn
	return i, s.free[i].Synchronize()
}

func (s *staging) upload(dst device.Ptr, src []byte, on cu.Stream) error {
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

// download keeps one copy under way ahead of the one that it empties.
func (s *staging) download(dst []byte, src device.Ptr, on cu.Stream) error {
	var waits []byte // where the buffer of the other turn goes
	for waits != nil || len(dst) > 0 {
		var next []byte
		if len(dst) > 0 {
			i, err := s.take()
			if err != nil {
				return err
			}
			next = dst[:min(len(dst), stagingBytes)]
			if err := s.fetch(i, src, len(next), on); err != nil {
				return err
			}
			dst, src = dst[len(next):], src+device.Ptr(len(next))
		}
		if waits != nil {
			if err := s.empty(waits, next != nil); err != nil {
				return err
			}
		}
		waits = next
	}
	return nil
}

func (s *staging) fetch(i int, src device.Ptr, n int, on cu.Stream) error {
	if err := cu.MemcpyDtoHAsync(unsafe.Pointer(&s.buffer[i][0]), cu.DevicePtr(src), int64(n), on); err != nil {
		return err
	}
	return s.free[i].Record(on)
}

// empty waits for the last copy but one, or for the last, and takes it out.
func (s *staging) empty(dst []byte, another bool) error {
	i := 1 - s.turn // the buffer of the last copy
	if another {
		i = s.turn
	}
	if err := s.free[i].Synchronize(); err != nil {
		return err
	}
	copy(dst, s.buffer[i])
	return nil
}

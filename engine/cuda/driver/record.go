//go:build cuda && linux

package driver

import (
	"errors"
	"unsafe"

	"lorad/engine/cuda/device"
)

// graph is recorded work, ready to launch.
type graph struct {
	of   *gpu
	exec unsafe.Pointer
}

func (g *gpu) Record(f func() error) (device.Graph, error) {
	begin := func() error {
		err := beginCapture(g.stream)
		g.recording = err == nil
		return err
	}
	if err := g.outside("record", begin); err != nil {
		return nil, err
	}
	failed := f() // its launches come to the thread one by one
	r := &graph{of: g}
	err := g.do("record", func() (err error) { r.exec, err = g.endRecording(failed != nil); return err })
	if failed != nil {
		return nil, failed
	}
	if err != nil {
		return nil, err
	}
	return r, nil
}

// endRecording ends what must be ended in any case, and makes the recording ready unless it is dropped.
func (g *gpu) endRecording(drop bool) (exec unsafe.Pointer, err error) {
	g.recording = false
	recorded, err := endCapture(g.stream)
	if err != nil {
		return nil, err
	}
	if !drop {
		exec, err = instantiate(recorded)
	}
	return exec, errors.Join(err, destroyGraph(recorded))
}

func (r *graph) Launch() error {
	return r.of.outside("launch a recording", func() error { return launchGraph(r.exec, r.of.stream) })
}

func (r *graph) Release() error {
	return r.of.outside("release a recording", func() error {
		exec := r.exec
		if r.exec = nil; exec == nil {
			return nil
		}
		return destroyExec(exec)
	})
}

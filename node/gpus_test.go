package node

import (
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"lorad/engine"
	"lorad/engine/cuda/device"
	"lorad/job"
)

// shelf is a machine's GPUs that can be listed and not opened.
type shelf struct {
	all  []GPU
	none error
}

func (s shelf) List() ([]GPU, error) { return s.all, s.none }
func (shelf) Open(int) (device.Device, error) {
	return nil, errors.New("opened, which it should not be")
}

// A job that insists on a GPU does without a node that has none to give; any other is computed on the processor there.
func TestWithoutAGPU(t *testing.T) {
	for name, c := range map[string]struct {
		gpus GPUs
		says string
	}{
		"none given": {nil, "has no GPU"},
		"no driver":  {shelf{none: errors.New("no CUDA driver")}, "no CUDA driver"},
		"none seen":  {shelf{}, "has no GPU"},
		"too old":    {shelf{all: []GPU{{Index: 2, Name: "T4", Compute: [2]int{7, 5}}}}, "GPU 2 (T4): compute capability 7.5"},
	} {
		w := &worker{node: &Node{cfg: Config{GPUs: c.gpus}}, log: slog.New(slog.DiscardHandler)}
		if trainer, err := w.onGPU(); trainer != nil || err != nil {
			t.Errorf("%s: %v, %v; want the processor", name, trainer, err)
		}
		w.job.Device = job.DeviceCUDA
		trainer, err := w.onGPU()
		var unfit *unfitError
		if trainer != nil || !errors.As(err, &unfit) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, %v", name, trainer, err)
		}
	}
}

// All that have room are taken, the emptiest first; what is wrong with the others is told.
func TestTakeGPUs(t *testing.T) {
	var tried []int
	full := errors.New("full")
	open, err := takeGPUs([]GPU{{Index: 0, Free: 5}, {Index: 1, Free: 1}, {Index: 2, Free: 9}, {Index: 3, Free: 5}}, func(g GPU) (engine.Trainer, error) {
		tried = append(tried, g.Index)
		if g.Free < 2 {
			return nil, full
		}
		return &greedy{need: int64(g.Index)}, nil
	})
	if !slices.Equal(tried, []int{2, 0, 3, 1}) || !errors.Is(err, full) || !strings.Contains(err.Error(), "GPU 1") {
		t.Errorf("tried %v: %v", tried, err)
	}
	if len(open) != 3 || open[0].(*greedy).need != 2 {
		t.Errorf("open: %v", open)
	}
}

package bench

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"lorad/engine/cuda"
	"lorad/engine/cuda/device"
	"lorad/engine/estimate"
	"lorad/engine/llama"
	"lorad/model"
)

// GPUCase is one kind of step on a GPU: full sequences, packed.
type GPUCase struct {
	DType     string `json:"dtype"` // bf16 or nf4: of the frozen weights
	Sequences int    `json:"sequences"`
	Length    int    `json:"length"`
	Recompute bool   `json:"recompute"` // every layer keeps its input only
}

// GPUCases are those of docs/gpu.md's limits.
func GPUCases() []GPUCase {
	return []GPUCase{
		{DType: "bf16", Sequences: 4, Length: 512}, {DType: "bf16", Sequences: 16, Length: 512}, {DType: "bf16", Sequences: 4, Length: 2048},
		{DType: "nf4", Sequences: 4, Length: 512}, {DType: "nf4", Sequences: 16, Length: 512}, {DType: "nf4", Sequences: 4, Length: 2048, Recompute: true},
	}
}

func (c GPUCase) String() string {
	s := fmt.Sprintf("%s/%dx%d", c.DType, c.Sequences, c.Length)
	if c.Recompute {
		s += "/recompute"
	}
	return s
}

// ParseGPUCase reads what String writes, of any size.
func ParseGPUCase(s string) (c GPUCase, err error) {
	dtype, size, ok := strings.Cut(s, "/")
	size, rest, _ := strings.Cut(size, "/")
	if _, err = fmt.Sscanf(size, "%dx%d", &c.Sequences, &c.Length); !ok || err != nil || c.Sequences < 1 || c.Length < 1 || dtype != "bf16" && dtype != "nf4" || rest != "" && rest != "recompute" {
		return c, fmt.Errorf("bench: %q is no case of a GPU: give DTYPE/SEQUENCESxLENGTH, as in bf16/4x512 or nf4/4x2048/recompute", s)
	}
	c.DType, c.Recompute = dtype, rest == "recompute"
	return c, nil
}

// GPUConfig is the shape of the model: TinyLlama 1.1B, or a tiny one, to see that everything runs.
func GPUConfig(tiny bool) model.Config {
	c := LlamaConfig()
	c.NumLayers = 22
	if tiny {
		c.VocabSize, c.HiddenSize, c.IntermediateSize, c.NumLayers, c.NumHeads, c.NumKVHeads = 512, 128, 192, 2, 2, 1
	}
	return c
}

// NewGPURunner builds the model on a device, for steps of a case.
func NewGPURunner(c GPUCase, cfg model.Config, dev device.Device) (*Runner, *cuda.Trainer, error) {
	lengths := slices.Repeat([]int{c.Length}, c.Sequences)
	shape := estimate.Model{Config: cfg, Adapter: Case{DType: c.DType, Adapter: "lora"}.adapter()}
	r := &Runner{batch: tokens(cfg.VocabSize, lengths)}
	r.useful = shape.Work(estimate.Batch{Lengths: lengths, Labelled: r.batch.Labelled()}).Total()
	t, err := cuda.New(cfg, Random{cfg}, shape.Adapter, dev)
	if err != nil {
		return nil, nil, err
	}
	for c.Recompute && t.Leaner() {
	}
	if err := t.Prepare(llama.Batch{Rows: len(r.batch.Tokens), Labelled: r.batch.Labelled(), Longest: c.Length}); err != nil {
		return nil, nil, err
	}
	r.trainer = t
	return r, t, r.alone(0)
}

// Ceiling is what a GPU can do at most: products of square matrices of bf16, and copies within its memory.
type Ceiling struct {
	TFLOPS    float64 `json:"bf16_tflops"`
	Bandwidth float64 `json:"copy_gbs"` // read and written
}

// MeasureGPU takes a moment for each. n is the size of the matrices; 8192 is usual.
func MeasureGPU(dev device.Device, n int, each time.Duration) (c Ceiling, err error) {
	bytes := 2 * int64(n) * int64(n)
	p, err := dev.Alloc(3 * bytes)
	if err != nil {
		return c, err
	}
	defer dev.Release(p)
	if err := dev.Zero(p, 3*bytes); err != nil {
		return c, err
	}
	at := func(i int) device.Matrix {
		return device.Matrix{At: p + device.Ptr(int64(i)*bytes), LD: n, Type: device.BF16}
	}
	product, err := fastest(dev, each, func() error { return dev.Gemm(false, true, n, n, n, 1, at(0), at(1), 0, at(2)) })
	if err != nil {
		return c, err
	}
	copied, err := fastest(dev, each, func() error { return dev.Copy(p, p+device.Ptr(bytes), bytes) })
	return Ceiling{2 * math.Pow(float64(n), 3) / product.Seconds() / 1e12, 2 * float64(bytes) / copied.Seconds() / 1e9}, err
}

// fastest is the shortest time of one call, of several batches of ten.
func fastest(dev device.Device, budget time.Duration, f func() error) (best time.Duration, err error) {
	const calls = 10
	for began := time.Now(); best == 0 || time.Since(began) < budget; {
		start := time.Now()
		for range calls {
			err = cmp.Or(err, f())
		}
		if err = cmp.Or(err, dev.Sync()); err != nil {
			return best, err
		}
		if d := time.Since(start) / calls; best == 0 || d < best {
			best = d
		}
	}
	return best, nil
}

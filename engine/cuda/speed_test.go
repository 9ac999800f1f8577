package cuda

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"lorad/engine/cuda/device"
	"lorad/engine/cuda/kernels"
	"lorad/engine/kernel"
	"lorad/engine/llama"
	"lorad/model"
)

// meter is a device on which nothing is computed: it adds up how long an H200 would take for what it is asked to do. So the model of docs/gpu.md is a model of
// what the trainer launches, not of what somebody thinks it does.
type meter struct {
	*sim     // for what a pass does not ask for
	seconds  map[string]float64
	launches int
}

// An H200, as gpu-performance figures have it: products reach 88 % of what the best of them do, passes over memory 85 % of the data sheet.
const (
	h200Products  = 790e12 // operations a second in the best product of bf16
	h200Memory    = 4.3e12 * 0.85
	h200SMs       = 132
	h200Product   = 3e-6 // seconds before a product does anything
	h200Kernel    = 2e-6
	h200Forward   = 200e12 // attention
	h200Backward  = 160e12
	tinyLlamaWork = 4.375e9 // useful operations for a token at 512 tokens: without what is computed twice
)

func (m *meter) add(what string, seconds float64) error {
	m.seconds[what] += seconds
	m.launches++
	return nil
}

func (m *meter) Copy(_, _ device.Ptr, n int64) error {
	return m.add("copies", h200Kernel+2*float64(n)/h200Memory)
}
func (m *meter) Zero(_ device.Ptr, n int64) error {
	return m.add("copies", h200Kernel+float64(n)/h200Memory)
}

// Gemm takes the fastest of a few tiles, with the inner dimension cut so that all multiprocessors have some; partial sums go through memory.
func (m *meter) Gemm(_, _ bool, rows, cols, k int, _ float32, a, b device.Matrix, beta float32, c device.Matrix) error {
	up := func(x, y int) float64 { return float64((x + y - 1) / y) }
	bytes := float64(rows*k+k*cols)*2 + float64(rows*cols*c.Type.Size())
	if beta != 0 {
		bytes += float64(rows * cols * c.Type.Size())
	}
	best := math.Inf(1)
	for _, tile := range []struct {
		m, n  int
		share float64
	}{{128, 256, 0.88}, {256, 128, 0.88}, {128, 128, 0.8}, {128, 64, 0.6}, {64, 128, 0.6}} {
		for cuts := 1; cuts <= 32; cuts *= 2 {
			waves := math.Ceil(up(rows, tile.m) * up(cols, tile.n) * float64(cuts) / h200SMs)
			t := waves * 2 * float64(tile.m*tile.n) * up(k, 64*cuts) * 64 / (tile.share * h200Products / h200SMs)
			t = max(t, bytes/h200Memory)
			if cuts > 1 {
				t += h200Kernel + 8*float64(rows*cols*cuts)/h200Memory
			}
			best = min(best, t)
		}
	}
	what := "products of adapters"
	if min(rows, cols, k) >= 256 {
		what = "products"
	}
	return m.add(what, h200Product+best)
}

// Launch: all kernels but attention take as long as their bytes.
func (m *meter) Launch(name string, g device.Grid, list ...any) error {
	n := func(i int) float64 { return float64(list[i].(int)) }
	is := func(i int) float64 {
		if p, ok := list[i].(device.Ptr); ok && p != 0 {
			return 1
		}
		return 0
	}
	var bytes float64
	switch name {
	case "embed_gather", "gather_rows":
		bytes = 4 * n(3) * n(4)
	case "scatter_rows":
		bytes = 4 * n(4) * n(5)
	case "to_fixed":
		bytes = 20 * n(5)
	case "check_range":
		bytes = 4 * n(5)
	case "copy_matrix":
		bytes = 4 * n(4) * n(5)
	case "cache_rows":
		bytes = 4 * n(4) * n(5)
	case "argmax":
		bytes = 4 * n(2) * n(3)
	case "rmsnorm_forward":
		bytes = 2 * n(6) * n(7) * (2 + is(1) + is(3))
	case "rmsnorm_backward":
		bytes = 2 * n(8) * n(9) * (3 + is(5))
	case "rope":
		bytes = 4 * n(5) * n(6) * n(8)
	case "swiglu_forward":
		bytes = 6 * n(2) * n(3)
	case "swiglu_backward":
		bytes = 12 * n(4) * n(5)
	case "cross_entropy":
		bytes = 6 * n(5) * n(6)
	case "nf4_dequantise":
		bytes = 2.516 * n(6) * n(7)
	case "flash_delta":
		bytes = 4 * n(5) * n(6) * n(7)
	default:
		return m.attention(name, g, list)
	}
	return m.add(name, h200Kernel+bytes/h200Memory)
}

func (m *meter) attention(name string, g device.Grid, list []any) error {
	if !strings.HasPrefix(name, "flash_") {
		return fmt.Errorf("nobody said how long %s takes", name)
	}
	return m.add(strings.TrimSuffix(name, "_d64"), h200Kernel)
}

// tinyLlama is the shape of TinyLlama 1.1B.
func tinyLlama() model.Config {
	return model.Config{VocabSize: 32000, HiddenSize: 2048, IntermediateSize: 5632, NumLayers: 22, NumHeads: 32, NumKVHeads: 4, HeadDim: 64,
		RMSNormEps: 1e-5, RopeTheta: 10000, MaxPosition: 2048}
}

// tinyLlamaLoRA is the adapter of docs/gpu.md: rank 16 on all linear layers.
func tinyLlamaLoRA(t *testing.T, as *llama.FourBit) *network {
	t.Helper()
	lc := config(0, "all-linear")
	lc.R, lc.Alpha = 16, 32
	return must(newNetwork(tinyLlama(), llama.Adapter{LoRA: lc, Precision: kernel.BF16, FourBit: as}))(t)
}

// TestLimitsOfMemory holds the plan to the limits that docs/gpu.md has.
func TestLimitsOfMemory(t *testing.T) {
	nested := &llama.FourBit{Nested: true}
	for _, c := range []struct {
		sequences, length int
		as                *llama.FourBit
		again             bool
		most              float64 // GB
	}{{4, 512, nil, false, 4.7}, {4, 512, nested, false, 3.3}, {4, 2048, nested, true, 5.5}} {
		n, rows, recompute := tinyLlamaLoRA(t, c.as), c.sequences*c.length, 0
		if c.again {
			recompute = 2 * n.backward()
		}
		p := n.planned(sizeOf(llama.Batch{Rows: rows, Labelled: rows, Longest: c.length}), recompute)
		if t.Logf("%d x %d, NF4 %t: %+v", c.sequences, c.length, c.as != nil, p); float64(p.Peak) > c.most*1e9 {
			t.Errorf("%d x %d: a peak of %d bytes, the limit is %.1f GB", c.sequences, c.length, p.Peak, c.most)
		}
	}
}

// metered is how long a micro-batch of so many sequences of 512 tokens takes on the GPU, of which what.
func metered(t *testing.T, sequences int, as *llama.FourBit) (seconds float64, m *meter) {
	t.Helper()
	n := tinyLlamaLoRA(t, as)
	const length = 512
	rows := sequences * length
	s := sizeOf(llama.Batch{Rows: rows, Labelled: rows, Longest: length})
	r := n.carve(&carver{base: alignment})
	b, _ := n.carvePass(&carver{base: alignment}, s, 0)
	m = &meter{sim: newSim(0), seconds: map[string]float64{}}
	sh := shape{s.rows, s.labelled, partsBucket(sequences * kernels.FlashParts([]int32{0, length})), whole}
	p := &pass{ops: &ops{dev: m}, n: n, r: &r, b: &b, in: sh.inputs(alignment), shape: sh, train: true}
	p.toFixed(&r, rounding{}, p.in.skip, n.trainable())
	p.forward()
	p.head(s.chunk(n))
	p.backward(0)
	p.checkRange(rounding{})
	if err := p.take(); err != nil {
		t.Fatal(err)
	}
	pairs := float64(rows) * (length + 1) / 2 * float64(n.q) * 4 * float64(n.NumLayers) // operations of causal attention, forward
	m.seconds["attention"] = pairs/h200Forward + 2.5*pairs/h200Backward
	for _, s := range m.seconds {
		seconds += s
	}
	return seconds, m
}

// TestLimitsOfTime holds what is launched to the limits that docs/gpu.md has for an H200, in the model there.
func TestLimitsOfTime(t *testing.T) {
	share := func(sequences int, as *llama.FourBit) float64 {
		s, m := metered(t, sequences, as)
		rate := float64(sequences) * 512 / s
		t.Logf("%2d x 512, NF4 %-5t: %.1f ms, %.0f tokens/s, %.1f %% of the matrix rate, %d launches", sequences, as != nil, 1000*s, rate, 100*rate*tinyLlamaWork/h200Products, m.launches)
		for _, what := range sorted(m.seconds) {
			t.Logf("    %-22s %6.2f ms", what, 1000*m.seconds[what])
		}
		return rate * tinyLlamaWork / h200Products
	}
	large := share(16, nil)
	if small := share(4, nil); !(large >= 0.55) || !(small >= 0.45) {
		t.Errorf("%.3f of the matrix rate at 16 x 512 and %.3f at 4 x 512: less than 0.55 and 0.45", large, small)
	}
	if nf4 := share(16, &llama.FourBit{Nested: true}); !(nf4 >= 0.93*large) {
		t.Errorf("NF4 has %.3f of the speed of bf16", nf4/large)
	}
	share(4, &llama.FourBit{Nested: true})
}

// TestTimeOfDecoding holds a token of 32 sequences, and of one, to what reading the weights takes, in the same model.
func TestTimeOfDecoding(t *testing.T) {
	n := tinyLlamaLoRA(t, nil)
	n.lowest = stages * n.NumLayers
	const capacity, seen = 768, 512
	s := size{rows: 64, labelled: 64, longest: capacity}
	r, k := n.carve(&carver{base: alignment}), n.carveCache(&carver{base: alignment}, together, capacity)
	b, _ := n.carvePass(&carver{base: alignment}, s, 0)
	m := &meter{sim: newSim(0), seconds: map[string]float64{}}
	sh := shape{together, together, partsBucket(0), next}
	p := &pass{ops: &ops{dev: m}, n: n, r: &r, b: &b, in: sh.inputs(alignment), shape: sh, cache: &k}
	p.forward()
	p.logits(p.kept(n.NumLayers-1), p.in.index, 0, together)
	p.argmax(b.logits, k.best, together, n.VocabSize)
	if err := p.take(); err != nil {
		t.Fatal(err)
	}
	var alone float64
	for _, what := range sorted(m.seconds) {
		t.Logf("    %-22s %6.3f ms", what, 1000*m.seconds[what])
		alone += m.seconds[what]
	}
	cache := float64(seen*4*n.kv*n.NumLayers) / h200Memory // of one sequence
	all := alone + together*cache
	alone += cache
	weights := float64(n.planned(s, 0).Weights-2*int64(n.VocabSize*n.HiddenSize)) / h200Memory
	t.Logf("%.2f ms alone, %.0f tokens/s; %.2f ms for %d, %.0f tokens/s; weights %.2f ms; %d launches", 1000*alone, 1/alone, 1000*all, together, together/all, 1000*weights, m.launches)
	if all > 4*weights {
		t.Errorf("a token takes %.1f times as long as to read the weights", all/weights)
	}
}

func sorted(m map[string]float64) (keys []string) {
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

package tally_test

import (
	"context"
	"errors"
	"math"
	"slices"
	"testing"
	"time"

	"lorad/allreduce"
	"lorad/engine"
	"lorad/engine/cuda"
	"lorad/engine/cuda/gputest"
	"lorad/engine/kernel"
	"lorad/engine/llama"
	"lorad/internal/bench"
	"lorad/model/peft"
	"lorad/node/tally"
)

// gpu is a tiny model on a device, with values for lora_B too.
func gpu(t *testing.T, open gputest.Opener) *cuda.Trainer {
	t.Helper()
	cfg := bench.GPUConfig(true)
	cfg.NumLayers, cfg.VocabSize = 1, 64
	dev, err := open()
	if err != nil {
		t.Fatal(err)
	}
	ad := llama.Adapter{LoRA: &peft.LoraConfig{R: 4, Alpha: 8, TargetModules: []string{"all-linear"}}, Seed: 3, Precision: kernel.BF16}
	m, err := cuda.New(cfg, bench.Random{Config: cfg}, ad, dev)
	if err != nil {
		t.Fatal(err)
	}
	for i := range m.Params() {
		m.Params()[i] += float32(i%13-6) / 100
	}
	t.Cleanup(func() { m.Close() })
	return m
}

// hidden is a trainer that cannot add.
type hidden struct{ engine.Trainer }

func batch(micro int) engine.Batch {
	b := engine.Batch{Starts: []int32{0, 9, int32(20 + micro)}}
	for i := range 20 + micro {
		b.Tokens = append(b.Tokens, int32((7*i+micro)%64))
		b.Labels = append(b.Labels, int32((3*i+5*micro)%64))
	}
	if micro == empty {
		for i := range b.Labels {
			b.Labels[i] = engine.Ignore
		}
	}
	return b
}

const (
	micros = 6
	empty  = 3 // a micro-batch without labels
)

// add computes a micro-batch on a trainer and adds it.
func add(t *testing.T, sum *tally.Tally, m engine.Trainer, micro int, scale float32) {
	t.Helper()
	b := batch(micro)
	g, err := tally.Compute(m, b, scale, engine.Key{Micro: uint32(micro)}, tally.Room(m))
	if err == nil {
		err = sum.Add(micro, g, int64(b.Labelled()), int64(len(b.Tokens)))
	}
	if err != nil {
		t.Fatal(err)
	}
}

func scaleOf(micro int) float32 {
	switch micro {
	case 1:
		return float32(math.NaN())
	case 4:
		return 1e12
	}
	return 0.1
}

func alone(t *testing.T) *allreduce.Group {
	t.Helper()
	g, err := allreduce.NewGroup(allreduce.Config{Members: []string{"alone"}}, allreduce.Links{})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// reduced is the sum of a ring of one.
func reduced(t *testing.T, sum *tally.Tally) (out allreduce.Sum) {
	t.Helper()
	g := alone(t)
	defer g.Close()
	if _, err := sum.Reduce(t.Context(), g, allreduce.OpID{}, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

func same(t *testing.T, what string, got, want allreduce.Sum) {
	t.Helper()
	bits := func(a, b float32) bool { return math.Float32bits(a) == math.Float32bits(b) }
	if !slices.EqualFunc(got.Grad, want.Grad, bits) || got.Loss != want.Loss || got.Tokens != want.Tokens || got.Total != want.Total || !slices.Equal(got.Bad, want.Bad) {
		t.Errorf("%s: another sum; bad micro-batches %v, want %v", what, got.Bad, want.Bad)
	}
}

// What GPUs add up is what the host adds up, to the bit: with one unit and with the parameters' own, with micro-batches that are trapped and one without
// labels, by one GPU and by two, in one step and the next; whatever is computed in between that is not the sum's, and when a reduction fails midway.
func TestGPUsAddAsTheHost(t *testing.T) {
	gputest.Each(t, func(t *testing.T, open gputest.Opener) {
		one, two := gpu(t, open), engine.Trainer(nil)
		all := []engine.Trainer{one}
		if !gputest.Real() {
			two = gpu(t, open)
			all = append(all, two)
		}
		own := make([]int8, len(one.Params()))
		for i := range own {
			own[i] = int8(-44 + i%20)
		}
		for name, units := range map[string][]int8{"one unit": nil, "own units": own} {
			t.Run(name, func(t *testing.T) {
				host := tally.New(micros, -40, 1, hidden{one})
				host.Reset(micros, units)
				for m := range micros {
					add(t, host, hidden{one}, m, scaleOf(m))
				}
				want := reduced(t, host)
				if !slices.Equal(want.Bad, []int{1, 4}) {
					t.Fatalf("bad: %v", want.Bad)
				}
				sum := tally.New(micros, -40, 2, all...)
				sum.Reset(micros, units)
				disturbed(t, sum, all)
				same(t, "device", reduced(t, sum), want)
				sum.Reset(micros, units)
				interrupted(t, sum, all)
				same(t, "device, interrupted", reduced(t, sum), want)
				sum.Discard()
				for m := range micros {
					add(t, sum, all[0], m, scaleOf(m))
				}
				same(t, "device, afresh", reduced(t, sum), want)
			})
		}
	})
}

// disturbed adds all micro-batches. What else is computed leaves no trace.
func disturbed(t *testing.T, sum *tally.Tally, all []engine.Trainer) {
	t.Helper()
	for m := range micros {
		on := all[m%len(all)]
		if m%2 == 0 { // turns out to be somebody else's
			if _, err := on.(engine.Adder).Hold(batch(m+1), 0.3, engine.Key{Micro: 77}); err != nil {
				t.Fatal(err)
			}
		}
		add(t, sum, on, m, scaleOf(m))
		switch m {
		case 2:
			add(t, sum, on, 0, scaleOf(0)) // again
		case 0:
			on.Changed() // to what it was
			_, _ = on.Loss(batch(9))
		case 5:
			_, _ = on.Loss(batch(2))
			_, _ = on.Gradient(batch(2), 1, engine.Key{}, make([]float32, len(on.Params())))
		}
	}
}

// interrupted has the reduction fail when half of the micro-batches are added.
func interrupted(t *testing.T, sum *tally.Tally, all []engine.Trainer) {
	t.Helper()
	for m := range micros {
		if m == micros/2 {
			g := alone(t)
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			if _, err := sum.Reduce(ctx, g, allreduce.OpID{}, new(allreduce.Sum)); err == nil {
				t.Fatal("a reduction that was cancelled succeeds")
			}
			g.Close()
		}
		add(t, sum, all[m/2%len(all)], m, scaleOf(m)) // the first GPU before and after
	}
}

// plain is an engine that adds up, in plain Go: micro-batch m's gradient is m+1 everywhere, and parts of the sum come slowly.
type plain struct {
	engine.Trainer
	params  []float32
	sum     []int64
	held    int64
	err     error
	drained int
	quick   bool
}

func (p *plain) Params() []float32  { return p.params }
func (p *plain) Begin(engine.Fixed) { clear(p.sum) }
func (p *plain) Add() (bool, error) {
	p.sum[0], p.sum[len(p.sum)-1] = p.sum[0]+p.held, p.sum[len(p.sum)-1]+p.held
	return true, nil
}
func (p *plain) Hold(_ engine.Batch, _ float32, key engine.Key) (float64, error) {
	p.held = int64(key.Micro) + 1
	return 1, nil
}

func (p *plain) Drain(dst []int64, arrived func(int)) error {
	if p.drained++; p.quick {
		for at := 0; at < len(dst); at += 1 << 20 {
			end := min(at+1<<20, len(dst))
			copy(dst[at:end], p.sum[at:])
			arrived(end)
		}
		return nil
	}
	for at, n := 0, len(dst)/5; at < len(dst); at += n {
		time.Sleep(time.Millisecond)
		n = min(n, len(dst)-at)
		copy(dst[at:at+n], p.sum[at:])
		if arrived(at + n); p.err != nil && at > 0 {
			return p.err
		}
	}
	clear(p.sum)
	return nil
}

func crew(n, params int) (mine []*plain, all []engine.Trainer) {
	for range n {
		p := &plain{params: make([]float32, params), sum: make([]int64, params)}
		mine, all = append(mine, p), append(all, p)
	}
	return mine, all
}

// Sums of several parts and several engines meet; an engine that has nothing is not asked.
func TestParts(t *testing.T) {
	const params = 2_500_000
	for n := 1; n <= 3; n++ {
		mine, all := crew(n, params)
		sum := tally.New(8, -40, 3, all...)
		for step := range 3 {
			sum.Reset(8, nil)
			busy := all[:max(1, n-step%2)]
			for m := range 8 {
				add(t, sum, busy[m%len(busy)], m, 1)
			}
			out := reduced(t, sum)
			if want := float32(36) * 0x1p-40; out.Grad[0] != want || out.Grad[params-1] != want || out.Grad[params/2] != 0 {
				t.Errorf("%d engines: %v %v %v, want %v", n, out.Grad[0], out.Grad[params/2], out.Grad[params-1], want)
			}
		}
		if want := 3 - (n-1)/max(1, n-1); mine[n-1].drained != want {
			t.Errorf("%d engines: the last was asked %d times, want %d", n, mine[n-1].drained, want)
		}
	}
}

// An engine that loses its sum ends the reduction, with its error.
func TestLostSum(t *testing.T) {
	mine, all := crew(2, 3_000_000)
	sum := tally.New(2, -40, 2, all...)
	add(t, sum, all[0], 0, 1)
	add(t, sum, all[1], 1, 1)
	mine[1].err = errors.New("off the bus")
	g := alone(t)
	defer g.Close()
	_, err := sum.Reduce(t.Context(), g, allreduce.OpID{}, new(allreduce.Sum))
	var lost *tally.LostError
	if !errors.As(err, &lost) || !errors.Is(err, mine[1].err) {
		t.Errorf("%v", err)
	}
	_, strangers := crew(1, 3)
	if err := sum.Add(0, tally.Gradient{Held: strangers[0].(engine.Adder)}, 1, 1); err == nil {
		t.Error("an engine adds to a sum that it has no part in")
	}
}

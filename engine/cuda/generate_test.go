package cuda

import (
	"errors"
	"slices"
	"testing"

	"lorad/engine"
	"lorad/engine/cuda/device"
	"lorad/engine/cuda/gputest"
	"lorad/engine/kernel"
	"lorad/model"
)

// prompts of several lengths, on both sides of what a kernel takes at a time.
func prompts(vocab int, lengths ...int) (all [][]int32) {
	for i, n := range lengths {
		all = append(all, ragged(vocab, n+i).Tokens[i:])
	}
	return all
}

// TestGenerateOnGPU holds continuations to those of the CPU engine, and to themselves: alone, in company, and with fewer slots than prompts.
func TestGenerateOnGPU(t *testing.T) {
	window := tiny()
	window.NumLayers, window.Window, window.Sliding = 2, 12, []bool{true, false}
	gputest.Each(t, func(t *testing.T, open gputest.Opener) {
		for name, cfg := range onGPU() {
			t.Run(name, func(t *testing.T) {
				cfg.NumLayers = 1
				m, p := generator(t, cfg, open), prompts(cfg.VocabSize, 28, 1)
				generates(t, m, p, engine.Sampling{MaxNew: 4}) // over the limit of longrope
				if cfg.RopeScaling.Type == "" {                // beyond it keys stay turned as they were
					sameLogits(t, m, p[0])
				}
			})
		}
		t.Run("Mistral", func(t *testing.T) {
			m, p, opt := generator(t, window, open), prompts(window.VocabSize, 5, 70, 1), engine.Sampling{MaxNew: 4}
			got := generates(t, m, p, opt)
			sameLogits(t, m, p[1])
			inCompany(t, m, p, got)
			fewSlots(t, m, p, opt, got)
		})
	})
}

func generator(t *testing.T, cfg model.Config, open gputest.Opener) *Trainer {
	t.Helper()
	m := must(NewFrozen(cfg, newWaves(cfg), adapterOf(t, cfg, config(0.5, "all-linear")), must(open())(t)))(t)
	t.Cleanup(func() { m.Close() })
	if _, err := m.Gradient(batches[0], 1, engine.Key{}, make([]float32, len(m.Params()))); err == nil {
		t.Error("a model that is not trained has a gradient")
	}
	return m
}

// generates compares with the CPU engine.
func generates(t *testing.T, m *Trainer, p [][]int32, opt engine.Sampling) [][]int32 {
	t.Helper()
	cfg := m.net.Config
	cpu := reference(t, cfg, adapterOf(t, cfg, config(0.5, "all-linear")), kernel.BF16)
	got, want := must(m.Generate(p, opt))(t), must(cpu.Generate(p, opt))(t)
	for i := range p {
		if len(got[i]) != opt.MaxNew {
			t.Fatalf("prompt %d continues with %v", i, got[i])
		}
		closeCall(t, cpu, cfg.VocabSize, p[i], got[i], want[i])
	}
	return got
}

// sameLogits compares what comes of the cache to what comes of the whole sequence.
func sameLogits(t *testing.T, m *Trainer, tokens []int32) {
	t.Helper()
	v, first := m.net.VocabSize, len(tokens)-3
	want := must(m.Logits(tokens))(t)
	g := generation{t: m, opt: engine.Sampling{Temperature: 1}, prompts: [][]int32{tokens[:first]}, live: []*stream{nil, {}}}
	if err := m.reserveSequences([][]int32{tokens, tokens}, 3); err != nil {
		t.Fatal(err)
	}
	s := g.live[1]
	err := g.begin(s, 1)
	for i := first - 1; err == nil && i < len(tokens)-1; i++ {
		if d, _ := apart(g.logits[len(g.logits)-v:], want[i*v:(i+1)*v]); !(d < 1e-2) {
			t.Errorf("logits after %d of %d tokens apart by %.2g", i+1, len(tokens), d)
		}
		s.token = tokens[i+1]
		err = g.step()
	}
	if err != nil {
		t.Fatal(err)
	}
}

// inCompany compares a continuation alone to that in company, greedy and drawn, and one that a stop token ends.
func inCompany(t *testing.T, m *Trainer, p, greedy [][]int32) {
	t.Helper()
	drawn := engine.Sampling{MaxNew: 3, Temperature: 2, TopP: 0.9, Seed: 5}
	all := must(m.Generate(p, drawn))(t)
	if alone := must(m.Generate(p[1:2], drawn))(t); !slices.Equal(alone[0], all[1]) {
		t.Errorf("drawn alone: %v, in company %v", alone[0], all[1])
	}
	stop := greedy[1][len(greedy[1])-1]
	if alone := must(m.Generate(p[1:2], engine.Sampling{MaxNew: 9, Stop: []int32{stop}}))(t); !slices.Equal(alone[0], greedy[1][:slices.Index(greedy[1], stop)]) {
		t.Errorf("alone until %d: %v, in company %v", stop, alone[0], greedy[1])
	}
}

// closeCall lets two continuations part only where the CPU engine finds both tokens about as probable.
func closeCall(t *testing.T, cpu engine.Trainer, vocab int, prompt, got, want []int32) {
	t.Helper()
	for j := range want {
		if got[j] == want[j] {
			continue
		}
		logits := must(cpu.Logits(append(slices.Clone(prompt), want[:j]...)))(t)
		last := logits[len(logits)-vocab:]
		if margin := last[want[j]] - last[got[j]]; margin > 0.05 {
			t.Errorf("it continues with %v, the CPU engine with %v, by a margin of %.2g", got, want, margin)
		}
		return
	}
}

// scarce is a device with little memory left.
type scarce struct {
	device.Device
	free int64
}

func (s scarce) Free() (int64, error) { return s.free, nil }

// fewSlots generates in memory for one sequence at a time, and then for none.
func fewSlots(t *testing.T, m *Trainer, p [][]int32, opt engine.Sampling, want [][]int32) {
	t.Helper()
	var one carver
	m.net.carveCache(&one, 1, m.cache.capacity)
	m.dev.Release(m.cache.memory)
	m.graphs.release()
	m.cache = cache{}
	whole := m.dev
	defer func() { m.dev = whole }()
	m.dev = scarce{whole, one.used + library}
	if got := must(m.Generate(p, opt))(t); m.cache.slots != 1 || !slices.EqualFunc(got, want, slices.Equal) {
		t.Errorf("one after the other in %d slots: %v, together %v", m.cache.slots, got, want)
	}
	m.dev = scarce{whole, one.used}
	if _, err := m.Generate(p, engine.Sampling{MaxNew: 500}); !errors.Is(err, engine.ErrOutOfMemory) {
		t.Errorf("without memory: %v", err)
	}
}

package llama

import (
	"math"
	"testing"

	"lorad/engine/cpu"
	"lorad/model"
	"lorad/model/peft"
)

// The logits of a sequence, prompt and single tokens, have the same bits alone and in company, also with a thousand positions.
func TestLogitsDoNotDependOnCompany(t *testing.T) {
	cfg := model.Config{VocabSize: 300, HiddenSize: 64, IntermediateSize: 96, NumLayers: 2, NumHeads: 8, NumKVHeads: 2, HeadDim: 8, RMSNormEps: 1e-5, RopeTheta: 10000}
	full, err := New(cfg, nil, Adapter{Full: true, Seed: 1}, cpu.New(1))
	if err != nil {
		t.Fatal(err)
	}
	m, err := New(cfg, params{full}, Adapter{LoRA: &peft.LoraConfig{R: 4, Alpha: 8, TargetModules: []string{"all-linear"}}, Seed: 2}, cpu.New(2))
	if err != nil {
		t.Fatal(err)
	}
	for i := range m.params {
		m.params[i] += float32(math.Sin(float64(i))) * 0.05
	}
	for _, company := range []int{1, 2, 3, 4, 7, 8, 9, 31} {
		alone := feeds(m, 1000, 0)
		among := feeds(m, 1000, company)
		for i := range alone {
			for j, x := range alone[i] {
				if math.Float32bits(x) != math.Float32bits(among[i][j]) {
					t.Fatalf("among %d others, pass %d, logit %d: %v, alone %v", company, i, j, among[i][j], x)
				}
			}
		}
	}
}

// feeds gives the logits of one sequence's last token after its prompt, and after two tokens more.
func feeds(m *Model[float32], prompt, company int) [][]float32 {
	live := []*stream[float32]{{kv: make([]keysValues[float32], len(m.layers))}}
	for i := range company {
		live = append(live, &stream[float32]{kv: make([]keysValues[float32], len(m.layers)), feed: make([]int32, 1+i%5)})
	}
	for i := range prompt {
		live[0].feed = append(live[0].feed, int32(i*7%m.cfg.VocabSize))
	}
	var out [][]float32
	for range 3 {
		logits := make([]float32, len(live)*m.cfg.VocabSize)
		m.extend(live, logits)
		out = append(out, logits[:m.cfg.VocabSize])
		for _, s := range live {
			s.past, s.feed = s.past+len(s.feed), []int32{9}
		}
	}
	return out
}

// params is a full model as a source of weights.
type params struct{ m *Model[float32] }

func (p params) Tensor(name string) ([]float32, []int, error) {
	for _, t := range p.m.layout {
		if t.Name == name {
			return p.m.params[t.Offset : t.Offset+t.Len()], t.Shape, nil
		}
	}
	panic(name)
}

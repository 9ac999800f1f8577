package estimate

import (
	"testing"

	"lorad/engine/llama"
	"lorad/model"
	"lorad/model/peft"
)

// two is a model small enough to count by hand.
func two() model.Config {
	return model.Config{VocabSize: 50, HiddenSize: 8, IntermediateSize: 12, NumLayers: 2, NumHeads: 2, NumKVHeads: 1, HeadDim: 4, TieEmbeddings: true}
}

func TestWorkByHand(t *testing.T) {
	b := Batch{Lengths: []int{3, 2}, Labelled: 4}
	const rows, pairs = 5, 6 + 3
	// q, k, v, o: 8x8, 4x8, 4x8, 8x8; gate, up, down: 12x8 thrice.
	const qkv, o, mlp, head = 64 + 32 + 32, 64, 3 * 96, 50 * 8
	const forward = 2 * (2*rows*(qkv+o+mlp) + 2*2*pairs*8)
	for _, c := range []struct {
		name string
		m    Model
		want Work
	}{
		{"nothing", Model{Config: two()}, Work{forward, 2 * 4 * head, 0}},
		{"all", Model{two(), llama.Adapter{Full: true}}, Work{forward, 3 * 2 * 4 * head, 2 * (2*rows*2*(qkv+o+mlp) + 4*2*pairs*8)}},
		{"v of all layers", lora(2, "v_proj"), Work{
			forward + 2*2*rows*2*(8+4), 2 * 2 * 4 * head,
			// Layer 1 whole, layer 0 down to v, whose input needs no gradient; dB, dU and dA in both layers, the input's share in layer 1.
			2*rows*(2*(o+mlp)+qkv) + 2*4*2*pairs*8 + 2*rows*(2*2*(2*4+8)+2*8),
		}},
		{"down of the last", lora(2, "layers.1.mlp.down_proj"), Work{forward + 2*rows*2*(8+12), 2 * 2 * 4 * head, 2 * rows * 2 * (2*8 + 12)}},
	} {
		got := c.m.Work(b)
		if got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
}

func lora(r int, modules ...string) Model {
	return Model{two(), llama.Adapter{LoRA: &peft.LoraConfig{R: r, Alpha: 1, TargetModules: modules}}}
}

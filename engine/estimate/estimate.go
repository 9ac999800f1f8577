// Package estimate knows what a training step costs before anything of it exists: operations, and bytes.
//
// It needs the shape of a model (config.json), not its weights, so that a plan for a model of any size is made in a millisecond. It is a pure
// function of its arguments.
package estimate

import (
	"strings"

	"lorad/engine/llama"
	"lorad/model"
)

// Model is a network and what of it is trained, how.
type Model struct {
	Config  model.Config
	Adapter llama.Adapter
}

// Batch is the shape of one micro-batch.
type Batch struct {
	Lengths  []int // of its sequences, in tokens
	Labelled int   // tokens that carry loss
}

// Tokens is the number of rows that the model sees.
func (b Batch) Tokens() int {
	n := 0
	for _, l := range b.Lengths {
		n += l
	}
	return n
}

// linear is one matrix of the network.
type linear struct {
	out, in int
	stage   int // when the forward pass comes to it: 4*layer + 0 (q, k, v), 1 (o), 2 (gate, up), 3 (down); the head is last
	rank    int // of its adapter, 0 = none
}

// stages is how many steps of the forward pass a layer has.
const stages = 4

var stageOf = map[string]int{"q_proj": 0, "k_proj": 0, "v_proj": 0, "qkv_proj": 0, "o_proj": 1, "gate_proj": 2, "up_proj": 2, "gate_up_proj": 2, "down_proj": 3}

// linears lists the matrices in the order of the forward pass; the head is the last.
func (m Model) linears() []linear {
	var all []linear
	layer := -1
	for _, t := range m.Config.Tensors() {
		module, isWeight := strings.CutSuffix(t.Name, ".weight")
		if strings.HasSuffix(module, ".input_layernorm") {
			layer++
		}
		stage, ok := stageOf[module[strings.LastIndexByte(module, '.')+1:]]
		if isWeight && ok {
			all = append(all, linear{out: t.Shape[0], in: t.Shape[1], stage: stages*layer + stage, rank: m.rank(module)})
		}
	}
	c := m.Config
	return append(all, linear{out: c.VocabSize, in: c.HiddenSize, stage: stages * c.NumLayers, rank: m.rank("lm_head")})
}

func (m Model) rank(module string) int {
	c := m.Adapter.LoRA
	if c == nil || !c.Match(module) {
		return 0
	}
	r, _ := c.Of(module)
	return r
}

// lowest is the first stage with something to train: nothing below it has a backward pass. -1 is the embedding.
func (m Model) lowest(all []linear) int {
	if m.Adapter.Full {
		return -1
	}
	for _, l := range all {
		if l.rank > 0 {
			return l.stage
		}
	}
	return stages*m.Config.NumLayers + 1
}

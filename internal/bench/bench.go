// Package bench measures training steps as a node makes them, products at a model's shapes, and the machine that both run on.
//
// A step is measured in a process of its own (cmd/lorad starts them), one step for each line that it is sent: peak resident memory is then that
// of one kind of step, and whoever drives several such processes, or another program's, can take turns between them, so that all see the same
// machine. scripts/oracle/step_peer.py does that with PyTorch.
package bench

import (
	"fmt"
	"slices"
	"strings"

	"lorad/embedded"
	"lorad/engine/kernel"
	"lorad/engine/llama"
	"lorad/model"
	"lorad/model/peft"
)

// Names of models.
const (
	Embedded = "embedded"    // the base inside the binary
	Llama    = "tinyllama-4" // four layers in the shape of TinyLlama 1.1B, random weights
)

// Case is one kind of step.
type Case struct {
	Model   string `json:"model"`
	DType   string `json:"dtype"`   // of the frozen weights and the products
	Adapter string `json:"adapter"` // lora; none: to decode with
}

// Cases are all that this build can measure.
func Cases() []Case {
	return []Case{{Embedded, "f32", "lora"}, {Embedded, "bf16", "lora"}, {Llama, "f32", "lora"}, {Llama, "bf16", "lora"}, {Llama, "nf4", "lora"}}
}

func (c Case) String() string { return c.Model + "/" + c.DType + "/" + c.Adapter }

// ParseCase reads what String writes.
func ParseCase(s string) (Case, error) {
	var names []string
	for _, c := range slices.Concat(Cases(), DecodeCases()) {
		if c.String() == s {
			return c, nil
		}
		if c.Adapter != "none" {
			names = append(names, c.String())
		}
	}
	return Case{}, fmt.Errorf("bench: no case %q; there are %s", s, strings.Join(names, ", "))
}

// Lengths of the sequences of a step: 1024 tokens, as 4 x 256, or for the embedded model, whose examples are short, as 16 x 64. A quick step
// has a quarter of the sequences.
func (c Case) Lengths(quick bool) []int {
	n, length := 4, 256
	if c.Model == Embedded {
		n, length = 16, 64
	}
	if quick {
		n /= 4
	}
	return slices.Repeat([]int{length}, n)
}

// load returns the model's shape and its weights.
func (c Case) load() (model.Config, llama.Weights, error) {
	if c.Model == Embedded {
		f, err := model.Open(embedded.Base())
		if err != nil {
			return model.Config{}, nil, err
		}
		return f.Config(), f, nil
	}
	cfg := LlamaConfig()
	return cfg, Random{cfg}, nil
}

// LlamaConfig is the shape of TinyLlama 1.1B (config.json of TinyLlama/TinyLlama-1.1B-Chat-v1.0), with 4 of its 22 layers.
func LlamaConfig() model.Config {
	return model.Config{
		Architecture: "LlamaForCausalLM", VocabSize: 32000, HiddenSize: 2048, IntermediateSize: 5632, NumLayers: 4, NumHeads: 32, NumKVHeads: 4,
		HeadDim: 64, RMSNormEps: 1e-5, RopeTheta: 10000, MaxPosition: 2048, BOS: 1, EOS: []int{2}, Pad: -1, DType: "float32",
	}
}

// adapter is r = 16 on all linear layers, as QLoRA's authors recommend and the demo has it.
func (c Case) adapter() llama.Adapter {
	var ad llama.Adapter
	if c.Adapter == "lora" {
		ad = llama.Adapter{LoRA: &peft.LoraConfig{R: 16, Alpha: 32, TargetModules: []string{peft.AllLinear}}, Seed: 1}
	}
	if c.DType != "f32" {
		ad.Precision = kernel.BF16
	}
	if c.DType == "nf4" {
		ad.FourBit = &llama.FourBit{Nested: true}
	}
	return ad
}

package estimate

import "lorad/engine/llama"

// Job is what the memory of a training process follows from.
type Job struct {
	Model
	Batch    llama.Batch // the largest micro-batch
	Threads  int
	KeepBest bool  // a second set of parameters is kept, the best so far
	EightBit bool  // moments of the optimiser in 8 bits
	Data     int64 // bytes of the examples
	Spare    int64 // bytes that the machine has for all of it; 0 = not known
}

// Memory is what a process needs that trains, in bytes, part by part; peak is their sum.
type Memory struct {
	Program     int64 `json:"program"` // the program itself, its runtime and the node around it
	Data        int64 `json:"data"`
	Weights     int64 `json:"weights"` // frozen
	Adapter     int64 `json:"adapter"` // trainable parameters
	Gradient    int64 `json:"gradient"`
	Optimiser   int64 `json:"optimiser"`
	Activations int64 `json:"activations"`
	Peak        int64 `json:"peak"`

	Layers     int `json:"layers"`            // with a backward pass
	Recomputed int `json:"layers_recomputed"` // of them, that keep their input only
	Trainable  int `json:"trainable_parameters"`

	keep int64 // bytes for what layers keep
}

// The program's own memory: pages of the binary that a run touches, and what the runtime and a node's services take without a model. Measured
// (docs/benchmarks.md); slack is what garbage may take before the collector has to work.
const (
	program     = 36 << 20
	binaryPages = 26 << 20 // of program
	slackBytes  = 4 << 20
	slackShare  = 100
	bytesF32    = 4
	bytesExact  = 8 // of the exact sum, per parameter
	blockOf8Bit = 256
)

// Plan adds it all up, and chooses how many layers are computed again in the backward pass: as few as fit into what is to spare.
func Plan(j Job) (Memory, error) {
	f, err := llama.Measure(j.Config, j.Adapter, j.Threads, j.Batch)
	if err != nil {
		return Memory{}, err
	}
	n := int64(f.Params)
	m := Memory{
		Program: program, Data: j.Data, Weights: f.Base, Adapter: bytesF32 * n, Optimiser: 2 * bytesF32 * n,
		Gradient: (2*bytesF32 + bytesExact) * n, // of a micro-batch, of all of them as f32, and their exact sum
		Layers:   f.Layers, Trainable: f.Params,
	}
	if j.EightBit {
		m.Optimiser = 2 * (n + bytesF32*(n+blockOf8Bit-1)/blockOf8Bit)
	}
	if j.KeepBest {
		m.Adapter += bytesF32 * n
	}
	rest := m.Program + m.Data + m.Weights + m.Adapter + m.Gradient + m.Optimiser
	m.Program += slackBytes + rest/slackShare
	rest += slackBytes + rest/slackShare
	if f = f.Fit(1 << 62); j.Spare > 0 {
		f = f.Fit(j.Spare - rest)
	}
	m.Activations, m.Recomputed = f.Activations(), f.Recomputed
	m.keep = m.Activations - f.Step
	m.Peak = rest + m.Activations
	return m, nil
}

// Limit is what of the peak Go's runtime manages, and a twentieth: what to tell its collector. Without it, garbage may grow to as much as everything that is
// alive, which with a model of gigabytes is gigabytes for nothing: a step makes next to none. The collector aims at a heap that is, with all else that the
// runtime takes, 3 % smaller than its limit: where no more than that was left, it collected 45 times in a step.
func (m Memory) Limit() int64 { return (m.Peak - binaryPages) / 100 * 105 }

// Keep is how many bytes of activations layers may keep: llama.Model.Prepare's budget.
func (m Memory) Keep() int64 { return m.keep }

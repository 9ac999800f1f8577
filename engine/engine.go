// Package engine holds the interfaces between whoever drives a training step and whatever computes it.
//
// An engine turns a micro-batch into the gradient of the trainable parameters. It knows nothing of networks,
// files, clocks or other nodes: the gradient of a micro-batch is a pure function of
// (parameters, Batch, scale, Key), the same bits whoever computes it and with however many threads.
// The optimiser lives outside (engine/optim) and works on the flat vector that Params returns.
package engine

import "errors"

// Ignore marks a label that carries no loss, as in PyTorch's cross-entropy.
const Ignore = -100

// Batch is a ragged group of sequences. Sequences are concatenated: nothing is padded, so nothing is wasted,
// and attention and positions restart at each sequence.
type Batch struct {
	Tokens []int32 // [N] token ids
	Labels []int32 // [N] Labels[i] is the token to predict AT position i (already shifted by one), or Ignore
	Starts []int32 // [S+1] sequence s is rows Starts[s]..Starts[s+1]; Starts[0] = 0, Starts[S] = N
}

// Key names the random draws of one micro-batch. Every draw is a function of (Key, site, element) and of
// nothing else: not of the node, the thread or the order of computation.
type Key struct {
	Seed  uint64
	Step  uint32
	Micro uint32
}

// Tensor places one trainable tensor in the flat parameter vector.
type Tensor struct {
	Name   string // PEFT's or Hugging Face's own name, as it is written to safetensors
	Shape  []int
	Offset int // of the first element, in elements; tensors are contiguous, row-major and without gaps
}

// Len is the number of elements.
func (t Tensor) Len() int {
	n := 1
	for _, d := range t.Shape {
		n *= d
	}
	return n
}

// Trainer computes with one model and one set of trainable parameters. It is not safe for concurrent use.
type Trainer interface {
	// Layout lists the trainable tensors in the order of their offsets.
	Layout() []Tensor
	// Params is the live flat vector, length = the sum of the layout. Whoever writes it calls Changed.
	Params() []float32
	// Changed drops whatever was derived from Params (packed copies and the like).
	Changed()
	// Gradient overwrites grad (len = len(Params())) with d(scale * sum of token losses)/d(Params) and
	// returns the unscaled sum of the token losses, in nats.
	Gradient(b Batch, scale float32, key Key, grad []float32) (lossSum float64, err error)
	// Loss is the sum of the token losses without dropout, in nats, over the labels that are not Ignore.
	Loss(b Batch) (sum float64, err error)
	// Logits returns the [len(tokens), vocab] logits of one sequence, row-major, without dropout.
	Logits(tokens []int32) ([]float32, error)
	// Generate continues each prompt until a stop token, or MaxNew tokens; greedy when the temperature is 0.
	// Prompts and stop tokens are not part of what is returned. A continuation does not depend on the other prompts.
	Generate(prompts [][]int32, opt Sampling) ([][]int32, error)
}

// ErrOutOfMemory is in every error of a Trainer that says that there is not enough memory for what was asked, and that
// asking for it again with more memory, or with a leaner trainer, makes sense. On a processor's own memory no engine can
// say so: the kernel ends the process instead. See Thrifty.
var ErrOutOfMemory = errors.New("out of memory")

// Thrifty is a Trainer that knows what memory it takes and can do with less: the same bits, more slowly.
type Thrifty interface {
	// Growth is how many bytes Gradient(b) would take that are not taken yet, at most.
	Growth(b Batch) int64
	// Leaner gives memory back and takes less from now on; false: it takes the least already.
	Leaner() bool
}

// Adder is a Trainer that can add gradients up by itself, in integers: so each stays where it was computed, and what comes to
// the host is one exact sum per step. A gradient is the sum's only when its owner has been found: hence two calls, Hold and Add.
type Adder interface {
	// Begin empties the sum and says how gradients are rounded from now on. f.Units is read until the next Begin.
	Begin(f Fixed)
	// Hold is Gradient, but the engine keeps the gradient until the next Hold, Gradient or Changed.
	Hold(b Batch, scale float32, key Key) (lossSum float64, err error)
	// Add adds the gradient that is held to the sum, once. fits is false, and the sum as it was, if a value of it is NaN, infinite or out of range.
	Add() (fits bool, err error)
	// Drain writes the sum (len = len(Params())) over dst and empties it. While the rest is on its way arrived(n) says that dst[:n] is there;
	// it is called in ascending order, with len(dst) at last. After an error the sum is lost. dst is best the same from step to step.
	Drain(dst []int64, arrived func(n int)) error
}

// Fixed is the rounding of gradients to integers: to the nearest multiple of a unit, ties to even.
type Fixed struct {
	UnitLog2 int    // the unit is 2^UnitLog2
	Units    []int8 // or 2^Units[i] for parameter i, if not nil; -62..62
	Micros   int    // a value of 2^62/Micros units or more is out of range
}

// Sampling says how Generate picks tokens.
type Sampling struct {
	MaxNew      int
	Temperature float64 // 0 = greedy
	TopP        float64 // 0 or 1 = off
	Seed        uint64
	Stop        []int32
}

// Labelled counts the labels that carry loss.
func (b Batch) Labelled() int {
	n := 0
	for _, l := range b.Labels {
		if l != Ignore {
			n++
		}
	}
	return n
}

// Package replica is the state that every member of a run holds whole: the trainable parameters, what the optimiser
// remembers and the number of steps done; where the job asks for it also what the evaluations have shown, and the parameters
// of the best of them (history.go).
//
// state(t+1) is a pure function of state(t) and the exact sum of step t+1, so all replicas at the same step are equal
// to the last bit. That is why a joiner may copy any of them, why a checkpoint of one is the checkpoint of all, and
// why Digest is enough to catch a machine whose memory lies.
package replica

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"sync"
	"sync/atomic"

	"lorad/engine"
	"lorad/engine/optim"
	"lorad/node/best"
)

// Rule is what turns a gradient into a step.
type Rule struct {
	AdamW    optim.AdamW
	EightBit bool    // moments in 8-bit codes
	RatioB   float64 // LoRA+: learning rate of lora_B as a multiple; 0 = 1
	Schedule optim.Schedule
	MaxNorm  float64   // clip by global L2 norm; 0 = do not clip
	Best     best.Rule // when the run ends early, and whether the best parameters are kept
	Threads  int       // that a step is shared out to; 0 = 1
	Skips    int       // steps in a row that may be skipped because a gradient is not finite; 0 = none
}

// Replica is safe for concurrent use: the worker steps it while peers may be copying it.
type Replica struct {
	mu      sync.Mutex
	trainer engine.Trainer
	rule    Rule
	optim   optim.Optimizer
	done    uint64
	history history
}

// New wraps a trainer at its initial parameters, no steps done.
func New(t engine.Trainer, rule Rule) *Replica {
	r := &Replica{trainer: t, rule: rule}
	if parts := rule.parts(t.Layout()); rule.EightBit {
		r.optim = optim.NewEightBit(rule.AdamW, parts)
	} else {
		r.optim = optim.NewPlain(rule.AdamW, parts)
	}
	if rule.Best.Keep {
		r.history.kept = make([]float32, len(t.Params()))
	}
	return r
}

// parts says how each tensor is stepped. Biases and norms do not decay, as with transformers' Trainer.
func (r Rule) parts(layout []engine.Tensor) []optim.Part {
	out := make([]optim.Part, len(layout))
	for i, t := range layout {
		out[i] = optim.Part{Len: t.Len(), Rate: 1, NoDecay: strings.HasSuffix(t.Name, "bias") || strings.HasSuffix(t.Name, "norm.weight")}
		if strings.HasSuffix(t.Name, ".lora_B.weight") && r.RatioB > 0 {
			out[i].Rate = r.RatioB
		}
	}
	return out
}

// Done is the number of steps done.
func (r *Replica) Done() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.done
}

// Step applies the gradient of the mean loss (overwritten by clipping) and returns its norm before clipping and the
// learning rate used.
func (r *Replica) Step(grad []float32) (norm, rate float64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	norm, clip := optim.ClipPieces(grad, r.rule.MaxNorm)
	share(r.rule.Threads, clip)
	r.settle()
	rate = r.rule.Schedule.LR(int(r.done))
	share(r.rule.Threads, r.optim.Pieces(r.trainer.Params(), grad, rate, r.updates()+1))
	r.trainer.Changed()
	r.done++
	r.history.row = 0
	return norm, rate
}

// share does independent pieces of work on so many threads.
func share(threads int, pieces []func()) {
	var next atomic.Int64
	work := func() {
		for i := next.Add(1) - 1; i < int64(len(pieces)); i = next.Add(1) - 1 {
			pieces[i]()
		}
	}
	var all sync.WaitGroup
	for range min(threads, len(pieces)) - 1 {
		all.Go(work)
	}
	work()
	all.Wait()
}

// Units writes, for each parameter, the exponent of a unit in which its gradient can be rounded: 2^-bits of the root of its
// second moment, or 2^finest where that is more or nothing is known yet. The optimiser divides by that root, so rounding
// moves a parameter by at most 2^-bits of the learning rate or so; and all replicas at one step have the same units.
func (r *Replica) Units(dst []int8, bits, finest int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.optim.Exponents(dst, r.updates())
	for i, e := range dst {
		dst[i] = int8(max(int(e)-bits, finest))
	}
}

// Digest is a 64-bit checksum of the state: CRC-32C of the parameters, CRC-32C of the rest. It detects accidents,
// not adversaries: peers are authenticated, and checkpoints carry SHA-256. The evaluation after the last step is not in
// it: of two members at one step one may have its result and the other not.
func (r *Replica) Digest() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.digest()
}

func (r *Replica) digest() uint64 {
	return digest(r.trainer.Params(), r.done, r.optim, r.history.settled(r.rule), r.rule.Threads)
}

// The state format, little-endian, see docs/formats.md:
//
//	"lorad-state"      11 bytes
//	version            u8    1: moments in f32; 2: in 8-bit codes; 3 and 4: the same, with a history
//	done               u64   steps done
//	n                  u64   trainable parameters
//	digest             u64   of what follows
//	history            what history.append writes, in versions 3 and 4
//	params             n x f32
//	moments            what optim.Optimizer.Visit passes
//	kept               n x f32, where the history says that there are any
const (
	magic      = "lorad-state"
	headerSize = len(magic) + 1 + 3*8
)

func (r *Replica) version() byte {
	v := byte(1)
	if r.rule.EightBit {
		v++
	}
	if r.rule.remembers() {
		v += 2
	}
	return v
}

// Size is the number of bytes that Encode writes.
func (r *Replica) Size() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	params := len(r.trainer.Params())
	n := int64(headerSize) + 4*int64(params)
	if r.rule.remembers() {
		n += historySize
	}
	if r.history.keeps() {
		n += 4 * int64(params)
	}
	r.optim.Visit(func(x []float32) { n += 4 * int64(len(x)) }, func(x []byte) { n += int64(len(x)) })
	return n
}

// Encode writes the whole state.
func (r *Replica) Encode(w io.Writer) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.encode(w)
}

// EncodeAt is Encode if the replica has done exactly `done` steps, else an error.
func (r *Replica) EncodeAt(w io.Writer, done uint64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.done != done {
		return fmt.Errorf("state of step %d: this replica is at step %d", done, r.done)
	}
	return r.encode(w)
}

func (r *Replica) encode(w io.Writer) error {
	params, h := r.trainer.Params(), &r.history
	head := append([]byte(magic), r.version())
	for _, x := range []uint64{r.done, uint64(len(params)), digest(params, r.done, r.optim, h.all(r.rule), r.rule.Threads)} {
		head = binary.LittleEndian.AppendUint64(head, x)
	}
	_, err := w.Write(h.append(head, r.rule))
	buf := make([]byte, 1<<16)
	floats := func(x []float32) {
		if err == nil {
			err = writeFloats(w, x, buf)
		}
	}
	floats(params)
	r.optim.Visit(floats, func(x []byte) {
		if err == nil {
			_, err = w.Write(x)
		}
	})
	if h.keeps() {
		floats(h.kept)
	}
	return err
}

func writeFloats(w io.Writer, x []float32, buf []byte) error {
	for len(x) > 0 {
		n := min(len(x), len(buf)/4)
		put(buf, x[:n])
		if _, err := w.Write(buf[:4*n]); err != nil {
			return err
		}
		x = x[n:]
	}
	return nil
}

// Decode replaces the state by one that Encode wrote. On error the replica is as it was, and until all is read others see it so:
// src may be a peer that hangs. Nobody may step the replica meanwhile.
func (r *Replica) Decode(src io.Reader) error {
	done, want, err := r.readHead(src)
	if err != nil {
		return fmt.Errorf("read state: %w", err)
	}
	r.mu.Lock()
	n, o := len(r.trainer.Params()), r.optim.Fresh()
	r.mu.Unlock()
	params, h := make([]float32, n), &history{}
	err = h.read(src, r.rule, n)
	if err == nil {
		err = readState(src, params, o, h)
	}
	if err != nil {
		return fmt.Errorf("read state: %w", err)
	}
	if got := digest(params, done, o, h.all(r.rule), r.rule.Threads); got != want {
		return fmt.Errorf("read state: damaged: digest %016x, want %016x", got, want)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	copy(r.trainer.Params(), params)
	r.optim, r.done, r.history = o, done, *h
	r.trainer.Changed()
	return nil
}

// readHead reads what comes before the history, and checks that the state is one of this run.
func (r *Replica) readHead(src io.Reader) (done, digest uint64, err error) {
	var head [headerSize]byte
	if _, err := io.ReadFull(src, head[:]); err != nil {
		return 0, 0, err
	}
	if string(head[:len(magic)]) != magic {
		return 0, 0, errors.New("not a lorad state")
	}
	if got := head[len(magic)]; got != r.version() {
		return 0, 0, fmt.Errorf("version %d, this run has %d (1: moments in f32, 2: in 8 bits; 3 and 4: the same with a history); give the job as it was", got, r.version())
	}
	field := func(i int) uint64 { return binary.LittleEndian.Uint64(head[len(magic)+1+8*i:]) }
	if n, want := field(1), len(r.trainer.Params()); n != uint64(want) {
		return 0, 0, fmt.Errorf("it has %d trainable parameters, this run has %d", n, want)
	}
	return field(0), field(2), nil
}

// readState fills the parameters, the moments and what is kept, in this order.
func readState(src io.Reader, params []float32, o optim.Optimizer, h *history) error {
	buf := make([]byte, 1<<16)
	err := readFloats(src, params, buf)
	floats := func(x []float32) {
		if err == nil {
			err = readFloats(src, x, buf)
		}
	}
	o.Visit(floats, func(x []byte) {
		if err == nil {
			_, err = io.ReadFull(src, x)
		}
	})
	if h.keeps() {
		floats(h.kept)
	}
	return err
}

func readFloats(src io.Reader, x []float32, buf []byte) error {
	for len(x) > 0 {
		n := min(len(x), len(buf)/4)
		if _, err := io.ReadFull(src, buf[:4*n]); err != nil {
			return err
		}
		for i := range x[:n] {
			x[i] = math.Float32frombits(binary.LittleEndian.Uint32(buf[4*i:]))
		}
		x = x[n:]
	}
	return nil
}

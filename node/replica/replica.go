// Package replica is the state that every member of a run holds whole: the trainable parameters, the two moments of
// AdamW and the number of steps done.
//
// state(t+1) is a pure function of state(t) and the exact sum of step t+1, so all replicas at the same step are equal
// to the last bit. That is why a joiner may copy any of them, why a checkpoint of one is the checkpoint of all, and
// why Digest is enough to catch a machine whose memory lies.
package replica

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"sync"

	"lorad/engine"
	"lorad/engine/optim"
)

// Rule is what turns a gradient into a step.
type Rule struct {
	AdamW    optim.AdamW
	Schedule optim.Schedule
	MaxNorm  float64 // clip by global L2 norm; 0 = do not clip
}

// Replica is safe for concurrent use: the worker steps it while peers may be copying it.
type Replica struct {
	mu      sync.Mutex
	trainer engine.Trainer
	rule    Rule
	m, v    []float32
	done    uint64
}

// New wraps a trainer at its initial parameters, no steps done.
func New(t engine.Trainer, rule Rule) *Replica {
	n := len(t.Params())
	return &Replica{trainer: t, rule: rule, m: make([]float32, n), v: make([]float32, n)}
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
	if r.rule.MaxNorm > 0 {
		norm = optim.Clip(grad, r.rule.MaxNorm)
	} else {
		norm = optim.GlobalNorm(grad)
	}
	rate = r.rule.Schedule.LR(int(r.done))
	r.rule.AdamW.Step(r.trainer.Params(), grad, r.m, r.v, float32(rate), int(r.done)+1)
	r.trainer.Changed()
	r.done++
	return norm, rate
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Digest is a 64-bit checksum of the state: CRC-32C of the parameters, CRC-32C of the moments. It detects accidents,
// not adversaries: peers are authenticated, and checkpoints carry SHA-256.
func (r *Replica) Digest() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.digest()
}

func (r *Replica) digest() uint64 {
	buf := make([]byte, 1<<16)
	params := checksum(0, r.trainer.Params(), buf)
	moments := checksum(checksum(uint32(r.done), r.m, buf), r.v, buf)
	return uint64(params)<<32 | uint64(moments)
}

func checksum(crc uint32, x []float32, buf []byte) uint32 {
	for len(x) > 0 {
		n := min(len(x), len(buf)/4)
		put(buf, x[:n])
		crc = crc32.Update(crc, castagnoli, buf[:4*n])
		x = x[n:]
	}
	return crc
}

func put(buf []byte, x []float32) {
	for i, f := range x {
		binary.LittleEndian.PutUint32(buf[4*i:], math.Float32bits(f))
	}
}

// The state format, version 1, little-endian, see docs/formats.md:
//
//	"lorad-state\x01"  12 bytes
//	done               u64   steps done
//	n                  u64   trainable parameters
//	digest             u64   of what follows
//	params, m, v       3 x n x f32
const (
	magic      = "lorad-state\x01"
	headerSize = len(magic) + 3*8
)

// Size is the number of bytes that Encode writes.
func (r *Replica) Size() int64 { return int64(headerSize) + 12*int64(len(r.m)) }

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
	head := []byte(magic)
	for _, x := range []uint64{r.done, uint64(len(r.m)), r.digest()} {
		head = binary.LittleEndian.AppendUint64(head, x)
	}
	if _, err := w.Write(head); err != nil {
		return err
	}
	buf := make([]byte, 1<<16)
	for _, x := range [][]float32{r.trainer.Params(), r.m, r.v} {
		if err := writeFloats(w, x, buf); err != nil {
			return err
		}
	}
	return nil
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

// Decode replaces the state by one that Encode wrote. On error the replica is as it was.
func (r *Replica) Decode(src io.Reader) error {
	head := make([]byte, headerSize)
	if _, err := io.ReadFull(src, head); err != nil {
		return fmt.Errorf("read state: %w", err)
	}
	if string(head[:len(magic)]) != magic {
		return fmt.Errorf("read state: not a lorad state of version 1")
	}
	field := func(i int) uint64 { return binary.LittleEndian.Uint64(head[len(magic)+8*i:]) }
	done, n, want := field(0), field(1), field(2)
	r.mu.Lock()
	defer r.mu.Unlock()
	if n != uint64(len(r.m)) {
		return fmt.Errorf("read state: it has %d trainable parameters, this run has %d", n, len(r.m))
	}
	params, m, v := make([]float32, n), make([]float32, n), make([]float32, n)
	buf := make([]byte, 1<<16)
	for _, x := range [][]float32{params, m, v} {
		if err := readFloats(src, x, buf); err != nil {
			return fmt.Errorf("read state: %w", err)
		}
	}
	if got := uint64(checksum(0, params, buf))<<32 | uint64(checksum(checksum(uint32(done), m, buf), v, buf)); got != want {
		return fmt.Errorf("read state: damaged: digest %016x, want %016x", got, want)
	}
	copy(r.trainer.Params(), params)
	r.m, r.v, r.done = m, v, done
	r.trainer.Changed()
	return nil
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

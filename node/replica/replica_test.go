package replica

import (
	"bytes"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"lorad/engine"
	"lorad/engine/optim"
)

// vector is a Trainer with parameters and nothing else.
type vector struct {
	engine.Trainer
	p []float32
}

func (v *vector) Params() []float32 { return v.p }
func (v *vector) Changed()          {}
func (v *vector) Layout() []engine.Tensor {
	return []engine.Tensor{{Name: "x", Shape: []int{len(v.p)}}}
}

func rule() Rule {
	return Rule{
		AdamW:    optim.AdamW{Beta1: 0.9, Beta2: 0.999, Eps: 1e-8},
		Schedule: optim.Schedule{Kind: "constant", Peak: 0.1, Total: 10},
		MaxNorm:  1,
	}
}

func fresh(p ...float32) *Replica { return New(&vector{p: p}, rule()) }

func TestEncodeDecodeKeepsEveryBit(t *testing.T) {
	a := fresh(1, -2, 3)
	for i := range 3 {
		a.Step([]float32{float32(i), 1, -1})
	}
	var buf bytes.Buffer
	if err := a.Encode(&buf); err != nil || int64(buf.Len()) != a.Size() {
		t.Fatalf("encode: %d bytes, %v", buf.Len(), err)
	}
	b := fresh(0, 0, 0)
	if err := b.Decode(bytes.NewReader(buf.Bytes())); err != nil {
		t.Fatal(err)
	}
	for range 2 { // and both go on the same way
		if b.Digest() != a.Digest() || b.Done() != a.Done() {
			t.Fatalf("step %d: %016x, step %d: %016x", b.Done(), b.Digest(), a.Done(), a.Digest())
		}
		a.Step([]float32{1, 1, 1})
		b.Step([]float32{1, 1, 1})
	}
}

// A state may come from a peer that hangs, for as long as it likes: whoever asks this replica for anything does not wait for that.
func TestReadersDoNotWaitForACopy(t *testing.T) {
	r, state := fresh(1, 2, 3), &bytes.Buffer{}
	if err := fresh(4, 5, 6).Encode(state); err != nil {
		t.Fatal(err)
	}
	src, peer := io.Pipe()
	copied := make(chan error, 1)
	go func() { copied <- r.Decode(src) }()
	peer.Write(state.Next(headerSize + 4)) // the reader is at the parameters now
	asked := make(chan uint64, 1)
	go func() { asked <- r.Done() }()
	select {
	case <-asked:
	case <-time.After(20 * time.Second):
		t.Error("a reader waits for the copy")
	}
	peer.Write(state.Bytes())
	if err := <-copied; err != nil || r.Digest() != fresh(4, 5, 6).Digest() {
		t.Errorf("copied: %v", err)
	}
}

func TestDecodeRefusesAndKeeps(t *testing.T) {
	a := fresh(1, 2, 3)
	a.Step([]float32{1, 1, 1})
	var buf bytes.Buffer
	a.Encode(&buf)
	good := buf.Bytes()
	flip := func(i int) []byte { b := bytes.Clone(good); b[i] ^= 1; return b }
	for name, c := range map[string]struct {
		data []byte
		want string
	}{
		"empty":     {nil, "EOF"},
		"short":     {good[:len(good)-1], "EOF"},
		"magic":     {flip(0), "not a lorad state"},
		"count":     {flip(len(magic) + 9), "trainable parameters"},
		"parameter": {flip(headerSize), "damaged"},
		"moment":    {flip(len(good) - 1), "damaged"},
		"version":   {flip(len(magic)), "version 0"},
		"step":      {flip(len(magic) + 1), "damaged"},
	} {
		b := fresh(7, 8, 9)
		before := b.Digest()
		if err := b.Decode(bytes.NewReader(c.data)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
		if b.Digest() != before {
			t.Errorf("%s: a refused state changed the replica", name)
		}
	}
}

// Moments in 8-bit codes are state as well: digest, copy and size cover them, and a state of the other kind is refused by name.
func TestEightBitState(t *testing.T) {
	eight := rule()
	eight.EightBit = true
	p := func(x float32) *vector {
		v := &vector{p: make([]float32, 5000)}
		for i := range v.p {
			v.p[i] = x
		}
		return v
	}
	grad := func(k int) []float32 {
		g := p(0).p
		for i := range g {
			g[i] = float32((i*k)%17 - 8)
		}
		return g
	}
	a, b := New(p(1), eight), New(p(2), eight)
	for k := range 3 {
		a.Step(grad(k + 1))
	}
	var buf bytes.Buffer
	if err := a.Encode(&buf); err != nil || int64(buf.Len()) != a.Size() || a.Size() != 36+6*5000+8*20 {
		t.Fatalf("encode: %d bytes of %d, %v", buf.Len(), a.Size(), err)
	}
	plain := New(p(2), rule())
	if err := plain.Decode(bytes.NewReader(buf.Bytes())); err == nil || !strings.Contains(err.Error(), "version 2") {
		t.Errorf("a state in 8 bits for moments in f32: %v", err)
	}
	damaged := bytes.Clone(buf.Bytes())
	damaged[36+4*5000+17]++ // a code of the first moment
	if err := b.Decode(bytes.NewReader(damaged)); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("a changed code: %v", err)
	}
	if err := b.Decode(bytes.NewReader(buf.Bytes())); err != nil {
		t.Fatal(err)
	}
	a.Step(grad(5))
	b.Step(grad(5))
	if a.Digest() != b.Digest() {
		t.Error("a copy goes on differently")
	}
}

// LoRA+ steps lora_B faster; norms and biases do not decay.
func TestParts(t *testing.T) {
	r := Rule{RatioB: 16}
	layout := []engine.Tensor{{Name: "m.lora_A.weight", Shape: []int{2, 3}}, {Name: "m.lora_B.weight", Shape: []int{4, 2}}, {Name: "m.bias", Shape: []int{4}},
		{Name: "model.layers.0.input_layernorm.weight", Shape: []int{5}}, {Name: "model.norm.weight", Shape: []int{5}}, {Name: "m.lora_magnitude_vector", Shape: []int{4}}}
	want := []optim.Part{{Len: 6, Rate: 1}, {Len: 8, Rate: 16}, {Len: 4, Rate: 1, NoDecay: true}, {Len: 5, Rate: 1, NoDecay: true},
		{Len: 5, Rate: 1, NoDecay: true}, {Len: 4, Rate: 1}}
	if got := r.parts(layout); !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

package replica

import (
	"bytes"
	"strings"
	"testing"

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

func fresh(p ...float32) *Replica {
	return New(&vector{p: p}, Rule{
		AdamW:    optim.AdamW{Beta1: 0.9, Beta2: 0.999, Eps: 1e-8},
		Schedule: optim.Schedule{Kind: "constant", Peak: 0.1, Total: 10},
		MaxNorm:  1,
	})
}

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
		"count":     {flip(len(magic) + 8), "trainable parameters"},
		"parameter": {flip(headerSize), "damaged"},
		"moment":    {flip(len(good) - 1), "damaged"},
		"step":      {flip(len(magic)), "damaged"},
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

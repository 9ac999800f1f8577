package replica

import (
	"bytes"
	"slices"
	"testing"

	"lorad/node/best"
)

// remembering is a replica whose job has every rule that needs a history.
func remembering(p ...float32) *Replica {
	r := rule()
	r.Best, r.Skips = best.Rule{Patience: 2, Keep: true}, 2
	return New(&vector{p: p}, r)
}

func copyOf(t *testing.T, r *Replica) *Replica {
	t.Helper()
	var buf bytes.Buffer
	if err := r.Encode(&buf); err != nil || int64(buf.Len()) != r.Size() {
		t.Fatalf("encode: %d bytes of %d, %v", buf.Len(), r.Size(), err)
	}
	c := remembering(0, 0, 0)
	if err := c.Decode(&buf); err != nil {
		t.Fatal(err)
	}
	return c
}

// The result is that of the best evaluation, and every copy, made whenever, comes to the same verdict and result.
func TestBestIsKept(t *testing.T) {
	a := remembering(1, -2, 3)
	var want []float32
	for step, loss := range []float64{3, 2, 2.5, 1.5, 1.6, 1.5} { // the fourth is the best, the sixth the second in a row that is not better
		a.Step([]float32{1, float32(step), -1})
		b := copyOf(t, a) // before the evaluation: whoever copies this takes part in it
		over := a.Observe(loss)
		if over != (step == 5) || b.Observe(loss) != over || a.Observe(loss) != over {
			t.Fatalf("evaluation %d: over %v", step+1, over)
		}
		if step == 3 {
			want = slices.Clone(a.Result().Params())
		}
		if a.Digest() != b.Digest() {
			t.Fatalf("evaluation %d: digests differ", step+1)
		}
		a = copyOf(t, a) // and after it: that one does not
	}
	s, over := a.Best()
	if !over || s.Step != 4 || s.Loss != 1.5 || !slices.Equal(a.Result().Params(), want) || slices.Equal(a.trainer.Params(), want) {
		t.Errorf("%+v, over %v: result %v, want %v", s, over, a.Result().Params(), want)
	}
}

// Two members at one step of which one knows the evaluation and the other not are equal; a step later they are not,
// if they took different results for it.
func TestEvaluationIsDigestedWithTheNextStep(t *testing.T) {
	a, b := remembering(1, 2, 3), remembering(1, 2, 3)
	for _, r := range []*Replica{a, b} {
		r.Step([]float32{1, 1, 1})
	}
	a.Observe(2)
	if a.Digest() != b.Digest() {
		t.Error("they differ before the step")
	}
	b.Observe(3)
	for _, r := range []*Replica{a, b} {
		r.Step([]float32{1, 1, 1})
	}
	if a.Digest() == b.Digest() {
		t.Error("nobody would notice different results of an evaluation")
	}
}

// A step that is skipped counts, and that is all: the steps after it are those of a replica that never saw it, but for the
// learning rate, which here is constant.
func TestSkip(t *testing.T) {
	a, b := remembering(1, 2, 3), remembering(1, 2, 3)
	grad := func() []float32 { return []float32{1, -1, 2} }
	a.Step(grad())
	b.Step(grad())
	for i := range 2 {
		if !a.MaySkip() {
			t.Fatalf("skip %d is not allowed", i+1)
		}
		before := a.Digest()
		if a.Skip(); a.Digest() == before || !slices.Equal(a.trainer.Params(), b.trainer.Params()) {
			t.Fatal("a skipped step is not counted, or changes parameters")
		}
		a = copyOf(t, a)
	}
	if a.MaySkip() {
		t.Error("a third skip in a row is allowed")
	}
	a.Step(grad())
	b.Step(grad())
	if !slices.Equal(a.trainer.Params(), b.trainer.Params()) || !a.MaySkip() || a.Done() != 4 {
		t.Errorf("after two skips %v at step %d, without %v", a.trainer.Params(), a.Done(), b.trainer.Params())
	}
}

// What is kept is under the digest as well.
func TestDamagedHistory(t *testing.T) {
	a := remembering(1, 2, 3)
	for range 2 {
		a.Step([]float32{1, 1, 1})
		a.Observe(float64(3 + a.Done()))
	}
	var buf bytes.Buffer
	a.Encode(&buf)
	for _, at := range []int{headerSize, headerSize + best.Size, headerSize + 2*best.Size, headerSize + historySize - 1, buf.Len() - 1} {
		b := bytes.Clone(buf.Bytes())
		b[at] ^= 1
		if err := remembering(0, 0, 0).Decode(bytes.NewReader(b)); err == nil {
			t.Errorf("byte %d is another and nobody noticed", at)
		}
	}
	if err := fresh(0, 0, 0).Decode(&buf); err == nil {
		t.Error("a state with a history for a run without one")
	}
}

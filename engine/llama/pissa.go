package llama

import (
	"fmt"
	"math"
	"slices"

	"lorad/engine/kernel"
	"lorad/engine/lora"
	"lorad/model/peft"
)

// start is where PiSSA starts an adapter.
type start[T kernel.Float] struct{ a, b []T }

// refusePiSSA says what cannot start from the principal components of its weight.
func refusePiSSA(c *peft.LoraConfig, fourBit, tied bool) error {
	switch _, ok := c.PiSSA(); {
	case !ok:
	case fourBit:
		return fmt.Errorf("llama: adapter: init_lora_weights %s: not supported with a base in 4 bits, as in PEFT: the components are those of the 16-bit "+
			"weights; remove load_in_4bit, or start with default or gaussian", c.Init)
	case tied && c.Match("lm_head"):
		return fmt.Errorf("llama: adapter: init_lora_weights %s: the head of this model is its embedding, which would change with it: not supported; "+
			"leave lm_head out of target_modules", c.Init)
	}
	return nil
}

// principal takes the principal components out of a weight for the adapter to start from (PiSSA, Meng et al. 2024): with W = U S V^T, as in PEFT,
// A = sqrt(S_r/s) V_r^T, B = U_r sqrt(S_r/s), and what is frozen is W - s*B A. The model computes what it did before, whatever the precision of
// the components.
func (b *builder[T]) principal(l *linear[T], name string, rounds int) kernel.Frozen[T] {
	w := slices.Clone(b.read(name, []int{l.out, l.in}))
	if w == nil {
		return nil
	}
	p := lora.FindPrincipal(b.m.ops, w, l.out, l.in, l.rank, rounds, b.ad.Seed, name)
	l.start = start[T]{make([]T, l.rank*l.in), make([]T, l.out*l.rank)}
	taken := make([]T, l.out*l.rank)
	for i, sigma := range p.Sigma {
		root := math.Sqrt(sigma / float64(l.scale))
		for j, v := range p.V[i*l.in : (i+1)*l.in] {
			l.start.a[i*l.in+j] = T(root * float64(v))
		}
		for j, u := range p.U[i*l.out : (i+1)*l.out] {
			l.start.b[j*l.rank+i] = T(root * float64(u))
			taken[j*l.rank+i] = -l.scale * l.start.b[j*l.rank+i]
		}
	}
	b.m.ops.Gemm(false, false, l.out, l.in, l.rank, taken, l.rank, l.start.a, l.in, w, l.in, true)
	return b.m.ops.Freeze(kernel.Dense[T]{Rows: l.out, Cols: l.in, Data: w}, b.ad.Precision)
}

// Initial is what the parameters were before the first step, in the order of the layout, if the base was changed along with them (PiSSA); else
// nil. It turns the adapter into one of the original base (peft.Subtract).
func (m *Model[T]) Initial() []T { return m.initial }

// initial puts together where all tensors started.
func (b *builder[T]) initial() []T {
	x := slices.Clone(b.m.params)
	b.m.eachAdapter(func(l *linear[T]) {
		copy(x[l.a.off:], l.start.a)
		copy(x[l.b.off:], l.start.b)
		l.start = start[T]{}
	})
	return x
}

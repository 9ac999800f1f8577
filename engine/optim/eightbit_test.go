package optim

import (
	"bytes"
	"math"
	"os"
	"slices"
	"testing"

	"lorad/model/safetensors"
)

// recorded8 is what scripts/oracle/adamw8bit.py had bitsandbytes compute.
type recorded8 struct {
	*testing.T
	file *safetensors.File
}

func record8(t *testing.T) recorded8 {
	t.Helper()
	f, err := safetensors.OpenFS(os.DirFS("testdata"), "adamw8bit.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return recorded8{t, f}
}

func (r recorded8) floats(name string) []float32 {
	r.Helper()
	x, _, err := r.file.F32(name)
	if err != nil {
		r.Fatal(err)
	}
	return x
}

func (r recorded8) codes(name string) []byte {
	r.Helper()
	x, _, err := r.file.Bytes(name)
	if err != nil {
		r.Fatal(err)
	}
	return x
}

// train takes all recorded steps of a tensor that consists of the first n elements.
func (r recorded8) train(grads string, decay float32, n int) ([]float32, *EightBit) {
	p, g := r.floats("start")[:n], r.floats(grads)
	whole := len(r.floats("start"))
	o := NewEightBit(AdamW{Beta1: 0.9, Beta2: 0.999, Eps: 1e-8, WeightDecay: decay}, []Part{{Len: n, Rate: 1}})
	for t := range len(g) / whole {
		o.Step(p, g[t*whole:t*whole+n], 1e-3, t+1)
	}
	return p, o
}

func worstDistance(a, b []float32) (worst float64) {
	for i := range a {
		worst = max(worst, math.Abs(float64(a[i])-float64(b[i])))
	}
	return worst
}

// Codes, scales and parameters are to the bit those of the CUDA kernel written again in NumPy, and the parameters those of the library
// itself within its own rounding.
func TestOracleEightBitAdamW(t *testing.T) {
	r := record8(t)
	for _, c := range []struct {
		name, grads string
		decay       float32
		apart       float64
	}{{"plain", "grads", 0, 2.5e-7}, {"decay", "grads", 0.1, 2e-6}, {"rough", "rough", 0, 0}} {
		p, o := r.train(c.grads, c.decay, len(r.floats("start")))
		cuda := "cuda." + c.name
		if !slices.Equal(p, r.floats(cuda+".p")) {
			t.Errorf("%s: parameters differ from the kernel's by up to %g", c.name, worstDistance(p, r.floats(cuda+".p")))
		}
		if !bytes.Equal(o.m.codes, r.codes(cuda+".c1")) || !bytes.Equal(o.v.codes, r.codes(cuda+".c2")) {
			t.Errorf("%s: codes of the moments differ from the kernel's", c.name)
		}
		if !slices.Equal(o.m.absmax, r.floats(cuda+".a1")) || !slices.Equal(o.v.absmax, r.floats(cuda+".a2")) {
			t.Errorf("%s: scales of the moments differ from the kernel's", c.name)
		}
		if c.apart == 0 {
			continue
		}
		d := worstDistance(p, r.floats("bnb."+c.name+".p"))
		t.Logf("%s: %.2g from the library's", c.name, d)
		if d > c.apart {
			t.Errorf("%s: parameters are %g from the library's, want %g at most", c.name, d, c.apart)
		}
	}
}

// Below 4096 elements the library keeps f32 moments.
func TestOracleEightBitAdamWSmallTensor(t *testing.T) {
	r := record8(t)
	p, o := r.train("grads", 0.1, 1000)
	if len(o.m.codes) != 0 || len(o.smallM) != 1000 {
		t.Fatalf("a tensor of 1000 has %d codes and %d f32 moments", len(o.m.codes), len(o.smallM))
	}
	dp, dm, dv := worstDistance(p, r.floats("bnb.small.p")), worstDistance(o.smallM, r.floats("bnb.small.m")), worstDistance(o.smallV, r.floats("bnb.small.v"))
	t.Logf("from the library's: parameters %.2g, moments %.2g and %.2g", dp, dm, dv)
	if dp > 2e-6 || dm > 1e-6 || dv > 1e-6 {
		t.Errorf("from the library's: parameters %g, moments %g and %g", dp, dm, dv)
	}
}

// Tensors begin blocks of their own, whatever their neighbours; parts have their own rate and decay.
func TestEightBitParts(t *testing.T) {
	r := record8(t)
	start, g := r.floats("start"), r.floats("grads")
	rule := AdamW{Beta1: 0.9, Beta2: 0.999, Eps: 1e-8, WeightDecay: 0.1}
	sizes := []int{4100, 200}
	together := slices.Clone(start[:4300])
	o := NewEightBit(rule, []Part{{Len: sizes[0], Rate: 1}, {Len: sizes[1], Rate: 4, NoDecay: true}})
	plain := rule
	plain.WeightDecay = 0
	a, b := slices.Clone(start[:4100]), slices.Clone(start[4100:4300])
	one, two := NewEightBit(rule, []Part{{Len: sizes[0], Rate: 1}}), NewEightBit(plain, []Part{{Len: sizes[1], Rate: 1}})
	for t := range 3 {
		g := g[t*len(start):]
		o.Step(together, g[:4300], 1e-3, t+1)
		one.Step(a, g[:4100], 1e-3, t+1)
		two.Step(b, g[4100:4300], 4e-3, t+1)
	}
	if !slices.Equal(together, append(a, b...)) {
		t.Error("two tensors in one vector are not stepped as each alone")
	}
}

func TestPlainParts(t *testing.T) {
	r := record8(t)
	start, g := r.floats("start")[:300], r.floats("grads")[:300]
	rule := AdamW{Beta1: 0.9, Beta2: 0.999, Eps: 1e-8, WeightDecay: 0.1}
	got := slices.Clone(start)
	o := NewPlain(rule, []Part{{Len: 100, Rate: 1}, {Len: 50, Rate: 1}, {Len: 150, Rate: 16, NoDecay: true}})
	if len(o.parts) != 2 {
		t.Errorf("%d parts, want the equal ones joined", len(o.parts))
	}
	o.Step(got, g, 1e-3, 1)
	want := slices.Clone(start)
	m, v := make([]float32, 300), make([]float32, 300)
	rule.Step(want[:150], g[:150], m[:150], v[:150], 1e-3, 1)
	rule.WeightDecay = 0
	rule.Step(want[150:], g[150:], m[150:], v[150:], float32(16*1e-3), 1)
	if !slices.Equal(got, want) {
		t.Error("parts are not stepped with their own rate and decay")
	}
}

// The state is what Visit passes: two bytes a parameter, eight for each block of 256.
func TestVisitCoversTheState(t *testing.T) {
	r := record8(t)
	_, o := r.train("grads", 0, len(r.floats("start")))
	size := 0
	o.Visit(func(x []float32) { size += 4 * len(x) }, func(b []byte) { size += len(b) })
	if want := 2*4429 + 8*18; size != want {
		t.Errorf("%d bytes of state, want %d", size, want)
	}
	copied := o.Fresh()
	var floats [][]float32
	var codes [][]byte
	o.Visit(func(x []float32) { floats = append(floats, x) }, func(b []byte) { codes = append(codes, b) })
	copied.Visit(func(x []float32) { copy(x, floats[0]); floats = floats[1:] }, func(b []byte) { copy(b, codes[0]); codes = codes[1:] })
	p, q := r.floats("start"), r.floats("start")
	g := r.floats("rough")[:len(p)]
	o.Step(p, g, 1e-3, 13)
	copied.Step(q, g, 1e-3, 13)
	if !slices.Equal(p, q) {
		t.Error("an optimiser with the state copied steps differently")
	}
}

// Pieces may be done in any order, and what the vector units do is what the loop does, infinities and NaN included.
func TestPiecesInAnyOrder(t *testing.T) {
	rule := AdamW{Beta1: 0.9, Beta2: 0.999, Eps: 1e-8, WeightDecay: 0.1}
	parts := []Part{{Len: 100, Rate: 1}, {Len: 2*pieceLen + 777, Rate: 2}, {Len: 5, Rate: 1, NoDecay: true}, {Len: 5000, Rate: 1}}
	for name, make := range map[string]func() Optimizer{
		"plain": func() Optimizer { return NewPlain(rule, parts) }, "8-bit": func() Optimizer { return NewEightBit(rule, parts) },
	} {
		a, b := make(), make()
		p, g := odd(100+2*pieceLen+777+5+5000, 3), odd(100+2*pieceLen+777+5+5000, 5)
		q := slices.Clone(p)
		for step := range 3 {
			if name == "8-bit" {
				g[step], g[200+step] = float32(math.NaN()), float32(math.Inf(1-2*(step%2)))
			}
			a.Step(p, g, 1e-2, step+1)
			pieces := b.Pieces(q, g, 1e-2, step+1)
			if len(pieces) < 5 {
				t.Fatalf("%s: %d pieces", name, len(pieces))
			}
			for _, f := range slices.Backward(pieces) {
				f()
			}
		}
		if !slices.Equal(p, q) || stateHash(a) != stateHash(b) {
			t.Errorf("%s: the order of the pieces shows", name)
		}
	}
}

func TestVectorStepIsTheLoop(t *testing.T) {
	s := AdamW{Beta1: 0.9, Beta2: 0.999, Eps: 1e-8, WeightDecay: 0.1}.scalars8(1e-2, 7)
	for _, n := range []int{1, 7, 8, 9, 64, 255, 256} {
		p, g, m, v := odd(n, 1), odd(n, 2), odd(n, 3), odd(n, 4)
		for i := range v {
			v[i] *= v[i]
		}
		g[0], g[n/2] = float32(math.NaN()), float32(math.Inf(-1))
		p2, m2, v2 := slices.Clone(p), slices.Clone(m), slices.Clone(v)
		s.step(p, g, m, v)
		s.stepEach(p2, g, m2, v2)
		if !slices.Equal(p, p2) || !slices.Equal(m, m2) || !slices.Equal(v, v2) {
			t.Errorf("%d elements: the vector units compute something else", n)
		}
	}
}

// odd is n numbers of all magnitudes.
func odd(n int, seed uint32) []float32 {
	x := make([]float32, n)
	for i := range x {
		seed = seed*1664525 + 1013904223
		x[i] = float32(int32(seed)>>8) * 1e-6 / float32(1+i%1000)
	}
	return x
}

func stateHash(o Optimizer) (h uint64) {
	add := func(b uint32) { h = h*1099511628211 + uint64(b) }
	o.Visit(func(x []float32) {
		for _, f := range x {
			add(math.Float32bits(f))
		}
	}, func(b []byte) {
		for _, c := range b {
			add(uint32(c))
		}
	})
	return h
}

// BenchmarkEightBit is a step of a million parameters in one thread; BenchmarkAdamW is the same with moments in f32.
func BenchmarkEightBit(b *testing.B) {
	const n = 1 << 20
	p, g := make([]float32, n), make([]float32, n)
	for i := range g {
		g[i] = float32(i%1000)*1e-3 - 0.5
	}
	o := NewEightBit(AdamW{Beta1: 0.9, Beta2: 0.999, Eps: 1e-8, WeightDecay: 0.01}, []Part{{Len: n, Rate: 1}})
	b.SetBytes(n)
	for t := 1; b.Loop(); t++ {
		o.Step(p, g, 1e-4, t)
	}
}

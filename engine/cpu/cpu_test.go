package cpu

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"lorad/engine/kernel"
	"lorad/engine/kernel/kerneltest"
)

func open(t testing.TB, threads int, l Level) *Ops {
	t.Helper()
	o, err := NewLevel(threads, l)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func best() Level {
	all := Available()
	return all[len(all)-1]
}

func TestConformance(t *testing.T) {
	for _, l := range Available() {
		t.Run(l.String(), func(t *testing.T) { kerneltest.Conformance(t, open(t, 1, l)) })
	}
	t.Run("three threads", func(t *testing.T) { kerneltest.Conformance(t, open(t, 3, best())) })
}

// random is uniform in [-2, 2): the same numbers on every machine.
func random(r *rand.Rand, n int) []float32 {
	x := make([]float32, n)
	for i := range x {
		x[i] = r.Float32()*4 - 2
	}
	return x
}

func same(t *testing.T, what string, got, want []float32) {
	t.Helper()
	for i := range want {
		if math.Float32bits(got[i]) != math.Float32bits(want[i]) && (got[i] == got[i] || want[i] == want[i]) {
			t.Fatalf("%s: element %d is %x, want %x", what, i, got[i], want[i])
		}
	}
}

// exactShapes are m, n, k: large enough for several pieces per thread, with edges in all directions and several blocks of k.
var exactShapes = [][3]int{{200, 384, 128}, {1000, 16, 48}, {37, 1100, 530}, {130, 97, 1030}, {96, 64, 96}, {8, 700, 384}, {2, 2100, 133}}

// gemmBits computes all transposes of one shape.
func gemmBits(o *Ops, s [3]int) (all []float32) {
	r := rand.New(rand.NewPCG(1, uint64(s[0])))
	m, n, k := s[0], s[1], s[2]
	a, b := random(r, m*k), random(r, n*k)
	for mode := range 4 {
		lda, ldb := k, n
		if mode&1 != 0 {
			lda = m
		}
		if mode&2 != 0 {
			ldb = k
		}
		c := random(rand.New(rand.NewPCG(2, 2)), m*n)
		o.Gemm(mode&1 != 0, mode&2 != 0, m, n, k, a, lda, b, ldb, c, n, true)
		all = append(all, c...)
	}
	return all
}

// The number of threads changes no bit, nor does the choice between AVX2 and AVX-512.
func TestGemmBits(t *testing.T) {
	for _, s := range exactShapes {
		for _, l := range Available() {
			one := gemmBits(open(t, 1, l), s)
			for _, threads := range []int{2, 3} {
				same(t, fmt.Sprintf("%v on %s with %d threads", s, l, threads), gemmBits(open(t, threads, l), s), one)
			}
			if l == AVX512 {
				same(t, fmt.Sprintf("%v on AVX-512 and AVX2", s), one, gemmBits(open(t, 1, AVX2), s))
			}
		}
	}
}

// halfBits computes both products of weights in bf16, packed or kept.
func halfBits(o *Ops, s [3]int, freeze func(kernel.Matrix[float32], kernel.Precision) kernel.Frozen[float32]) []float32 {
	r := rand.New(rand.NewPCG(9, uint64(s[0])))
	rows, out, in := s[0], s[1], s[2]
	f := freeze(kernel.Dense[float32]{Rows: out, Cols: in, Data: random(r, out*in)}, kernel.BF16)
	x, dy := random(r, rows*in), random(r, rows*out)
	y, dx := make([]float32, rows*out), make([]float32, rows*in)
	f.Forward(rows, x, in, y, out, false, kernel.LowRank[float32]{})
	f.Backward(rows, dy, out, dx, in, false, kernel.LowRank[float32]{})
	return append(y, dx...)
}

// halfShapes are rows, out, in.
var halfShapes = [][3]int{{40, 384, 128}, {33, 131, 1030}, {9, 1027, 67}, {21, 1100, 1016}}

// Products in bf16 have the same bits with the instruction and without it, packed or kept, with any number of threads.
func TestBitsBF16(t *testing.T) {
	for _, s := range halfShapes {
		var want []float32
		for _, l := range Available()[1:] {
			for threads := 1; threads <= 3; threads += 2 {
				o := open(t, threads, l)
				for name, freeze := range map[string]func(kernel.Matrix[float32], kernel.Precision) kernel.Frozen[float32]{"packed": o.Freeze, "kept": o.Keep} {
					got := halfBits(o, s, freeze)
					if want == nil {
						want = got
					}
					same(t, fmt.Sprintf("%s, %v, %s, %d threads", name, s, l, threads), got, want)
				}
			}
		}
	}
}

// A row has the same bits in a product whose activations are rounded part by part as in one of a few rows.
func TestRoundedInParts(t *testing.T) {
	const rows, few, out, in, rank = 520, 130, 1100, 8200, 16
	r := rand.New(rand.NewPCG(11, 11))
	w := kernel.Dense[float32]{Rows: out, Cols: in, Data: random(r, out*in)}
	x, u, v := random(r, rows*in), random(r, rows*rank), random(r, out*rank)
	for threads := 1; threads <= 2; threads++ {
		o := open(t, threads, best())
		f := o.Freeze(w, kernel.BF16)
		got, want := make([]float32, rows*out), make([]float32, rows*out)
		f.Forward(rows, x, in, got, out, true, kernel.LowRank[float32]{R: rank, U: u, V: v})
		for i := 0; i < rows; i += few {
			f.Forward(few, x[i*in:], in, want[i*out:], out, true, kernel.LowRank[float32]{R: rank, U: u[i*rank:], V: v})
		}
		same(t, fmt.Sprintf("%d threads", threads), got, want)
	}
}

// The instruction rounds as kernel.RoundBF16 does.
func TestRoundBF16(t *testing.T) {
	if best() != AVX512BF16 {
		t.Log("no instruction to compare with")
		return
	}
	r := rand.New(rand.NewPCG(10, 10))
	x := make([]float32, 1<<14)
	for i := range x {
		x[i] = math.Float32frombits(r.Uint32())
	}
	copy(x, []float32{0, float32(math.Copysign(0, -1)), math.MaxFloat32, float32(math.Inf(1)), float32(math.NaN()), math.SmallestNonzeroFloat32})
	got, want := make([]float32, len(x)/2), make([]float32, len(x)/2)
	hardware, plain := kernelsOf(AVX512BF16).pairs, pairKernels{}
	hardware.roundRow(got, x)
	plain.roundRow(want, x)
	for i := range want {
		if g, w := math.Float32bits(got[i]), math.Float32bits(want[i]); g != w {
			t.Fatalf("pair %d of %x %x is %x, want %x", i, math.Float32bits(x[2*i]), math.Float32bits(x[2*i+1]), g, w)
		}
	}
}

// Frozen weights give the bits of the products that they stand for, packed or kept, with any number of threads.
func TestFrozenBits(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 7))
	for _, s := range [][4]int{{200, 384, 128, 16}, {70, 130, 1030, 3}, {4, 700, 90, 0}, {33, 64, 2600, 8}} {
		rows, out, in, rank := s[0], s[1], s[2], s[3]
		w := kernel.Dense[float32]{Rows: out, Cols: in, Data: random(r, out*in)}
		x, dy, u := random(r, rows*in), random(r, rows*out), random(r, rows*rank)
		b, a := random(r, out*rank), random(r, rank*in)
		for _, l := range Available() {
			o := open(t, 1, l)
			y, dx := random(rand.New(rand.NewPCG(1, 1)), rows*out), random(rand.New(rand.NewPCG(1, 1)), rows*in)
			o.Gemm(false, true, rows, out, in, x, in, w.Data, in, y, out, true)
			o.Gemm(false, true, rows, out, rank, u, rank, b, rank, y, out, true)
			o.Gemm(false, false, rows, in, out, dy, out, w.Data, in, dx, in, true)
			o.Gemm(false, false, rows, in, rank, u, rank, a, in, dx, in, true)
			for threads := 1; threads <= 3; threads++ {
				o := open(t, threads, l)
				for name, f := range map[string]kernel.Frozen[float32]{"packed": o.Freeze(w, kernel.F32), "kept": o.Keep(w, kernel.F32)} {
					gy, gx := random(rand.New(rand.NewPCG(1, 1)), rows*out), random(rand.New(rand.NewPCG(1, 1)), rows*in)
					f.Forward(rows, x, in, gy, out, true, kernel.LowRank[float32]{R: rank, U: u, V: b})
					f.Backward(rows, dy, out, gx, in, true, kernel.LowRank[float32]{R: rank, U: u, V: a})
					what := fmt.Sprintf("%s, %v, %s, %d threads: ", name, s, l, threads)
					same(t, what+"forward", gy, y)
					same(t, what+"backward", gx, dx)
				}
			}
		}
	}
}

// fma32 is a*b+c rounded once: the product is exact in float64, and the sum is rounded to odd there, so that the second rounding
// is the only one that counts.
func fma32(a, b, c float32) float32 {
	p, q := float64(a)*float64(b), float64(c)
	s := p + q
	v := s - p
	low := (p - (s - v)) + (q - v) // what s lacks (Knuth's two-sum)
	if bits := math.Float64bits(s); low != 0 && bits&1 == 0 {
		if (low > 0) == (s > 0) {
			s = math.Float64frombits(bits + 1)
		} else {
			s = math.Float64frombits(bits - 1)
		}
	}
	return float32(s)
}

// twin is the definition of a tile with fused multiply-add.
func twin(t tile, k int, a []float32, as, ak int, b []float32, bs int, c []float32, cs int, acc bool) {
	for i := range t.rows {
		for j := range t.cols {
			var s float32
			for p := range k {
				s = fma32(a[i*as+p*ak], b[p*bs+j], s)
			}
			if acc {
				s += c[i*cs+j]
			}
			c[i*cs+j] = s
		}
	}
}

func TestTilesAgainstTwin(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 5))
	for _, l := range Available()[1:] {
		for _, q := range []tile{kernelsOf(l).wide, kernelsOf(l).narrow, kernelsOf(l).tall} {
			for _, k := range []int{1, 2, 7, 65} {
				for mode := range 4 {
					if q.run == nil || q.rows == 16 && mode&1 == 0 { // tall tiles take transposed rows only
						continue
					}
					as, ak := 70, 1
					if mode&1 != 0 {
						as, ak = 1, 70
					}
					bs, cs, acc := q.cols+mode, q.cols+3, mode&2 != 0
					a, b := random(r, 70*70), random(r, k*bs+q.cols)
					got := random(r, q.rows*cs)
					want := append([]float32(nil), got...)
					q.run(k, &a[0], as, ak, &b[0], bs, &got[0], cs, acc, &a[0])
					twin(q, k, a, as, ak, b, bs, want, cs, acc)
					same(t, fmt.Sprintf("%s %dx%d k=%d mode %d", l, q.rows, q.cols, k, mode), got, want)
				}
			}
		}
	}
}

func TestGemmChecksBounds(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("a matrix that is too short was accepted")
		}
	}()
	o := open(t, 1, best())
	o.Gemm(false, false, 8, 32, 8, make([]float32, 64), 8, make([]float32, 255), 32, make([]float32, 256), 32, false)
}

// rowwise runs every row-wise operation on rows of n elements, some of them extreme, and returns all that they wrote.
func rowwise(o *Ops, n int) (all []float32) {
	r := rand.New(rand.NewPCG(8, uint64(n)))
	const rows = 3
	x, w, dy := random(r, rows*n), random(r, n), random(r, rows*n)
	for i := range x {
		x[i] *= 30
	}
	y, inv, dx, dw, lse := make([]float32, rows*n), make([]float32, rows), random(r, rows*n), random(r, n), make([]float32, rows)
	o.RMSNorm(rows, n, y, inv, x, w, 1e-5)
	o.RMSNormBackward(rows, n, dx, dw, dy, x, w, inv)
	o.Axpy(0.3, x, dx)
	all = append(append(append(append(all, y...), inv...), dx...), dw...)

	gate := append([]float32{-90, 90, -88, 88.8, 0, float32(math.Inf(1)), float32(math.Inf(-1)), float32(math.NaN())}, x...)
	up, dh := random(r, len(gate)), random(r, len(gate))
	h, dg, du := make([]float32, len(gate)), make([]float32, len(gate)), make([]float32, len(gate))
	o.SwiGLU(h, gate, up)
	o.SwiGLUBackward(dg, du, dh, gate, up)
	all = append(append(append(all, h...), dg...), du...)

	p, q, ds := append([]float32(nil), x...), append([]float32(nil), x...), append([]float32(nil), dy...)
	if n >= rows {
		o.CausalSoftmax(rows, n, n-rows, p, n, 0.25, lse)
		o.CausalSoftmaxBackward(rows, n, n-rows, q, ds, n, 0.25, lse)
	}
	half := n / 2
	o.Rope(rows, 2*half, y[:rows*2*half], 2*half, x, dy, true)
	all = append(append(append(append(append(all, p...), q...), ds...), lse...), y...)

	loss := make([]float64, rows)
	o.CrossEntropy(rows, n, x, make([]int32, rows), loss, 1, false)
	o.CrossEntropy(rows, n, x, make([]int32, rows), loss, 0.5, true)
	return append(append(all, x...), float32(loss[0]), float32(loss[1]), float32(loss[2]))
}

// Row-wise operations give the same bits at every level: the Go loops are the twins of the assembly.
func TestRowwiseAgainstTwin(t *testing.T) {
	for _, l := range Available()[1:] {
		for _, n := range []int{1, 3, 8, 15, 16, 24, 67, 128, 300, 521} {
			same(t, fmt.Sprintf("%s n=%d", l, n), rowwise(open(t, 1, l), n), rowwise(open(t, 1, Go), n))
		}
	}
}

// The assembly's exponential is exp32 over the whole range, and exp32 is within 2 units in the last place.
func TestExp(t *testing.T) {
	const n = 1 << 16
	x, y, z := make([]float32, n), make([]float32, n), make([]float32, n)
	for i := range x {
		x[i] = -105 + 210*float32(i)/n
	}
	var lanes [8]float32
	open(t, 1, best()).simd.exp(y, x, 0, 1, 0, &lanes)
	scalar.exp(z, x, 0, 1, 0, &lanes)
	same(t, "exp", y, z)
	for i, v := range x {
		exact := math.Exp(float64(v))
		if got := float64(y[i]); exact > 1.2e-38 && exact < 3.4e38 && math.Abs(got-exact) > 2.4e-7*exact {
			t.Fatalf("exp(%v) = %v, want %v", v, got, exact)
		}
		if d := math.Abs(float64(y[i]) - float64(kernel.Exp32(v))); d > 2.4e-7*exact && exact < 3.4e38 {
			t.Fatalf("exp(%v) = %v, the reference says %v", v, y[i], kernel.Exp32(v))
		}
	}
}

// Unlike machines compute the same bits: these hashes were recorded with AVX-512 and hold for AVX2 and NEON, and those of the row-wise
// operations for plain Go too.
func TestBitsAcrossMachines(t *testing.T) {
	hash := func(parts ...[]float32) string {
		h := sha256.New()
		for _, p := range parts {
			for i, x := range p {
				if x != x {
					p[i] = float32(math.NaN()) // which NaN is not promised
				}
			}
			binary.Write(h, binary.LittleEndian, p)
		}
		return hex.EncodeToString(h.Sum(nil)[:8])
	}
	for _, l := range Available() {
		o := open(t, 1, l)
		if got, want := hash(gemmBits(o, exactShapes[2]), gemmBits(o, exactShapes[6])), "21174da9dbfa042e"; l != Go && got != want {
			t.Errorf("%s: products hash to %s, want %s", l, got, want)
		}
		if got, want := hash(halfBits(o, halfShapes[0], o.Freeze), halfBits(o, halfShapes[1], o.Freeze)), "c147c9844711cfcc"; l != Go && got != want {
			t.Errorf("%s: products in bf16 hash to %s, want %s", l, got, want)
		}
		if got, want := hash(rowwise(o, 128), rowwise(o, 67)), "181e33b1e852fffa"; got != want {
			t.Errorf("%s: row-wise operations hash to %s, want %s", l, got, want)
		}
	}
}

// A job inside a job, and jobs from two goroutines at once, must all be done, once.
func TestTeamNestedAndConcurrent(t *testing.T) {
	o := open(t, 3, Go)
	var count atomic.Int64
	done := make(chan bool)
	for range 2 {
		go func() {
			for range 200 {
				o.Parallel(5, func(int) { o.Parallel(4, func(int) { count.Add(1) }) })
			}
			done <- true
		}()
	}
	<-done
	<-done
	if got := count.Load(); got != 2*200*5*4 {
		t.Errorf("%d pieces were run, want %d", got, 2*200*5*4)
	}
}

// A task of more pieces than a word can count has each done once.
func TestTeamManyPieces(t *testing.T) {
	done := make([]atomic.Int32, 2*maxPieces+3)
	newTeam(3).run(len(done), call(func(i int) { done[i].Add(1) }))
	for i := range done {
		if n := done[i].Load(); n != 1 {
			t.Fatalf("piece %d was done %d times", i, n)
		}
	}
}

// Helpers end by themselves, and come back.
func TestTeamGoesAway(t *testing.T) {
	o := open(t, 3, Go)
	for range 20 {
		var count atomic.Int64
		o.Parallel(50, func(int) { count.Add(1) })
		if count.Load() != 50 {
			t.Fatalf("%d pieces of 50 were run", count.Load())
		}
		deadline := time.Now().Add(5 * time.Second)
		for i := range o.team.busy {
			for o.team.busy[i].Load() {
				if time.Now().After(deadline) {
					t.Fatalf("helper %d is still there", i)
				}
				time.Sleep(50 * time.Microsecond)
			}
		}
	}
}

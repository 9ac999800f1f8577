package optim

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"testing"
)

// oracle is what scripts/oracle/optim.py recorded.
type oracle struct {
	AdamW []struct {
		LR, Decay     float32
		Start         []float32
		Grads, Params [][]float32
		M, V          []float32
	}
	Clip []struct {
		Grad, Clipped []float32
		Max, Norm     float64
	}
	Schedules []struct {
		Kind          string
		Warmup, Total int
		Peak, Ratio   float64
		Rates         []float64
	}
}

func load(t *testing.T) (o oracle) {
	t.Helper()
	blob, err := os.ReadFile("testdata/optim.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(blob, &o); err != nil {
		t.Fatal(err)
	}
	if len(o.AdamW) == 0 || len(o.Clip) == 0 || len(o.Schedules) == 0 {
		t.Fatal("the recording is empty")
	}
	return o
}

// worst is the largest |got-want| / max(|want|, floor), and how many elements have the same bits.
func worst(t *testing.T, got, want []float32, floor float64) (rel float64, same int) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("length %d, want %d", len(got), len(want))
	}
	for i := range got {
		if got[i] == want[i] {
			same++
		}
		d := math.Abs(float64(got[i]) - float64(want[i]))
		rel = max(rel, d/max(math.Abs(float64(want[i])), floor))
	}
	return rel, same
}

func TestAdamWMatchesTorch(t *testing.T) {
	for _, c := range load(t).AdamW {
		p := append([]float32(nil), c.Start...)
		m, v := make([]float32, len(p)), make([]float32, len(p))
		o := AdamW{Beta1: 0.9, Beta2: 0.999, Eps: 1e-8, WeightDecay: c.Decay}
		rel, same, all := 0.0, 0, 0
		for step, g := range c.Grads {
			o.Step(p, g, m, v, c.LR, step+1)
			r, s := worst(t, p, c.Params[step], 1e-2)
			rel, same, all = max(rel, r), same+s, all+len(p)
		}
		rm, _ := worst(t, m, c.M, 0.1) // gradients reach 30; torch fuses its lerp, which shows where m nearly cancels
		rv, _ := worst(t, v, c.V, 1e-12)
		t.Logf("decay %g: worst relative p %.2g m %.2g v %.2g; %d of %d parameters bit for bit", c.Decay, rel, rm, rv, same, all)
		if rel > 2e-7 || rm > 6e-7 || rv > 2e-7 {
			t.Errorf("decay %g: relative error p %g m %g v %g, want <= 2e-7, 6e-7, 2e-7", c.Decay, rel, rm, rv)
		}
	}
}

// A step is elementwise: cut anywhere, it gives the same bits.
func TestAdamWInPieces(t *testing.T) {
	c := load(t).AdamW[1]
	o := AdamW{Beta1: 0.9, Beta2: 0.95, Eps: 1e-8, WeightDecay: 0.01}
	run := func(cut int) []float32 {
		p := append([]float32(nil), c.Start...)
		m, v := make([]float32, len(p)), make([]float32, len(p))
		for step, g := range c.Grads {
			o.Step(p[:cut], g[:cut], m[:cut], v[:cut], c.LR, step+1)
			o.Step(p[cut:], g[cut:], m[cut:], v[cut:], c.LR, step+1)
		}
		return p
	}
	if _, same := worst(t, run(13), run(0), 1); same != len(c.Start) {
		t.Errorf("%d of %d parameters are the same", same, len(c.Start))
	}
}

// Assembly and Go give the same bits, for ordinary numbers and for those at the ends of the range.
func TestAdamWAssemblyAgainstGo(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	const n = 1000
	random := func(spread float64) []float32 {
		x := make([]float32, n)
		for i := range x {
			x[i] = float32(r.NormFloat64() * math.Pow(10, spread*(2*r.Float64()-1)))
		}
		return x
	}
	p, m, v := random(2), random(10), random(20)
	for i := range v {
		v[i] = float32(math.Abs(float64(v[i])))
	}
	p2, m2, v2 := slices.Clone(p), slices.Clone(m), slices.Clone(v)
	o := AdamW{Beta1: 0.9, Beta2: 0.98, Eps: 1e-6, WeightDecay: 0.05}
	for step := 1; step <= 5; step++ {
		g := random(15)
		g[0], g[1] = 0, float32(math.Inf(1))
		o.Step(p, g, m, v, 1e-3, step)
		s := o.scalars(1e-3, step)
		s.step(p2, g, m2, v2)
	}
	for name, pair := range map[string][2][]float32{"p": {p, p2}, "m": {m, m2}, "v": {v, v2}} {
		for i, x := range pair[0] {
			if y := pair[1][i]; math.Float32bits(x) != math.Float32bits(y) && (x == x || y == y) {
				t.Fatalf("%s[%d] is %v, the Go loop says %v", name, i, x, y)
			}
		}
	}
}

// The bits of twenty steps and of all rates, as amd64 computed them, with and without assembly; arm64 must agree.
func TestBitsAcrossMachines(t *testing.T) {
	h := sha256.New()
	o := load(t)
	for _, c := range o.AdamW {
		p, m, v := slices.Clone(c.Start), make([]float32, len(c.Start)), make([]float32, len(c.Start))
		for step, g := range c.Grads {
			Clip(g, 1)
			AdamW{Beta1: 0.9, Beta2: 0.999, Eps: 1e-8, WeightDecay: c.Decay}.Step(p, g, m, v, c.LR, step+1)
		}
		binary.Write(h, binary.LittleEndian, p)
		binary.Write(h, binary.LittleEndian, m)
		binary.Write(h, binary.LittleEndian, v)
	}
	for _, c := range o.Schedules {
		s := Schedule{Kind: c.Kind, Peak: c.Peak, Warmup: c.Warmup, Total: 1000, MinRatio: 0.1}
		for step := range 1000 {
			binary.Write(h, binary.LittleEndian, s.LR(step))
		}
	}
	if got, want := hex.EncodeToString(h.Sum(nil)[:8]), "f46001a754d60bcc"; got != want {
		t.Errorf("hash %s, want %s", got, want)
	}
}

func TestClipMatchesTorch(t *testing.T) {
	for _, c := range load(t).Clip {
		g := append([]float32(nil), c.Grad...)
		norm := Clip(g, c.Max)
		if math.Abs(norm-c.Norm) > 2e-7*c.Norm {
			t.Errorf("norm %g, torch %g", norm, c.Norm)
		}
		if rel, _ := worst(t, g, c.Clipped, 1e-6); rel > 3e-7 {
			t.Errorf("clipped gradient: relative error %g", rel)
		}
	}
}

func TestClipEdges(t *testing.T) {
	g := []float32{3, 4}
	if n := Clip(g, 0); n != 5 || g[0] != 3 {
		t.Errorf("max 0: norm %g, gradient %v; want 5 and the gradient untouched", n, g)
	}
	g = []float32{1, float32(math.NaN())}
	if n := Clip(g, 1); !math.IsNaN(n) || g[0] == g[0] {
		t.Errorf("NaN: norm %g, gradient %v; want NaN all over", n, g)
	}
	if n := GlobalNorm(nil); n != 0 {
		t.Errorf("norm of nothing is %g", n)
	}
}

func TestSchedulesMatchTransformers(t *testing.T) {
	for _, c := range load(t).Schedules {
		s := Schedule{Kind: c.Kind, Peak: c.Peak, Warmup: c.Warmup, Total: c.Total, MinRatio: c.Ratio}
		for step, want := range c.Rates {
			if step > c.Total { // transformers' cosine turns up again there; no run goes there
				break
			}
			if got := s.LR(step); math.Abs(got-want) > 1e-15*c.Peak+4e-16*want {
				t.Errorf("%s warm-up %d of %d, step %d: rate %.17g, want %.17g", c.Kind, c.Warmup, c.Total, step, got, want)
			}
		}
	}
}

func TestCosPi(t *testing.T) {
	worst := 0.0
	for i := 0; i <= 100000; i++ {
		x := float64(i) / 100000
		worst = max(worst, math.Abs(cosPi(x)-math.Cos(math.Pi*x)))
	}
	if worst > 4e-16 {
		t.Errorf("cosPi differs from math.Cos by up to %g", worst)
	}
}

// Where fusing is allowed to the compiler, none may be left in the package; the control proves that the search
// finds one.
func TestNoFusedMultiplyAdd(t *testing.T) {
	tool, err := exec.LookPath("go")
	if err != nil || testing.Short() {
		t.Skip("needs the go command and several seconds to compile the standard library")
	}
	for _, target := range []struct{ arch, level, fused string }{
		{"amd64", "GOAMD64=v3", `VFN?M(ADD|SUB)`},
		{"arm64", "GOARM64=v8.0", `FN?M(ADD|SUB)[SD]`},
	} {
		count := func(pkg string) int {
			// -S lists the instructions; objdump does not know the VEX encoding
			build := exec.Command(tool, "build", "-gcflags=-S", pkg)
			build.Env = append(os.Environ(), "GOOS=linux", "GOARCH="+target.arch, target.level, "CGO_ENABLED=0")
			text, err := build.CombinedOutput()
			if err != nil {
				t.Fatalf("%s %s: %v\n%s", target.arch, pkg, err, text)
			}
			return len(regexp.MustCompile(target.fused).FindAll(text, -1))
		}
		if n := count("."); n != 0 {
			t.Errorf("%s: %d fused multiply-adds in engine/optim", target.arch, n)
		}
		if n := count("./testdata/fused"); n == 0 {
			t.Errorf("%s: the control shows no fused multiply-add: the search is broken", target.arch)
		}
	}
}

func BenchmarkAdamW(b *testing.B) {
	const n = 1 << 20
	p, g, m, v := make([]float32, n), make([]float32, n), make([]float32, n), make([]float32, n)
	for i := range g {
		g[i] = float32(i%1000)*1e-3 - 0.5
	}
	o := AdamW{Beta1: 0.9, Beta2: 0.999, Eps: 1e-8, WeightDecay: 0.01}
	b.SetBytes(n)
	for t := 1; b.Loop(); t++ {
		o.Step(p, g, m, v, 1e-4, t)
	}
}

// Sums and products of clipping have the bits of the plain loops.
func TestClipAgainstTwin(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 9))
	for _, n := range []int{1, 3, 4, 8, 11, 1000, 4099} {
		g, want := make([]float32, n), make([]float32, n)
		var s [4]float64
		for i := range g {
			g[i] = float32(r.NormFloat64())
			if k := i % 4; i < n&^3 {
				s[k] += square(g[i])
			}
		}
		for i, x := range g[n&^3:] {
			s[i] += square(x)
		}
		norm := math.Sqrt((s[0] + s[1]) + (s[2] + s[3]))
		for i, x := range g {
			want[i] = x * float32(1e-4/(norm+1e-6))
		}
		if got := Clip(g, 1e-4); got != norm {
			t.Errorf("n=%d: norm %v, want %v", n, got, norm)
		}
		for i := range g {
			if g[i] != want[i] {
				t.Fatalf("n=%d: element %d is %v, want %v", n, i, g[i], want[i])
			}
		}
	}
}

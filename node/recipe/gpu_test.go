package recipe_test

import (
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"lorad/engine"
	"lorad/engine/cuda"
	"lorad/engine/cuda/device"
	"lorad/engine/cuda/gputest"
	"lorad/job"
	"lorad/node/recipe"
)

func wide(t *testing.T, more string) *recipe.Recipe {
	t.Helper()
	j := must(job.Parse([]byte(curveJob + more)))(t)
	return must(recipe.Load(j, randomBase(t, curveFamilies["wide"])))(t)
}

// A run may have members with a GPU and members without: gradients differ in the last bits by who computed them, the replicas in none.
func TestReplicasOfCPUAndGPU(t *testing.T) {
	open := gputest.Open(t, 0)
	r := wide(t, "bf16: true\n")
	gpu := must(r.OnGPU(open))(t)
	defer gpu.Close()
	mixed := pairOf(t, r, false, [2]engine.Trainer{must(r.Trainer(1))(t), gpu})
	alone := newPair(t, r, false)
	defer mixed.close()
	defer alone.close()
	for i := range 4 { // step holds the digests of the two to each other
		if a, b := mixed.step(t), alone.step(t); math.Abs(a-b) > 1e-2 {
			t.Errorf("step %d: loss %.4f, without a GPU %.4f", i, a, b)
		}
	}
	if mixed.replicas[0].Digest() == alone.replicas[0].Digest() {
		t.Error("the GPU's gradients are the CPU's to the bit, which cannot be")
	}
}

// hidden is a trainer that does not add up itself.
type hidden struct{ engine.Trainer }

// A run in which the GPU adds its gradients up holds the very replicas of one in which the host does, on the exact wire and on the coarse one; and two GPUs hold
// those of one.
func TestReplicasOfSums(t *testing.T) {
	open := gputest.Open(t, 0)
	for _, more := range []string{"bf16: true\n", "bf16: true\nreduce_wire: int16\n"} {
		r := wide(t, more)
		coarse := r.Job.ReduceWire == job.WireInt16
		gpu, second, host := must(r.OnGPU(open))(t), must(r.OnGPU(open))(t), must(r.OnGPU(open))(t)
		on := pairOf(t, r, coarse, [2]engine.Trainer{gpu, second})
		off := pairOf(t, r, coarse, [2]engine.Trainer{hidden{host}, must(r.Trainer(1))(t)})
		off.only = true
		for range 2 { // from the second on the units are the parameters' own
			on.step(t)
			off.step(t)
		}
		if on.replicas[0].Digest() != off.replicas[0].Digest() {
			t.Errorf("%q: other replicas", more)
		}
		on.close()
		off.close()
		for _, g := range []*cuda.Trainer{gpu, second, host} {
			g.Close()
		}
	}
}

// The GPU's losses are those of transformers and PEFT in bf16, on the same base, adapter and data.
func TestGPUCurve(t *testing.T) {
	open := gputest.Open(t, 0)
	r := wide(t, curveKinds["lorabf16"])
	gpu := must(r.OnGPU(open))(t)
	defer gpu.Close()
	run := run{recipe: r, trainer: gpu}
	s := newStepper(t, &run)
	var theirs recording
	if err := json.Unmarshal(must(os.ReadFile(filepath.Join(curvesDir, "wide-lorabf16.json")))(t), &theirs); err != nil {
		t.Fatal(err)
	}
	var worst float64
	for i := range firstSteps {
		s.step(t)
		worst = max(worst, math.Abs(run.curve.Loss[i]-theirs.Loss[i]))
	}
	t.Logf("first %d steps within %.2g of PEFT's", firstSteps, worst)
	if limit := curveLimits["lorabf16"][0]; !(worst <= limit) {
		t.Errorf("losses apart by %g, limit %g", worst, limit)
	}
}

// What the GPU does not train, or where there is none, the error says so, and nothing is left open.
func TestOnGPURefusals(t *testing.T) {
	none := func() (device.Device, error) { return nil, errors.New("CUDA is off") }
	for more, says := range map[string]string{
		"bf16: true\n":                         "CUDA is off",
		"bf16: false\n":                        "dtype: bf16",
		"bf16: true\nuse_dora: true\n":         "use_dora",
		"bf16: true\nneftune_noise_alpha: 5\n": "neftune",
	} {
		if _, err := wide(t, more).OnGPU(none); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, want it to say %s", more, err, says)
		}
	}
	if _, err := wide(t, "bf16: true\n").OnGPU(nil); err == nil || !strings.Contains(err.Error(), "no GPU") {
		t.Errorf("%v", err)
	}
	p := must(wide(t, "bf16: true\n").GPUMemory(0))(t)
	if _, err := wide(t, "bf16: true\n").GPUMemory(p.Peak / 2); !errors.Is(err, engine.ErrOutOfMemory) {
		t.Errorf("%v", err)
	}
}

package recipe_test

import (
	"fmt"
	"io/fs"
	"math"
	"strings"
	"testing"
	"testing/fstest"

	"lorad/embedded"
	"lorad/engine"
	"lorad/job"
	"lorad/node/recipe"
)

// shortJob is about examples much shorter than the rows.
const shortJob = `base_model: base
datasets: [{path: data/0.jsonl, type: completion}]
val_set_size: 5
lora_r: 8
lora_dropout: 0
lora_target_modules: all-linear
num_epochs: 1
seed: 7
`

func shortExamples(n int) []byte {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `{"prompt": "Question: what is %d and one?\nAnswer:", "completion": " It is %d%s."}`+"\n", i, i+1, strings.Repeat(" indeed", i%7))
	}
	return []byte(b.String())
}

func packing(t testing.TB, files fstest.MapFS, more string) *recipe.Recipe {
	t.Helper()
	j, err := job.Parse([]byte(shortJob + more))
	if err != nil {
		t.Fatal(err)
	}
	r, err := recipe.Load(j, files)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// Packed, an epoch is fewer and larger micro-batches of the same examples: loss, gradient and validation loss are those of
// the examples one by one. TestOracleFamilies of engine/llama compares packed sequences with transformers', one by one.
func TestPackedIsUnpacked(t *testing.T) {
	files := randomBase(t, curveFamilies["mistral"]) // whose window would reach into the neighbours
	files["data/0.jsonl"] = &fstest.MapFile{Data: shortExamples(45)}
	single := packing(t, files, "sequence_len: 128\nmicro_batch_size: 1\nglobal_batch_size: 40\n")
	packed := packing(t, files, "sequence_len: 128\nmicro_batch_size: 1\nglobal_batch_size: 40\nsample_packing: true\n")
	if n, m := len(single.Work(0)), len(packed.Work(0)); n != 40 || m >= 15 || packed.Plan.Steps() != 1 {
		t.Fatalf("%d micro-batches, packed %d", n, m)
	}
	for _, tokens := range packed.Work(0) {
		if tokens > 128 {
			t.Errorf("a row of %d tokens", tokens)
		}
	}
	model := must(single.Trainer(2))(t)
	loss, grad := epoch(t, model, single)
	packedLoss, packedGrad := epoch(t, model, packed)
	var diff, norm float64
	for i := range grad {
		diff += math.Pow(grad[i]-packedGrad[i], 2)
		norm += math.Pow(grad[i], 2)
	}
	if math.Abs(loss-packedLoss) > 1e-6*loss || math.Sqrt(diff) > 1e-5*math.Sqrt(norm) {
		t.Errorf("loss %.9g, packed %.9g; gradients differ by %.3g of their norm", loss, packedLoss, math.Sqrt(diff/norm))
	}
	t.Logf("losses differ by %.1e, gradients by %.1e, relative", math.Abs(loss-packedLoss)/loss, math.Sqrt(diff/norm))
	if a, b := validation(t, model, single), validation(t, model, packed); math.Abs(a-b) > 1e-6*a || len(packed.ValWork()) >= len(single.ValWork()) {
		t.Errorf("validation loss %.9g, packed %.9g", a, b)
	}
}

// epoch sums the losses and gradients of the first step.
func epoch(t testing.TB, model engine.Trainer, r *recipe.Recipe) (loss float64, grad []float64) {
	t.Helper()
	one := make([]float32, len(model.Params()))
	grad = make([]float64, len(one))
	for i := range r.Micros(0) {
		l, err := model.Gradient(r.Micro(0, i), 1, engine.Key{}, one)
		if err != nil {
			t.Fatal(err)
		}
		loss += l
		for k, g := range one {
			grad[k] += float64(g)
		}
	}
	return loss, grad
}

func validation(t testing.TB, model engine.Trainer, r *recipe.Recipe) (sum float64) {
	t.Helper()
	for i := range r.ValMicros() {
		l, err := model.Loss(r.Val(i))
		if err != nil {
			t.Fatal(err)
		}
		sum += l
	}
	return sum
}

// BenchmarkPacking has the gradients of an epoch of short examples, with and without packing, on the embedded base.
func BenchmarkPacking(b *testing.B) {
	for _, c := range []struct{ name, more string }{
		{"one", "micro_batch_size: 1\nglobal_batch_size: 60\n"},
		{"four", "micro_batch_size: 4\nglobal_batch_size: 60\n"},
		{"packed", "micro_batch_size: 1\nglobal_batch_size: 60\nsample_packing: true\n"}, // rows of 512
	} {
		b.Run(c.name, func(b *testing.B) {
			r := packing(b, embeddedBase(b, shortExamples(65)), c.more)
			model, err := r.Trainer(2)
			if err != nil {
				b.Fatal(err)
			}
			tokens := 0
			for b.Loop() {
				epoch(b, model, r)
				for _, n := range r.Work(0) {
					tokens += n
				}
			}
			b.ReportMetric(float64(tokens)/b.Elapsed().Seconds(), "tokens/s")
			b.ReportMetric(float64(len(r.Work(0))), "micro-batches")
		})
	}
}

func embeddedBase(t testing.TB, examples []byte) fstest.MapFS {
	t.Helper()
	files := fstest.MapFS{"data/0.jsonl": {Data: examples}}
	err := fs.WalkDir(embedded.Base(), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := fs.ReadFile(embedded.Base(), path)
		files[recipe.BaseDir+"/"+path] = &fstest.MapFile{Data: data}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// A run of 2^40 steps is planned at once, with memory for whatever its micro-batches may be.
func TestLargestOfALongRun(t *testing.T) {
	files := randomBase(t, curveFamilies["mistral"])
	files["data/0.jsonl"] = &fstest.MapFile{Data: shortExamples(45)}
	for _, more := range []string{"", "sample_packing: true\nsequence_len: 128\n"} {
		short, long := packing(t, files, more+"max_steps: 100\n").Largest(), packing(t, files, more+"max_steps: 1099511627776\n").Largest()
		if long.Rows < short.Rows || long.Labelled < short.Labelled || long.Longest != short.Longest {
			t.Errorf("%q: %+v is not room for %+v", more, long, short)
		}
	}
}

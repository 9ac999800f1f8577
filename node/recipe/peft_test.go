package recipe_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/fstest"

	"lorad/allreduce"
	"lorad/embedded"
	"lorad/engine"
	"lorad/engine/cpu"
	"lorad/engine/llama"
	"lorad/job"
	"lorad/model/peft"
	"lorad/model/safetensors"
	"lorad/node/recipe"
	"lorad/node/replica"
)

// The proof that a run here is the run that transformers and PEFT would have made: the same base, data order and
// initial adapter give the same losses, and the adapter that comes out gives the same logits there.
// scripts/oracle/README.md says how the numbers under testdata/peft were recorded.

// How far apart two correct f32 implementations may be.
const (
	lossLimit  = 1e-4  // of the loss of a step, relative
	normLimit  = 1e-4  // of the norm of a gradient, relative
	rateLimit  = 1e-12 // of the learning rate, relative: f64 on both sides
	logitLimit = 1e-4  // of a logit, relative to the largest |logit| of its position
)

const recorded = "testdata/peft"

// curve is a training run, step by step; rates and norms are those that the step was made with.
type curve struct {
	Loss []float64 `json:"loss"` // mean over the labelled tokens of the step, in nats, before its update
	Rate []float64 `json:"learning_rate"`
	Norm []float64 `json:"grad_norm"` // before clipping
}

// recording is what PEFT did. The hashes tell a stale recording from a wrong engine.
type recording struct {
	curve
	Base    string `json:"base_sha256"`
	Batches string `json:"batches_sha256"`
}

// run is our side: the recipe, the trained engine, and what happened.
type run struct {
	recipe  *recipe.Recipe
	trainer engine.Trainer
	curve   curve
}

// must(f(x))(t) is the value of f(x), or the end of the test.
func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// inputs are the files of the job by their portable names, as a node gathers them.
func inputs(t testing.TB) fs.FS {
	t.Helper()
	out := fstest.MapFS{
		"data/0.jsonl": {Data: embedded.LegalTrain()},
		"test/0.jsonl": {Data: embedded.LegalHeldout()},
	}
	for dir, from := range map[string]fs.FS{recipe.BaseDir: embedded.Base(), recipe.AdapterDir: os.DirFS(filepath.Join(recorded, "adapter"))} {
		for _, e := range must(fs.ReadDir(from, "."))(t) {
			out[dir+"/"+e.Name()] = &fstest.MapFile{Data: must(fs.ReadFile(from, e.Name()))(t)}
		}
	}
	return out
}

func load(t testing.TB) *recipe.Recipe {
	t.Helper()
	j := must(job.Parse(must(os.ReadFile(filepath.Join(recorded, "job.yaml")))(t)))(t)
	return must(recipe.Load(j, inputs(t)))(t)
}

// train does every step of the job as a worker in a ring of one does.
func train(t *testing.T) run {
	t.Helper()
	r := run{recipe: load(t)}
	r.trainer = must(r.recipe.Trainer(1))(t)
	takeSteps(t, &r)
	return r
}

type stepper struct {
	*run
	ring    *allreduce.Group
	replica *replica.Replica
	accum   *allreduce.Accum
	sum     allreduce.Sum
	grad    []float32
}

func (s *stepper) step(t *testing.T) {
	t.Helper()
	done := s.replica.Done()
	s.accum.ResetFor(s.recipe.Micros(done))
	labelled := s.recipe.Labelled(done)
	for i := range s.recipe.Micros(done) {
		b := s.recipe.Micro(done, i)
		loss := must(s.trainer.Gradient(b, 1/float32(labelled), engine.Key{Step: uint32(done), Micro: uint32(i)}, s.grad))(t)
		if err := s.accum.Add(i, s.grad, loss, int64(b.Labelled()), int64(len(b.Tokens))); err != nil {
			t.Fatal(err)
		}
	}
	must(s.ring.Reduce(context.Background(), allreduce.OpID{Step: done, Kind: 1}, s.accum, &s.sum))(t)
	norm, rate := s.replica.Step(s.sum.Grad)
	s.curve.Loss = append(s.curve.Loss, s.sum.Loss/float64(s.sum.Tokens))
	s.curve.Norm = append(s.curve.Norm, norm)
	s.curve.Rate = append(s.curve.Rate, rate)
}

// prompts are held-out examples: short ones, and many in a row to reach positions that no training example has.
func prompts(r *recipe.Recipe) [][]int32 {
	val := r.Set.Val
	var long []int32
	for i := 3; len(long)+len(val[i].Tokens) <= r.Base.Config().MaxPosition; i++ {
		long = append(long, val[i].Tokens...)
	}
	return [][]int32{val[0].Tokens, val[1].Tokens, val[2].Tokens, long}
}

// bare is the base without an adapter.
func bare(t *testing.T, r *recipe.Recipe) engine.Trainer {
	t.Helper()
	return must(llama.New[float32](r.Base.Config(), r.Base, llama.Adapter{}, cpu.New(1)))(t)
}

// batchesHash covers all that the losses depend on besides the weights: tokens and labels of each step, in order.
func batchesHash(r *recipe.Recipe) string {
	h := sha256.New()
	for done := range uint64(r.Plan.Steps()) {
		for i := range r.Micros(done) {
			fmt.Fprintln(h, done, i, r.Micro(done, i))
		}
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

func baseHash(t *testing.T) string {
	t.Helper()
	return fmt.Sprintf("%x", sha256.Sum256(must(fs.ReadFile(embedded.Base(), "model.safetensors"))(t)))
}

func TestPEFT(t *testing.T) {
	ours := train(t)
	if *dump != "" {
		writeDump(t, *dump, ours)
		return
	}
	var theirs recording
	if err := json.Unmarshal(must(os.ReadFile(filepath.Join(recorded, "curve.json")))(t), &theirs); err != nil {
		t.Fatal(err)
	}
	if theirs.Base != baseHash(t) || theirs.Batches != batchesHash(ours.recipe) {
		t.Fatal("the embedded base, its records, the tokenizer or the data order changed since PEFT trained on them: record again, see scripts/oracle/README.md")
	}
	logits := must(safetensors.OpenFS(os.DirFS(recorded), "logits.safetensors"))(t)
	defer logits.Close()
	t.Run("Curve", func(t *testing.T) { compareCurves(t, ours.curve, theirs.curve) })
	t.Run("BaseIsBF16", baseIsBF16)
	t.Run("BaseLogits", func(t *testing.T) { compareLogits(t, bare(t, ours.recipe), prompts(ours.recipe), logits, "base") })
	t.Run("AdaptedLogits", func(t *testing.T) { compareLogits(t, ours.trainer, prompts(ours.recipe), logits, "adapted") })
	t.Run("Folder", func(t *testing.T) { folderIsWhole(t, ours) })
}

func compareCurves(t *testing.T, ours, theirs curve) {
	for _, c := range []struct {
		what         string
		ours, theirs []float64
		limit        float64
	}{
		{"loss", ours.Loss, theirs.Loss, lossLimit},
		{"gradient norm", ours.Norm, theirs.Norm, normLimit},
		{"learning rate", ours.Rate, theirs.Rate, rateLimit},
	} {
		if len(c.ours) != 50 || len(c.theirs) != 50 {
			t.Fatalf("%s: %d steps here, %d recorded; want 50", c.what, len(c.ours), len(c.theirs))
		}
		step, worst := worstOf(c.ours, c.theirs)
		t.Logf("%s: worst relative difference %.2g, at step %d", c.what, worst, step+1)
		if !(worst <= c.limit) {
			t.Errorf("%s of step %d: %.9g here, %.9g in PEFT: apart by %.2g, limit %g", c.what, step+1, c.ours[step], c.theirs[step], worst, c.limit)
		}
	}
	if first, last := theirs.Loss[0], theirs.Loss[49]; last > first/2 {
		t.Errorf("loss went from %g to %g: a run that hardly learns proves little", first, last)
	}
}

// worstOf is the largest relative difference, and where; NaN counts as the worst.
func worstOf(ours, theirs []float64) (at int, worst float64) {
	for i := range ours {
		if ours[i] == theirs[i] {
			continue
		}
		if d := math.Abs(ours[i]-theirs[i]) / math.Abs(theirs[i]); !(d <= worst) {
			at, worst = i, d
		}
	}
	return at, worst
}

// sampled is the share of each position's logits that is recorded: entries p%sampled, p%sampled+sampled, ... of
// position p. All the rest is compared by the script when it records.
const sampled = 256

func compareLogits(t *testing.T, m engine.Trainer, prompts [][]int32, theirs *safetensors.File, model string) {
	var worst float64
	for i, prompt := range prompts {
		got := must(m.Logits(prompt))(t)
		want, shape, err := theirs.F32(fmt.Sprintf("%s.%d", model, i))
		largest, _, err2 := theirs.F32(fmt.Sprintf("%s.%d.largest", model, i))
		vocab := len(got) / len(prompt)
		if err != nil || err2 != nil || !slices.Equal(shape, []int{len(prompt), vocab / sampled}) {
			t.Fatalf("prompt %d of %d tokens: recorded shape %v: %v %v", i, len(prompt), shape, err, err2)
		}
		for k, w := range want {
			p, j := k/shape[1], k%shape[1]
			g := got[p*vocab+p%sampled+j*sampled]
			if d := math.Abs(float64(g-w)) / float64(largest[p]); !(d <= worst) {
				worst = d
			}
		}
	}
	t.Logf("%s: worst difference of a logit %.2g of the largest of its position", model, worst)
	if !(worst <= logitLimit) {
		t.Errorf("%s: a logit is apart by %.2g of the largest of its position, limit %g", model, worst, logitLimit)
	}
}

// baseIsBF16 is what makes the logits of the base a proof that bf16 weights are computed with in f32: bf16 arithmetic
// would be off by a hundred times the limit.
func baseIsBF16(t *testing.T) {
	f := must(safetensors.OpenFS(embedded.Base(), "model.safetensors"))(t)
	defer f.Close()
	for _, name := range f.Names() {
		if d, _, _ := f.Info(name); d != safetensors.BF16 {
			t.Errorf("%s is stored as %v", name, d)
		}
	}
}

// folderIsWhole holds what WriteModel wrote against the parameters: PEFT loads those bits and no others.
func folderIsWhole(t *testing.T, r run) {
	dir := t.TempDir()
	sum := must(r.recipe.WriteModel(dir, r.trainer, "some/base"))(t)
	file := must(os.ReadFile(filepath.Join(dir, "adapter_model.safetensors")))(t)
	if want := sha256.Sum256(file); !bytes.Equal(sum, want[:]) {
		t.Errorf("WriteModel says SHA-256 %x, the file has %x", sum, want)
	}
	cfg, tensors, err := peft.Read(os.DirFS(dir))
	if err != nil {
		t.Fatal(err)
	}
	if cfg.R != 16 || cfg.Alpha != 32 || cfg.Dropout != 0 || cfg.BaseModel != "some/base" {
		t.Errorf("adapter_config.json: %+v", cfg)
	}
	for _, l := range r.trainer.Layout() {
		if !slices.Equal(tensors[l.Name].Data, r.trainer.Params()[l.Offset:l.Offset+l.Len()]) {
			t.Errorf("%s is not what was trained", l.Name)
		}
	}
}

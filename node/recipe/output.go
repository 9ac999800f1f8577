package recipe

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"lorad/engine"
	"lorad/export"
	"lorad/internal/durable"
	"lorad/job"
	"lorad/model"
	"lorad/model/peft"
	"lorad/model/safetensors"
)

// WriteModel writes what a run is for into dir: a PEFT adapter folder, or with adapter: full a whole model folder, and
// a model card. It returns the SHA-256 of the weights file, which depends on the weights alone. base is what the user
// called the base model.
func (r *Recipe) WriteModel(dir string, t engine.Trainer, base string) ([]byte, error) {
	weights := "adapter_model.safetensors"
	var cfg *peft.LoraConfig
	var err error
	if r.Job.Adapter == job.Full {
		weights = "model.safetensors"
		err = r.writeFull(dir, t)
	} else {
		cfg, err = r.writeAdapter(dir, t, base)
	}
	if err != nil {
		return nil, err
	}
	if err := durable.WriteFile(filepath.Join(dir, "README.md"), []byte(r.card(base, cfg)), 0o644); err != nil {
		return nil, err
	}
	return hashFile(filepath.Join(dir, weights))
}

func (r *Recipe) writeAdapter(dir string, t engine.Trainer, base string) (*peft.LoraConfig, error) {
	cfg, _, err := r.adapter()
	if err != nil {
		return nil, err
	}
	cfg.BaseModel = base
	trained := tensors(t, safetensors.F32)
	if _, ok := cfg.PiSSA(); ok {
		if *cfg, trained, err = original(*cfg, t, trained); err != nil {
			return nil, err
		}
	}
	if err := peft.Write(dir, *cfg, trained); err != nil {
		return nil, err
	}
	return cfg, r.writeProvenance(dir)
}

// original makes of PiSSA's adapter, which belongs to the residual base, one that belongs to the base that the job names.
func original(cfg peft.LoraConfig, t engine.Trainer, trained []safetensors.Tensor) (peft.LoraConfig, []safetensors.Tensor, error) {
	from, ok := t.(interface{ Initial() []float32 })
	if !ok {
		return cfg, nil, fmt.Errorf("write adapter: %s is not supported by this engine", cfg.Init)
	}
	var initial [][]float32
	for _, l := range t.Layout() {
		initial = append(initial, from.Initial()[l.Offset:l.Offset+l.Len()])
	}
	return peft.Subtract(cfg, trained, initial)
}

// writeProvenance records which weights the adapter belongs to.
func (r *Recipe) writeProvenance(dir string) error {
	print, err := r.Base.Fingerprint()
	if err != nil {
		return err
	}
	p := export.Provenance{Base: hex.EncodeToString(print[:])}
	if r.Job.DType == "bf16" {
		p.DType = r.Job.DType
	}
	switch {
	case r.Job.LoadIn4Bit && r.Job.DoubleQuant:
		p.FourBit = export.NF4Nested
	case r.Job.LoadIn4Bit:
		p.FourBit = export.NF4
	}
	return p.Write(dir)
}

// writeFull stores the weights as bf16, the type that models of this kind are passed around in; the f32 masters are
// in the checkpoint's state.bin.
func (r *Recipe) writeFull(dir string, t engine.Trainer) error {
	base, err := fs.Sub(r.inputs, BaseDir)
	if err != nil {
		return err
	}
	return model.WriteFolder(dir, r.Base.Config(), tensors(t, safetensors.BF16), base)
}

func tensors(t engine.Trainer, as safetensors.DType) []safetensors.Tensor {
	params := t.Params()
	var out []safetensors.Tensor
	for _, l := range t.Layout() {
		out = append(out, safetensors.Tensor{Name: l.Name, Shape: l.Shape, Data: params[l.Offset : l.Offset+l.Len()], DType: as})
	}
	return out
}

func hashFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return nil, fmt.Errorf("hash %s: %w", path, err)
	}
	return h.Sum(nil), nil
}

// card is the README.md of a model repository: front matter that the Hugging Face hub reads, then what was done.
func (r *Recipe) card(base string, cfg *peft.LoraConfig) string {
	j := r.Job
	var b strings.Builder
	fmt.Fprintf(&b, "---\nbase_model: %s\n", base)
	if j.Adapter == job.LoRA {
		b.WriteString("library_name: peft\n")
	}
	fmt.Fprintf(&b, "tags:\n- lorad\n---\n\n# %s\n\n", j.Name)
	if cfg != nil {
		fmt.Fprintf(&b, "LoRA adapter of rank %d (alpha %g) for %s, trained with lorad.\n\n", cfg.R, cfg.Alpha, base)
	} else {
		b.WriteString("All weights trained with lorad.\n\n")
	}
	fmt.Fprintf(&b, "- %d training examples, %d for validation; manifest SHA-256 `%x`\n", len(r.Set.Train), len(r.Set.Val), r.Set.Hash)
	fmt.Fprintf(&b, "- %d steps of %d examples, curriculum %s, peak learning rate %g (%s), seed %d\n",
		r.Plan.Steps(), j.GlobalBatchSize, j.Curriculum, j.LearningRate, j.LRScheduler, j.Seed)
	if j.Adapter == job.LoRA {
		fmt.Fprintf(&b, "\nTo load it with PEFT:\n\n```python\nfrom peft import PeftModel\nfrom transformers import AutoModelForCausalLM\n\n"+
			"model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(%q), \".\")\n```\n", base)
	}
	fmt.Fprintf(&b, "\nThe job, its inputs by the names that nodes know them by:\n\n```yaml\n%s```\n", j.YAML())
	return b.String()
}

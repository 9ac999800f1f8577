package export_test

import (
	"os"
	"strings"
	"testing"

	"lorad/engine/kernel"
	"lorad/export"
	"lorad/model"
	"lorad/model/peft"
	"lorad/model/safetensors"
)

// An adapter may name any module of its base. Of those that are no linear layer there is nothing to add a matrix to.
func TestAdaptersOfOtherThanLinearLayersAreRefused(t *testing.T) {
	base, err := model.Open(load(t, "llama3").base(t))
	if err != nil {
		t.Fatal(err)
	}
	defer base.Close()
	c := base.Config()
	for module, rows := range map[string]int{"model.layers.0.input_layernorm": c.HiddenSize, "model.embed_tokens": c.VocabSize} {
		cfg := peft.LoraConfig{R: 1, Alpha: 1, TargetModules: []string{module}}
		nameA, nameB := peft.Names(module)
		dir := t.TempDir()
		if err := peft.Write(dir, cfg, []safetensors.Tensor{
			{Name: nameA, Shape: []int{1, c.HiddenSize}, Data: make([]float32, c.HiddenSize)},
			{Name: nameB, Shape: []int{rows, 1}, Data: make([]float32, rows)},
		}); err != nil {
			t.Fatal(err)
		}
		if _, err := export.Open(base, os.DirFS(dir), kernel.NewRef[float32]()); err == nil || !strings.Contains(err.Error(), module+", which is no linear layer") {
			t.Errorf("adapter of %s: %v", module, err)
		}
	}
}

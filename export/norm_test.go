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
func TestAdapterOfANormIsRefused(t *testing.T) {
	cfg := peft.LoraConfig{R: 1, Alpha: 1, TargetModules: []string{"input_layernorm"}}
	nameA, nameB := peft.Names("model.layers.0.input_layernorm")
	dir := t.TempDir()
	if err := peft.Write(dir, cfg, []safetensors.Tensor{{Name: nameA, Shape: []int{1, 32}, Data: make([]float32, 32)}, {Name: nameB, Shape: []int{32, 1}, Data: make([]float32, 32)}}); err != nil {
		t.Fatal(err)
	}
	base, err := model.Open(load(t, "llama3").base(t))
	if err != nil {
		t.Fatal(err)
	}
	defer base.Close()
	if _, err := export.Open(base, os.DirFS(dir), kernel.NewRef[float32]()); err == nil || !strings.Contains(err.Error(), "input_layernorm") {
		t.Errorf("adapter of a norm: %v", err)
	}
}

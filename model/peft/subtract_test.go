package peft_test

import (
	"math"
	"slices"
	"testing"

	"lorad/model/peft"
	"lorad/model/safetensors"
)

func TestSubtract(t *testing.T) {
	a, b := peft.Names("model.layers.0.self_attn.q_proj")
	trained := []safetensors.Tensor{{Name: a, Shape: []int{1, 2}, Data: []float32{1, 2}}, {Name: b, Shape: []int{3, 1}, Data: []float32{3, 4, 5}},
		{Name: peft.SavedName("model.norm.weight"), Shape: []int{2}, Data: []float32{6, 7}}}
	c := peft.LoraConfig{R: 1, Alpha: 4, UseRSLoRA: true, Init: "pissa", RankPattern: map[string]int{"x": 3}, AlphaPattern: map[string]float64{"y": 1}}
	got, out, err := peft.Subtract(c, trained, [][]float32{{10, 20}, {30, 40, 50}, {8, 9}})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(out[0].Data, []float32{1, 2, 10, 20}) || !slices.Equal(out[0].Shape, []int{2, 2}) {
		t.Errorf("A: %+v", out[0])
	}
	if !slices.Equal(out[1].Data, []float32{3, -30, 4, -40, 5, -50}) || !slices.Equal(out[1].Shape, []int{3, 2}) {
		t.Errorf("B: %+v", out[1])
	}
	if !slices.Equal(out[2].Data, []float32{6, 7}) {
		t.Errorf("a module that is saved whole: %+v", out[2])
	}
	if got.R != 2 || got.RankPattern["x"] != 6 || got.Init != "" || math.Abs(got.Scale()-c.Scale()) > 1e-12 {
		t.Errorf("%+v has scale %v, want %v", got, got.Scale(), c.Scale())
	}
	if c.RankPattern["x"] != 3 || !slices.Equal(trained[0].Data, []float32{1, 2}) {
		t.Error("what was given has changed")
	}
	if _, _, err := peft.Subtract(c, trained, nil); err == nil {
		t.Error("initial values are missing, and that is no error")
	}
}

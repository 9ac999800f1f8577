package peft

import (
	"os"
	"path/filepath"
	"testing"

	"lorad/internal/hostile"
)

func tryConfig(_ testing.TB, data []byte) {
	if c, err := ParseConfig(data); err == nil {
		c.modules(map[string][]int{"base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight": {c.R, 8}})
	}
}

func adapterConfigs(t testing.TB) (all [][]byte) {
	t.Helper()
	files, err := filepath.Glob("testdata/*/" + configFile)
	if err != nil || len(files) < 3 {
		t.Fatalf("%d adapter configurations in testdata: %v", len(files), err)
	}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, b)
	}
	return all
}

func FuzzConfig(f *testing.F) {
	for _, b := range adapterConfigs(f) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, data []byte) { tryConfig(t, data) })
}

func TestHostileConfigs(t *testing.T) {
	hostile.Test(t, hostile.Parser{Seeds: adapterConfigs(t), Parse: tryConfig, Small: 3_000, Memory: func(n int) int { return 4<<20 + 200*n }})
}

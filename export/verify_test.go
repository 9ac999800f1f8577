package export_test

import (
	"io/fs"
	"math"
	"os"
	"slices"
	"strings"
	"testing"

	"lorad/export"
	"lorad/model"
	"lorad/model/safetensors"
)

// recordedBase is the fingerprint of a base as lorad.json has it.
func recordedBase(t *testing.T, base fs.FS) string {
	t.Helper()
	f, err := model.Open(base)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p, err := f.Fingerprint()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := (export.Provenance{Base: hexOf(p)}).Write(dir); err != nil {
		t.Fatal(err)
	}
	back, err := export.ReadProvenance(os.DirFS(dir))
	if err != nil {
		t.Fatal(err)
	}
	return back.Base
}

func verify(t *testing.T, base, adapter fs.FS, p export.Provenance) export.Check {
	t.Helper()
	a, f := open(t, base, adapter)
	defer f.Close()
	c, err := a.Verify(p)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestVerify(t *testing.T) {
	r := load(t, "llama3")
	base := r.base(t)
	good := verify(t, base, r.adapter(t), export.Provenance{Base: recordedBase(t, base)})
	if good.Base != "same" || len(good.Problems) > 0 || good.Modules != 6 || good.Targets != 6 || !(good.Effect.Least > 0.01 && good.Effect.Largest < 10 && good.Effect.Mean <= good.Effect.Largest) {
		t.Errorf("a good one: %+v", good)
	}
	if c := verify(t, base, r.adapter(t), export.Provenance{}); c.Base != "unknown" || len(c.Problems) > 0 {
		t.Errorf("somebody else's: %+v", c)
	}
	if c := verify(t, base, r.adapter(t), export.Provenance{Base: "00"}); c.Base != "another" || len(c.Problems) != 1 {
		t.Errorf("another base: %+v", c)
	}
}

func TestVerifyFindsDamage(t *testing.T) {
	r := load(t, "llama3")
	damaged := func(change func([]safetensors.Tensor) []safetensors.Tensor) export.Check {
		t.Helper()
		adapter := folder(t, "adapter_model.safetensors", change(r.tensors(t, "adapter/")), "adapter_config.json", r.Adapter)
		return verify(t, r.base(t), adapter, export.Provenance{})
	}
	zero := damaged(func(ts []safetensors.Tensor) []safetensors.Tensor {
		for _, x := range ts {
			if strings.Contains(x.Name, "lora_B") {
				clear(x.Data)
			}
		}
		return ts
	})
	if len(zero.Inert) != 6 || !strings.Contains(strings.Join(zero.Problems, " "), "changes nothing") {
		t.Errorf("untrained: %+v", zero)
	}
	nan := damaged(func(ts []safetensors.Tensor) []safetensors.Tensor { ts[0].Data[0] = float32(math.NaN()); return ts })
	if len(nan.Broken) != 1 || len(nan.Problems) != 1 {
		t.Errorf("NaN: %+v", nan)
	}
	part := damaged(func(ts []safetensors.Tensor) []safetensors.Tensor {
		return slices.DeleteFunc(ts, func(x safetensors.Tensor) bool { return strings.Contains(x.Name, "layers.1.mlp") })
	})
	if !slices.Equal(part.Missing, []string{"model.layers.1.mlp.down_proj"}) || len(part.Problems) != 1 {
		t.Errorf("a layer missing: %+v", part)
	}
}

func hexOf(b [32]byte) string {
	const digits = "0123456789abcdef"
	var s strings.Builder
	for _, x := range b {
		s.WriteByte(digits[x>>4])
		s.WriteByte(digits[x&15])
	}
	return s.String()
}

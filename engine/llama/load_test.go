package llama_test

import (
	"errors"
	"os"
	"strings"
	"testing"

	"lorad/engine"
	"lorad/engine/cpu"
	"lorad/engine/kernel"
	"lorad/engine/llama"
	"lorad/model"
)

// inMemory hides that weights are stored: they are loaded as whole tensors.
type inMemory struct{ llama.Weights }

type unreadable struct{ *model.Folder }

func (unreadable) Read(string, int, []float32) error { return errors.New("the disk is gone") }

// TestStreamedWeights: a model that is read piece by piece is the one that is read whole, and a read error is not overlooked.
func TestStreamedWeights(t *testing.T) {
	folder, err := model.Open(os.DirFS("testdata/qlora/base"))
	if err != nil {
		t.Fatal(err)
	}
	defer folder.Close()
	cfg := folder.Config()
	b := examples(cfg.VocabSize, 9, 20)
	for _, p := range []kernel.Precision{kernel.F32, kernel.BF16} {
		ad := llama.Adapter{LoRA: allLinear(0), Precision: p}
		streamed := mustNew(t, cfg, folder, ad, cpu.New(1))
		whole := mustNew(t, cfg, inMemory{folder}, ad, cpu.New(1))
		stir(streamed)
		stir(whole)
		if !sameBits(gradient(t, streamed, b, engine.Key{}), gradient(t, whole, b, engine.Key{})) {
			t.Errorf("%s: weights read piece by piece give other bits", p)
		}
		if _, err := llama.New(cfg, unreadable{folder}, ad, cpu.New(1)); err == nil || !strings.Contains(err.Error(), "the disk is gone") {
			t.Errorf("%s: with a broken disk: %v", p, err)
		}
	}
}

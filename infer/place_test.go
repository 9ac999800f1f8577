package infer_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"math"
	"strings"
	"testing"
	"testing/fstest"

	"lorad/data"
	"lorad/embedded"
	"lorad/engine"
	"lorad/engine/cuda/device"
	"lorad/engine/cuda/gputest"
	"lorad/engine/lora"
	"lorad/infer"
	"lorad/model"
	"lorad/model/safetensors"
)

// wideBase is a random model with heads that GPUs have kernels for, and the embedded model's tokenizer.
func wideBase(t *testing.T) fstest.MapFS {
	t.Helper()
	folder, err := model.Open(embedded.Base())
	if err != nil {
		t.Fatal(err)
	}
	defer folder.Close()
	text, err := json.Marshal(map[string]any{
		"model_type": "llama", "vocab_size": folder.Config().VocabSize, "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 1,
		"num_key_value_heads": 1, "head_dim": 64, "rms_norm_eps": 1e-5, "rope_theta": 10000, "max_position_embeddings": 512, "hidden_act": "silu",
		"tie_word_embeddings": true, "eos_token_id": folder.Config().EOS, "bos_token_id": folder.Config().BOS, "pad_token_id": folder.Config().Pad,
	})
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := model.ReadConfig(text)
	if err != nil {
		t.Fatal(err)
	}
	var all []safetensors.Tensor
	for _, s := range cfg.Tensors() {
		x := make([]float32, (engine.Tensor{Shape: s.Shape}).Len())
		lora.InitNormal(x, 0.3, 1, s.Name)
		all = append(all, safetensors.Tensor{Name: s.Name, Shape: s.Shape, Data: x, DType: safetensors.BF16})
	}
	var weights bytes.Buffer
	if err := safetensors.Write(&weights, all, nil); err != nil {
		t.Fatal(err)
	}
	out := fstest.MapFS{"config.json": {Data: text}, "model.safetensors": {Data: weights.Bytes()}}
	for _, name := range []string{"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"} {
		file, err := fs.ReadFile(embedded.Base(), name)
		if err != nil {
			t.Fatal(err)
		}
		out[name] = &fstest.MapFile{Data: file}
	}
	return out
}

// TestOnGPU holds what a model says on a GPU to what it says on the processor.
func TestOnGPU(t *testing.T) {
	opener, base := gputest.Open(t, 0), wideBase(t)
	gpus := func() ([]infer.GPU, error) {
		broken := infer.GPU{Name: "GPU 1", Free: 2, Open: func() (device.Device, error) { return nil, errors.New("fell off the bus") }}
		return []infer.GPU{{Name: "GPU 0", Free: 1, Open: opener}, broken}, nil
	}
	var losses [2]float64
	var texts [2][]string
	for i, how := range []infer.Options{{GPUs: gpus}, {GPUs: gpus, Device: infer.CPU, DType: infer.BF16}} {
		m, err := infer.Open(base, nil, how)
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		if want := []string{"GPU 0, in bf16", "the processor, in bf16"}[i]; m.Place().String() != want || m.Place().Why != nil {
			t.Errorf("it computes on %s (%v), not on %s", m.Place(), m.Place().Why, want)
		}
		set, err := m.Examples([]data.Source{lines(`{"prompt":"One and","completion":" two is three"}` + "\n" + `{"prompt":"Q","completion":" A"}`)}, data.Options{})
		if err != nil {
			t.Fatal(err)
		}
		each, err := m.Losses(set.Train)
		if err != nil {
			t.Fatal(err)
		}
		losses[i] = each[0] + each[1]
		if texts[i], err = m.Answers(set.Train, engine.Sampling{MaxNew: 3}); err != nil {
			t.Fatal(err)
		}
	}
	if math.Abs(losses[0]-losses[1]) > 5e-3*losses[1] || strings.Join(texts[0], "|") != strings.Join(texts[1], "|") {
		t.Errorf("on the GPU losses of %v and %q, on the processor %v and %q", losses[0], texts[0], losses[1], texts[1])
	}
}

// TestPlaces is where a model goes if a GPU cannot take it.
func TestPlaces(t *testing.T) {
	none := func() ([]infer.GPU, error) { return nil, errors.New("no driver") }
	full := func() ([]infer.GPU, error) {
		return []infer.GPU{{Name: "GPU 0", Open: func() (device.Device, error) { return nil, errors.New("full") }}}, nil
	}
	base := wideBase(t)
	for _, c := range []struct {
		how  infer.Options
		says string
	}{
		{infer.Options{GPUs: none}, "no driver"},
		{infer.Options{GPUs: full}, "GPU 0: full"},
		{infer.Options{GPUs: full, DType: infer.F32}, "dtype: bf16"},
		{infer.Options{GPUs: func() ([]infer.GPU, error) { return nil, nil }}, "no GPU"},
	} {
		m, err := infer.Open(base, nil, c.how)
		if err != nil {
			t.Fatal(err)
		}
		if p := m.Place(); p.Device != infer.CPU || p.DType.String() != "f32" || !strings.Contains(p.Why.Error(), c.says) {
			t.Errorf("on %v, because of %v: want it to say %s", p, p.Why, c.says)
		}
		c.how.Device = infer.CUDA
		if _, err := infer.Open(base, nil, c.how); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%v, want it to say %s", err, c.says)
		}
	}
	if _, err := infer.Open(base, nil, infer.Options{Device: "tpu"}); err == nil || !strings.Contains(err.Error(), "tpu") {
		t.Error(err)
	}
}

func lines(text string) data.Source {
	return data.Source{Name: "lines", Open: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(text)), nil }}
}

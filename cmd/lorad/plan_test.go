package main

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"lorad/embedded"
	"lorad/internal/bench"
	"lorad/model"
	"lorad/model/safetensors"
)

// planShare is how far the planned peak may be from the largest resident set of the process that then trains.
const planShare = 0.05

// What lorad plan says is what lorad train then takes, for a small model, where the program is most of it, and for a large one, where it is not.
func TestPlanIsWhatIsMeasured(t *testing.T) {
	if _, err := os.Stat("/proc/self/status"); err != nil {
		t.Skip("no /proc: nothing says how large a process was at most")
	}
	t.Run("embedded", func(t *testing.T) {
		comparePlan(t, layLegal(t, "max_steps: 20\n"))
	})
	t.Run("llama", func(t *testing.T) {
		dir := layLegal(t, "max_steps: 2\nmicro_batch_size: 4\nglobal_batch_size: 4\n")
		layLlama(t, filepath.Join(dir, "base"))
		comparePlan(t, dir)
	})
}

func comparePlan(t *testing.T, dir string) {
	t.Helper()
	cmd, out := lorad(t, dir, "plan", "job.yaml", "-o", "json")
	if err := cmd.Wait(); err != nil {
		t.Fatalf("plan: %v\n%s", err, out)
	}
	var p planned
	if err := json.Unmarshal(out.Bytes(), &p); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	cmd, out = lorad(t, dir, "train", "job.yaml")
	peak := watchPeak(cmd.Process.Pid)
	if err := cmd.Wait(); err != nil {
		t.Fatalf("train: %v\n%s", err, out)
	}
	want, got := float64(p.Nodes[0].Bytes.Peak), <-peak
	t.Logf("planned %.1f MB, measured %.1f MB", want/1e6, got/1e6)
	if math.Abs(got-want) > planShare*want {
		t.Errorf("planned %.1f MB, measured %.1f MB: %+v", want/1e6, got/1e6, p.Nodes[0].Bytes)
	}
}

// watchPeak gives the largest resident set of a process once it is gone.
func watchPeak(pid int) <-chan float64 {
	peak := make(chan float64, 1)
	go func() {
		kib := 0.0
		for {
			text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
			at := strings.Index(string(text), "VmHWM:")
			if err != nil || at < 0 {
				peak <- kib * 1024
				return
			}
			fmt.Sscanf(string(text[at:]), "VmHWM: %f", &kib)
			time.Sleep(20 * time.Millisecond)
		}
	}()
	return peak
}

// layLegal lays the demo's job, with more keys, into a new folder.
func layLegal(t *testing.T, more string) string {
	t.Helper()
	dir := t.TempDir()
	if _, err := (demoCmd{}).lay(dir); err != nil { // base/ and the data
		t.Fatal(err)
	}
	text := embedded.JobYAML()
	for line := range strings.Lines(more) {
		key, _, _ := strings.Cut(line, ":")
		if at := strings.Index(text, "\n"+key+":"); at >= 0 {
			end := at + 1 + strings.IndexByte(text[at+1:], '\n')
			text = text[:at] + text[end:]
		}
	}
	few := slices.Collect(strings.Lines(string(embedded.LegalHeldout())))[:4] // evaluation is most of a short run
	for name, text := range map[string]string{"job.yaml": text + more, "legal-heldout.jsonl": strings.Join(few, "")} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// layLlama replaces a folder's model by two layers in TinyLlama's shape, with the embedded tokenizer and random weights.
func layLlama(t *testing.T, dir string) {
	t.Helper()
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	cfg := bench.LlamaConfig()
	cfg.NumLayers, cfg.VocabSize = 2, 2048
	var tensors []safetensors.Tensor
	for _, spec := range cfg.Tensors() {
		data, shape, err := bench.Random{Config: cfg}.Tensor(spec.Name)
		if err != nil {
			t.Fatal(err)
		}
		tensors = append(tensors, safetensors.Tensor{Name: spec.Name, Shape: shape, Data: data, DType: safetensors.BF16})
	}
	if err := model.WriteFolder(dir, cfg, tensors, embedded.Base()); err != nil {
		t.Fatal(err)
	}
	writeConfig(t, dir, cfg)
}

func writeConfig(t *testing.T, dir string, cfg model.Config) {
	t.Helper()
	text, err := cfg.JSON()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), text, 0o644); err != nil {
		t.Fatal(err)
	}
}

// A folder with nothing but a config.json can be planned for.
func TestPlanNeedsNoWeights(t *testing.T) {
	dir := layLegal(t, "base_model: big\n")
	if err := os.Mkdir(filepath.Join(dir, "big"), 0o755); err != nil {
		t.Fatal(err)
	}
	cfg := bench.LlamaConfig()
	cfg.NumLayers = 22
	writeConfig(t, filepath.Join(dir, "big"), cfg)
	cmd, out := lorad(t, dir, "plan", "job.yaml", "-o", "json")
	var p planned
	if err := cmd.Wait(); err != nil || json.Unmarshal(out.Bytes(), &p) != nil {
		t.Fatalf("plan: %v\n%s", err, out)
	}
	if p.Parameters != 1_100_048_384 || p.Trainable != 12_615_680 || p.Looked || p.Rows != 4*256 || p.Nodes[0].Bytes.Layers != 22 {
		t.Errorf("TinyLlama 1.1B, r = 16, 4 x 256 tokens: %+v", p)
	}
	cmd, out = lorad(t, dir, "plan", "job.yaml")
	if err := cmd.Wait(); err != nil || !strings.HasPrefix(out.String(), "1100.0 M parameters, 12.62 M of them trained (1.15%)\n") {
		t.Errorf("%v\n%s", err, out)
	}
}

// For a GPU of 6 GB, TinyLlama 1.1B in NF4 with 4 x 2048 tokens is planned for, and what a GPU does not compute is said.
func TestPlanForAGPU(t *testing.T) {
	dir := layLegal(t, "base_model: big\nload_in_4bit: true\nbnb_4bit_compute_dtype: bf16\nmicro_batch_size: 4\nsequence_len: 2048\n")
	if err := os.Mkdir(filepath.Join(dir, "big"), 0o755); err != nil {
		t.Fatal(err)
	}
	cfg := bench.LlamaConfig()
	cfg.NumLayers = 22
	writeConfig(t, filepath.Join(dir, "big"), cfg)
	plan := func() gpuMemory {
		cmd, out := lorad(t, dir, "plan", "job.yaml", "-o", "json", "--gpu-memory", "6")
		var p planned
		if err := cmd.Wait(); err != nil || json.Unmarshal(out.Bytes(), &p) != nil || p.GPU == nil {
			t.Fatalf("plan: %v\n%s", err, out)
		}
		return *p.GPU
	}
	if g := plan(); !g.Fits || g.Bytes.Peak > 6e9 || g.Bytes.Peak < 5e9 || g.Bytes.Recompute == 0 {
		t.Errorf("%+v", g)
	}
	cfg.NumHeads, cfg.HeadDim = 64, 32
	writeConfig(t, filepath.Join(dir, "big"), cfg)
	if g := plan(); g.Fits || !strings.Contains(g.Why, "heads of 32") {
		t.Errorf("%+v", g)
	}
}

package infer_test

import (
	"bytes"
	"encoding/json"
	"io"
	"io/fs"
	"math"
	"strings"
	"testing"
	"testing/fstest"

	"lorad/embedded"
	"lorad/engine"
	"lorad/engine/cpu"
	"lorad/engine/kernel"
	"lorad/engine/llama"
	"lorad/eval"
	"lorad/infer"
	"lorad/internal/world"
	"lorad/model"
)

// heldOut is a seed of the general world that nothing was trained on.
const heldOut = 2

func open(t *testing.T, adapter fs.FS) *infer.Model {
	t.Helper()
	m, err := infer.Open(embedded.Base(), adapter, infer.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// What docs/benchmarks.md says of the embedded base; -v prints the figures.
func TestEmbeddedBase(t *testing.T) {
	m := open(t, nil)
	var general, asked bytes.Buffer
	var questions, answers []string
	for doc := range world.General(heldOut, 500) {
		line(t, &general, map[string]string{"text": doc})
		given, rest, ok := strings.Cut(doc, "\n")
		if ok {
			line(t, &asked, map[string]string{"prompt": given + "\n", "completion": rest})
		}
		if i := strings.Index(doc, "\nAnswer:"); i >= 0 && len(questions) < 300 {
			questions = append(questions, doc[:i+len("\nAnswer:")])
			answers = append(answers, eval.Answer(doc[i+len("\nAnswer:"):]))
		}
	}
	right := 0
	got, err := m.CompleteAll(questions, engine.Sampling{MaxNew: 24, Stop: lineFeed(t, m)})
	if err != nil {
		t.Fatal(err)
	}
	for i := range got {
		if eval.Answer(got[i]) == answers[i] {
			right++
		}
	}
	all, follows := perplexity(t, m, &general), perplexity(t, m, &asked)
	legal := perplexity(t, m, bytes.NewReader(embedded.LegalHeldout()))
	t.Logf("held-out perplexity: general documents %.2f, what follows from a text %.2f, legal answers %.1f", all, follows, legal)
	t.Logf("%d of %d held-out general questions answered exactly", right, len(questions))
	if all > 7 || follows > 1.5 || right < len(questions)/2 {
		t.Error("the embedded base is worse than docs/benchmarks.md says")
	}
	if legal < 10 {
		t.Error("the base knows the legal domain already: what would the demo show?")
	}
}

func line(t *testing.T, w io.Writer, v any) {
	t.Helper()
	if err := json.NewEncoder(w).Encode(v); err != nil {
		t.Fatal(err)
	}
}

func perplexity(t *testing.T, m *infer.Model, jsonl io.Reader) float64 {
	t.Helper()
	p, err := m.Perplexity(jsonl)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func lineFeed(t *testing.T, m *infer.Model) []int32 {
	t.Helper()
	id, ok := m.Tokenizer.ID("\u010a")
	if !ok {
		t.Fatal("no line feed in the vocabulary")
	}
	return []int32{id}
}

// The second half of a roll call can be known from the first: the base has learnt to copy.
func TestEmbeddedBaseCopies(t *testing.T) {
	folder, err := model.Open(embedded.Base())
	if err != nil {
		t.Fatal(err)
	}
	tok, err := folder.Tokenizer()
	if err != nil {
		t.Fatal(err)
	}
	m, err := llama.New[float32](folder.Config(), folder, llama.Adapter{}, cpu.New(0))
	if err != nil {
		t.Fatal(err)
	}
	right, all, vocab := 0, 0, folder.Config().VocabSize
	for doc := range world.General(heldOut, 400) {
		first, second, ok := strings.Cut(doc, "\n")
		if !ok || !strings.HasPrefix(second, "Again: ") && !strings.HasPrefix(second, "Once more: ") {
			continue
		}
		// The header and the first name of the repetition are free choices; the rest is not.
		ids := tok.Encode(doc, true)
		from := len(tok.Encode(first+"\n"+second[:strings.Index(second, ",")], true))
		logits, err := m.Logits(ids)
		if err != nil {
			t.Fatal(err)
		}
		for i := from; i < len(ids); i++ {
			if argmax(logits[(i-1)*vocab:i*vocab]) == int(ids[i]) {
				right++
			}
			all++
		}
	}
	t.Logf("%d of %d tokens of held-out roll calls", right, all)
	if all < 300 || float64(right) < 0.97*float64(all) {
		t.Errorf("%d of %d", right, all)
	}
}

func argmax(x []float32) int {
	best := 0
	for i, v := range x {
		if v > x[best] {
			best = i
		}
	}
	return best
}

func TestOpenSaysWhatIsMissing(t *testing.T) {
	if _, err := infer.Open(embedded.Base(), fs.FS(nothing{}), infer.Options{Threads: 1}); err == nil || !strings.Contains(err.Error(), "adapter: ") {
		t.Errorf("got %v", err)
	}
	if _, err := infer.Open(nothing{}, nil, infer.Options{Threads: 1}); err == nil || !strings.Contains(err.Error(), "base model: ") {
		t.Errorf("got %v", err)
	}
}

type nothing struct{}

func (nothing) Open(name string) (fs.File, error) {
	return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
}

// An adapter says in which type it was trained; asked for it, the model computes so, and nearly the same.
func TestDType(t *testing.T) {
	trained := fstest.MapFS{"lorad.json": {Data: []byte(`{"version": 1, "compute_dtype": "bf16"}`)}}
	for _, c := range []struct {
		dtype   string
		adapter fs.FS
		want    kernel.Precision
	}{{"", nil, kernel.F32}, {infer.BF16, nil, kernel.BF16}, {infer.Trained, nil, kernel.F32}, {infer.Trained, fstest.MapFS{}, kernel.F32},
		{infer.Trained, trained, kernel.BF16}, {infer.F32, trained, kernel.F32}} {
		if got, err := infer.DTypeOf(c.dtype, c.adapter); err != nil || got != c.want {
			t.Errorf("%q: %v, %v; want %v", c.dtype, got, err, c.want)
		}
	}
	if _, err := infer.DTypeOf("f16", nil); err == nil || !strings.Contains(err.Error(), "trained") {
		t.Errorf("f16: %v", err)
	}
	record := `{"prompt": "Story: Mira sold a cart to Elra.\nQuestion: Who is the buyer?\nAnswer:", "completion": " The buyer is Elra."}` + "\n"
	var perplexity [2]float64
	for i, dtype := range []string{infer.F32, infer.BF16} {
		m, err := infer.Open(embedded.Base(), nil, infer.Options{Threads: 1, DType: dtype})
		if err != nil {
			t.Fatal(err)
		}
		if perplexity[i], err = m.Perplexity(strings.NewReader(record)); err != nil {
			t.Fatal(err)
		}
	}
	if perplexity[0] == perplexity[1] || math.Abs(perplexity[0]/perplexity[1]-1) > 0.05 {
		t.Errorf("perplexity %v in f32 and in bf16", perplexity)
	}
}

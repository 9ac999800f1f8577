// Package llama is the training maths of Llama-architecture models: forward, backward, and generation.
//
// It is written once, generic over float32 and float64: float32 trains, and float64 with the reference operations checks the
// backward pass against central differences, through the very same lines. There is no tape and no graph: the backward pass is
// the forward pass read upwards, with the activations that it needs kept per layer.
//
// Batches are ragged (engine.Batch): all rows of all sequences are concatenated, so every matrix product sees one tall matrix and
// nothing is spent on padding; only RoPE and attention know where sequences begin. The output head sees labelled rows only, and
// never more than a few megabytes of logits at a time.
//
// Nothing that is not needed is computed: frozen weights get no gradient, and the backward pass ends at the lowest trainable layer.
// Activations of layers below it share one set of buffers. Buffers are taken at once for batches of a size that is known
// (Prepare, after what Measure has counted), or grow to the largest batch seen. As many layers as activations find no room for keep only their
// input and compute the rest again in the backward pass: a third more work for each, the same bits.
//
// Generation takes many prompts at a time: in each pass every sequence brings what is new of it. Products of few rows give each row the bits
// that it has among many, so what a prompt is continued with does not depend on its company.
//
// Determinism: work is cut into pieces by fixed sizes (64 rows; one sequence and key-value head), never by the number of threads, and
// partial sums are added in the order of the pieces. Sources of the formulas: Hugging Face's modeling_llama.py and PEFT's
// LoRA layer, which the tests compare with.
package llama

import (
	"errors"
	"fmt"
	"unsafe"

	"lorad/engine"
	"lorad/engine/kernel"
	"lorad/model"
	"lorad/model/peft"
)

// Weights is where frozen and initial values come from, by Hugging Face's names (model.layers.0.self_attn.q_proj.weight).
// A tensor that does not exist is an error for which errors.Is(err, fs.ErrNotExist) holds.
type Weights interface {
	Tensor(name string) (data []float32, shape []int, err error)
}

// Adapter says what is trained. With neither Full nor LoRA nothing is, and the model only evaluates.
type Adapter struct {
	Full bool                 // all weights are trainable
	LoRA *peft.LoraConfig     // or: low-rank adapters
	Init map[string][]float32 // initial values by tensor name, in place of random ones (or of Weights, with Full)
	Seed uint64               // of initial values

	NEFTune float64 // noise on the embeddings in training: alpha of NEFTune; 0 = none

	Precision kernel.Precision // of products with frozen weights
	FourBit   *FourBit         // quantise the frozen base while it is loaded; Weights must be Stored
}

// Model is a network, its trainable parameters, and the buffers of its steps. It is not safe for concurrent use.
type Model[T kernel.Float] struct {
	cfg     model.Config
	ops     kernel.Ops[T]
	layout  []engine.Tensor
	params  []T
	initial []T // PiSSA's

	embed  weight[T]        // [vocab, hidden]; no data if the table has it
	table  kernel.Frozen[T] // a frozen embedding that is compact, or the head as well
	layers []layer[T]
	norm   weight[T] // [hidden]
	head   linear[T] // its weight is embed's when tied

	lowest  int     // the lowest layer with a trainable tensor; 0 if the embedding is trainable, NumLayers if no layer has one
	dropout float64 // on the input of lora_A
	noise   float64 // NEFTune's alpha
	rank    int     // the largest of any adapter
	dora    bool    // adapters have magnitudes
	stale   bool    // the parameters have changed since what follows from them was worked out: the norms of DoRA, plusOne
	plusOne []*weight[T]
	sites   int // adapters

	rope     rope[T]
	slide    rope[T] // of sliding layers
	buf      buffers[T]
	budget   int64 // bytes of activations to keep
	leanFrom int   // see the constant
	exact    bool  // Prepare has said how large batches get
	count    *int64
	free     scratch[T]

	profile *Profile // nil: nobody asks
}

var _ engine.Trainer = (*Model[float32])(nil)

// layer is one decoder block.
type layer[T kernel.Float] struct {
	norm1, norm2   weight[T]
	q, k, v, o     linear[T]
	gate, up, down linear[T]

	// what only some families have
	qkv, gateUp   linear[T] // instead of q, k, v and of gate, up
	qNorm, kNorm  weight[T] // [headDim]
	postAttention weight[T] // norms of attention's and the MLP's output
	postMLP       weight[T]
	window        int // 0: attention sees everything before
	rope          *rope[T]
}

// New builds a model. Weights of a frozen model must all exist. With Adapter.Full, and no weight at all in w (or w nil), they start
// as N(0, 0.02^2) and norms as 1; some but not all missing is an error, for that is a damaged checkpoint.
func New[T kernel.Float](cfg model.Config, w Weights, ad Adapter, ops kernel.Ops[T]) (*Model[T], error) {
	m, err := shell(cfg, ad, ops)
	if err != nil {
		return nil, err
	}
	m.noise = ad.NEFTune
	b := builder[T]{m: m, from: w, ad: ad}
	if err := b.build(); err != nil {
		return nil, err
	}
	m.lowest, m.sites, m.stale = m.lowestTrainable(), b.targets, true
	if _, ok := b.pissa(); ok {
		m.initial = b.initial()
	}
	return m, nil
}

// shell is a model without weights.
func shell[T kernel.Float](cfg model.Config, ad Adapter, ops kernel.Ops[T]) (*Model[T], error) {
	if err := check(cfg, ad); err != nil {
		return nil, err
	}
	m := &Model[T]{cfg: cfg, ops: ops, budget: activationBudget, leanFrom: leanFrom, layers: make([]layer[T], cfg.NumLayers)}
	if err := m.positions(); err != nil {
		return nil, err
	}
	if ad.LoRA != nil {
		m.rank, m.dropout, m.dora = ad.LoRA.MaxRank(), ad.LoRA.Dropout, ad.LoRA.UseDoRA
	}
	return m, nil
}

func check(cfg model.Config, ad Adapter) error {
	bad := func(what string, v any) error {
		return fmt.Errorf("llama: config: %s is %v; fix the model's config.json", what, v)
	}
	switch {
	case cfg.NumLayers < 1 || cfg.NumLayers > 1<<12:
		return bad("num_hidden_layers", cfg.NumLayers)
	case cfg.HiddenSize < 1 || cfg.IntermediateSize < 1 || cfg.VocabSize < 1:
		return bad("hidden, intermediate or vocabulary size", []int{cfg.HiddenSize, cfg.IntermediateSize, cfg.VocabSize})
	case cfg.NumHeads < 1 || cfg.NumKVHeads < 1 || cfg.NumHeads%cfg.NumKVHeads != 0:
		return bad("num_attention_heads, num_key_value_heads", []int{cfg.NumHeads, cfg.NumKVHeads})
	case cfg.HeadDim < 2 || cfg.HeadDim%2 != 0:
		return bad("head_dim", cfg.HeadDim)
	case !(cfg.RopeTheta > 0):
		return bad("rope_theta", cfg.RopeTheta)
	case ad.Full && (ad.FourBit != nil || cfg.FourBit):
		return fmt.Errorf("llama: adapter: weights in 4 bits cannot all be trained; use LoRA, or the 16-bit folder")
	case ad.Full && ad.Precision != kernel.F32:
		return fmt.Errorf("llama: adapter: trainable weights are multiplied in f32, not in %s; use LoRA", ad.Precision)
	case ad.Full && ad.LoRA != nil:
		return fmt.Errorf("llama: adapter: both full fine-tuning and LoRA are asked for; choose one")
	case ad.LoRA != nil:
		return errors.Join(ad.LoRA.Validate(), refusePiSSA(ad.LoRA, ad.FourBit != nil || cfg.FourBit, cfg.TieEmbeddings))
	}
	return nil
}

// Layout lists the trainable tensors in the order of their offsets: by layer, in the order of the forward pass, A before B.
func (m *Model[T]) Layout() []engine.Tensor { return m.layout }

// Params is the live flat vector of trainable parameters.
func (m *Model[T]) Params() []T { return m.params }

// Changed makes the next pass work out again what follows from the parameters. All products read Params directly.
func (m *Model[T]) Changed() { m.stale = true }

// Config is the shape of the model.
func (m *Model[T]) Config() model.Config { return m.cfg }

// BaseBytes is the memory that the frozen base takes: weights, tables, norms and biases.
func (m *Model[T]) BaseBytes() int64 {
	var n int64
	frozen := func(w kernel.Frozen[T]) {
		if w != nil {
			n += int64(w.Bytes())
		}
	}
	dense := func(w *weight[T]) {
		if w.off < 0 {
			n += int64(len(w.data)) * int64(unsafe.Sizeof(T(0)))
		}
	}
	if m.table != m.head.frozen {
		frozen(m.table)
	}
	dense(&m.embed)
	dense(&m.norm)
	frozen(m.head.frozen)
	for i := range m.layers {
		l := &m.layers[i]
		for _, w := range []*weight[T]{&l.norm1, &l.norm2, &l.qNorm, &l.kNorm, &l.postAttention, &l.postMLP} {
			dense(w)
		}
		for _, p := range l.linears() {
			frozen(p.frozen)
			dense(&p.bias)
		}
	}
	return n
}

func (l *layer[T]) linears() []*linear[T] {
	return []*linear[T]{&l.q, &l.k, &l.v, &l.qkv, &l.o, &l.gate, &l.up, &l.gateUp, &l.down}
}

func (m *Model[T]) lowestTrainable() int {
	if m.embed.trainable() {
		return 0
	}
	for i := range m.layers {
		if m.layers[i].attnTrainable() || m.layers[i].mlpTrainable() {
			return i
		}
	}
	return len(m.layers)
}

func (l *layer[T]) attnTrainable() bool {
	return l.norm1.trainable() || l.qkvTrainable() || l.o.trainable() || l.postAttention.trainable()
}

func (l *layer[T]) qkvTrainable() bool {
	return l.q.trainable() || l.k.trainable() || l.v.trainable() || l.qkv.trainable() || l.qNorm.trainable() || l.kNorm.trainable()
}

func (l *layer[T]) mlpTrainable() bool {
	return l.norm2.trainable() || l.gateTrainable() || l.down.trainable() || l.postMLP.trainable()
}

func (l *layer[T]) gateTrainable() bool {
	return l.gate.trainable() || l.up.trainable() || l.gateUp.trainable()
}

func (m *Model[T]) eachAdapter(f func(*linear[T])) {
	for i := range m.layers {
		for _, p := range m.layers[i].linears() {
			if p.a.data != nil {
				f(p)
			}
		}
	}
	if m.head.a.data != nil {
		f(&m.head)
	}
}

package llama

import (
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"lorad/engine"
	"lorad/engine/kernel"
	"lorad/engine/lora"
	"lorad/model/peft"
)

// builder fills a model in two passes over the same walk: declare lists the trainable tensors, bind gives them their place in
// the flat vector and every tensor its values. Two, because the flat vector must be one allocation.
type builder[T kernel.Float] struct {
	m       *Model[T]
	from    Weights
	ad      Adapter
	size    int
	targets int
	used    int // entries of ad.Init
	found   int
	missing []string
	values  []func()
	err     error

	saved map[string]bool // modules_to_save that name something

	packer Packer
}

func (b *builder[T]) build() error {
	if err := b.declare(); err != nil {
		return err
	}
	if err := b.bind(); err != nil {
		return err
	}
	if len(b.missing) > 0 && (!b.ad.Full || b.found > 0) {
		return fmt.Errorf("llama: weights: %d tensors are missing, the first is %s: %w; copy the complete model folder",
			len(b.missing), b.missing[0], fs.ErrNotExist)
	}
	return nil
}

// bind makes the flat vector and gives everything its values.
func (b *builder[T]) bind() error {
	b.m.params = make([]T, b.size)
	for _, set := range b.values {
		set()
	}
	switch {
	case b.err != nil:
		return b.err
	case b.used < len(b.ad.Init):
		return fmt.Errorf("llama: adapter: initial values for %s, which is not trained here; match target_modules with the adapter's", b.stray())
	}
	return nil
}

// declare is the walk, and the judgement of what the adapter asks for.
func (b *builder[T]) declare() error {
	if err := b.refuse(); err != nil {
		return err
	}
	b.saved = map[string]bool{}
	b.walk()
	if b.ad.LoRA != nil && b.targets == 0 {
		return fmt.Errorf("llama: adapter: target_modules %v%s match no linear layer; use names such as q_proj, v_proj, or all-linear",
			b.ad.LoRA.TargetModules, b.ad.LoRA.TargetRegex)
	}
	return b.checkSaved()
}

// refuse stops adapters on the embedding, which are stored and computed differently, and training what others share or compute with.
func (b *builder[T]) refuse() error {
	c, cfg := b.ad.LoRA, b.m.cfg
	switch {
	case c == nil:
		return nil
	case cfg.TieEmbeddings && (c.Saved("model.embed_tokens") || c.Saved("lm_head")):
		return fmt.Errorf("llama: adapter: modules_to_save %v: the embedding and the head of this model are one tensor, and PEFT would train a copy that "+
			"unties them: not supported; name other modules", c.ModulesToSave)
	case len(c.TargetModules) == 1 && strings.EqualFold(c.TargetModules[0], peft.AllLinear):
		return nil
	case c.Match("model.embed_tokens"):
		return fmt.Errorf("llama: adapter: target_modules match the embedding model.embed_tokens: not supported; name linear layers only")
	}
	return nil
}

// pissa says whether adapters start from the principal components of their weights.
func (b *builder[T]) pissa() (rounds int, ok bool) {
	if b.ad.LoRA == nil {
		return 0, false
	}
	return b.ad.LoRA.PiSSA()
}

// checkSaved refuses a name in modules_to_save that names nothing here: a whole block, or a mistake.
func (b *builder[T]) checkSaved() error {
	if b.ad.LoRA == nil {
		return nil
	}
	for _, m := range b.ad.LoRA.ModulesToSave {
		if !b.saved[m] {
			return fmt.Errorf("llama: adapter: modules_to_save: %s is no embedding, norm or linear layer of this model; name those, e.g. lm_head", m)
		}
	}
	return nil
}

func (b *builder[T]) walk() {
	m, c := b.m, b.m.cfg
	qd, kvd := c.NumHeads*c.HeadDim, c.NumKVHeads*c.HeadDim
	b.embedding()
	for i := range m.layers {
		l, p := &m.layers[i], fmt.Sprintf("model.layers.%d.", i)
		b.norm(&l.norm1, p+"input_layernorm", c.HiddenSize)
		if c.Fused {
			b.linear(&l.qkv, p+"self_attn.qkv_proj", qd+2*kvd, c.HiddenSize, c.QKVBias)
		} else {
			b.linear(&l.q, p+"self_attn.q_proj", qd, c.HiddenSize, c.QKVBias)
			b.linear(&l.k, p+"self_attn.k_proj", kvd, c.HiddenSize, c.QKVBias)
			b.linear(&l.v, p+"self_attn.v_proj", kvd, c.HiddenSize, c.QKVBias)
		}
		if c.QKNorm {
			b.norm(&l.qNorm, p+"self_attn.q_norm", c.HeadDim)
			b.norm(&l.kNorm, p+"self_attn.k_norm", c.HeadDim)
		}
		b.linear(&l.o, p+"self_attn.o_proj", c.HiddenSize, qd, c.OutBias)
		b.norms(l, p)
		if c.Fused {
			b.linear(&l.gateUp, p+"mlp.gate_up_proj", 2*c.IntermediateSize, c.HiddenSize, c.MLPBias)
		} else {
			b.linear(&l.gate, p+"mlp.gate_proj", c.IntermediateSize, c.HiddenSize, c.MLPBias)
			b.linear(&l.up, p+"mlp.up_proj", c.IntermediateSize, c.HiddenSize, c.MLPBias)
		}
		b.linear(&l.down, p+"mlp.down_proj", c.HiddenSize, c.IntermediateSize, c.MLPBias)
	}
	b.norm(&m.norm, "model.norm", c.HiddenSize)
	m.head.in, m.head.out = c.HiddenSize, c.VocabSize
	if !c.TieEmbeddings {
		b.weight(&m.head, "lm_head.weight")
	} else {
		b.values = append(b.values, b.tie)
	}
	b.adapter(&m.head, "lm_head")
}

// norms declares the norm before the MLP, and those after attention and the MLP where there are any. Gemma calls the one after attention what the
// others call the one before the MLP.
func (b *builder[T]) norms(l *layer[T], p string) {
	h := b.m.cfg.HiddenSize
	if !b.m.cfg.PostNorms {
		b.norm(&l.norm2, p+"post_attention_layernorm", h)
		return
	}
	b.norm(&l.postAttention, p+"post_attention_layernorm", h)
	b.norm(&l.norm2, p+"pre_feedforward_layernorm", h)
	b.norm(&l.postMLP, p+"post_feedforward_layernorm", h)
}

// norm declares the weight of an RMSNorm. Where the model multiplies by 1 + weight, a frozen one is kept as that sum.
func (b *builder[T]) norm(w *weight[T], module string, n int) {
	b.tensor(w, module+".weight", n)
	if !b.m.cfg.NormPlusOne {
		return
	}
	b.values = append(b.values, func() {
		if w.trainable() {
			w.plus = make([]T, n)
			b.m.plusOne = append(b.m.plusOne, w)
			return
		}
		w.data = slices.Clone(w.data)
		for i := range w.data {
			w.data[i]++
		}
	})
}

// embedding declares the table of tokens.
func (b *builder[T]) embedding() {
	m, c := b.m, b.m.cfg
	if _, ok := b.trained(embedName); ok {
		b.tensor(&m.embed, embedName, c.VocabSize, c.HiddenSize)
		return
	}
	m.embed.off = -1
	b.values = append(b.values, func() {
		if c.TieEmbeddings {
			return // tie loads it
		}
		if m.table = b.compact(embedName, c.VocabSize, c.HiddenSize); m.table == nil {
			b.untied(c.VocabSize, c.HiddenSize)
		}
	})
}

// trained says whether a tensor of the base model is trained itself, and under which name: all are with Full, and those of modules that
// LoRA's modules_to_save names.
func (b *builder[T]) trained(name string) (string, bool) {
	if b.ad.Full {
		return name, true
	}
	module := name[:strings.LastIndexByte(name, '.')]
	if b.ad.LoRA == nil || !b.ad.LoRA.Saved(module) {
		return "", false
	}
	for _, m := range b.ad.LoRA.ModulesToSave {
		if strings.HasSuffix(module, m) {
			b.saved[m] = true
		}
	}
	return peft.SavedName(name), true
}

// tie makes the embedding the head. A frozen one is kept once, as the head's products want it.
func (b *builder[T]) tie() {
	m := b.m
	m.head.w = m.embed
	if m.embed.off < 0 {
		m.table = b.frozen(embedName, m.head.out, m.head.in)
		m.head.frozen = m.table
	}
}

// weight declares the matrix of a linear layer.
func (b *builder[T]) weight(l *linear[T], name string) {
	if _, ok := b.trained(name); ok {
		b.tensor(&l.w, name, l.out, l.in)
		return
	}
	l.w.off = -1
	b.values = append(b.values, func() {
		if rounds, ok := b.pissa(); ok && l.rank > 0 {
			l.frozen = b.principal(l, name, rounds)
		} else {
			l.frozen = b.frozen(name, l.out, l.in)
		}
	})
}

func (b *builder[T]) linear(l *linear[T], module string, out, in int, bias bool) {
	l.in, l.out = in, out
	b.weight(l, module+".weight")
	if bias {
		b.bias(l, module)
	}
	b.adapter(l, module)
}

// bias declares the bias of a linear layer. With bias: lora_only those of adapted layers are trained.
func (b *builder[T]) bias(l *linear[T], module string) {
	name := module + ".bias"
	if c := b.ad.LoRA; c == nil || c.Bias != peft.BiasLoraOnly || !c.Match(module) {
		b.tensor(&l.bias, name, l.out)
		return
	}
	b.train(&l.bias, peft.BiasName(module), func(p []T) { copy(p, b.read(name, []int{l.out})) }, l.out)
}

// adapter declares what is trained of a module that the configuration matches.
func (b *builder[T]) adapter(l *linear[T], module string) {
	l.site = b.targets
	if b.ad.LoRA == nil || !b.ad.LoRA.Match(module) {
		return
	}
	b.targets++
	r, scale := b.ad.LoRA.Of(module)
	l.rank, l.scale = r, T(scale)
	nameA, nameB := peft.Names(module)
	b.train(&l.a, nameA, func(a []T) { b.initA(l, a, nameA) }, r, l.in)
	b.train(&l.b, nameB, func(p []T) { copy(p, l.start.b) }, l.out, r)
	if b.ad.LoRA.UseDoRA {
		b.train(&l.dora.magnitude, peft.MagnitudeName(module), func(p []T) {
			if l.frozen != nil { // else a weight is missing, which build says
				b.m.rowNorms(l, p)
			}
		}, l.out)
	}
}

// initA draws lora_A: uniformly as PEFT does, or from a normal distribution of standard deviation 1/r; or it starts where PiSSA says.
func (b *builder[T]) initA(l *linear[T], a []T, name string) {
	switch {
	case l.start.a != nil:
		copy(a, l.start.a)
	case b.ad.LoRA.Init == peft.InitGaussian:
		lora.InitNormal(a, 1/float64(l.rank), b.ad.Seed, name)
	default:
		lora.InitA(a, l.in, b.ad.Seed, name)
	}
}

func (b *builder[T]) fail(err error) {
	if b.err == nil {
		b.err = err
	}
}

// stray is the first name, in sorted order, of Adapter.Init that is not in the layout.
func (b *builder[T]) stray() string {
	names := make([]string, 0, len(b.ad.Init))
	for name := range b.ad.Init {
		if !slices.ContainsFunc(b.m.layout, func(t engine.Tensor) bool { return t.Name == name }) {
			names = append(names, name)
		}
	}
	return slices.Min(names)
}

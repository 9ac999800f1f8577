package cuda

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"lorad/engine"
	"lorad/engine/kernel"
	"lorad/engine/llama"
	"lorad/model"
	"lorad/model/peft"
)

// The groups of a layer in the order of the forward pass. Linear layers that read the same input are one group: their weights lie one below the
// other, and one product computes them all.
const (
	stageQKV = iota
	stageO
	stageGateUp
	stageDown
	stages
)

// part is one linear layer of a group, and its adapter.
type part struct {
	module string // model.layers.0.self_attn.q_proj
	out    int
	row    int // its first row in the group's weight, and first column in the group's output

	rank  int // 0: no adapter
	col   int // its first column among the group's low-rank activations, of which cols are its own
	scale float32
	site  int // numbers the adapters of a model, for dropout
	a, b  int // offsets of lora_A [rank,in] and lora_B [out,rank] in the flat vector
}

// rankUnit is what adapters' columns are multiples of, so that rows of 16-bit matrices that have them begin at multiples of 32 bytes. Columns beyond
// the rank are zeros: in the copies of the parameters, and so in what is computed of them.
const rankUnit = 16

// cols is how many columns a part has among the group's low-rank activations.
func (p *part) cols() int { return (p.rank + rankUnit - 1) / rankUnit * rankUnit }

// group is linear layers with one input.
type group struct {
	in, out int
	rank    int // columns of all parts' low-rank activations
	bias    bool
	parts   []part
}

// network is the shape of a model and of what is trained of it: everything that follows from configurations alone.
type network struct {
	model.Config
	q, kv, qkv int // widths of attention's projections: queries; keys, which is that of values; all three
	groups     [][stages]group
	head       group
	logitBytes int  // see the constant
	frozen     bool // nothing is trained, whatever has adapters
	layout     []engine.Tensor
	lowest     int // the first stage with an adapter, as stages*layer + stage: nothing below it has a backward pass
	dropout    float64
	fourBit    bool // linear layers are in NF4
	nested     bool // and their scales in eight bits
}

// ErrUnsupported is in every error that says that this engine does not compute what is asked for.
var ErrUnsupported = errors.New("cuda")

// newNetwork refuses, by name, what this engine does not compute. The CPU engine computes it all.
func newNetwork(cfg model.Config, ad llama.Adapter) (*network, error) {
	if err := supported(cfg, ad); err != nil {
		return nil, fmt.Errorf("%w: %w; device: cpu trains it", ErrUnsupported, err)
	}
	layout, err := llama.Layout(cfg, ad)
	if err != nil {
		return nil, err
	}
	n := &network{Config: cfg, layout: layout, logitBytes: logitBytes, fourBit: cfg.FourBit || ad.FourBit != nil, nested: ad.FourBit == nil || ad.FourBit.Nested}
	n.q, n.kv = cfg.NumHeads*cfg.HeadDim, cfg.NumKVHeads*cfg.HeadDim
	n.qkv = n.q + 2*n.kv
	n.lowest = stages * cfg.NumLayers
	if ad.LoRA != nil {
		n.dropout = ad.LoRA.Dropout
	}
	n.declare(ad.LoRA)
	return n, nil
}

// supported says what of a job this engine does not compute.
func supported(cfg model.Config, ad llama.Adapter) error {
	lc := ad.LoRA
	if lc == nil {
		lc = &peft.LoraConfig{}
	}
	for _, c := range []struct {
		not  bool
		what string
	}{
		{ad.Full, "full fine-tuning (adapter: full)"},
		{ad.NEFTune > 0, "neftune_noise_alpha"},
		{!ad.Full && ad.Precision != kernel.BF16, "products in f32 (give dtype: bf16)"},
		{lc.UseDoRA, "use_dora"},
		{strings.HasPrefix(lc.Init, peft.InitPiSSA), "lora_init: " + lc.Init},
		{lc.Bias == peft.BiasLoraOnly, "bias: lora_only"},
		{len(lc.ModulesToSave) > 0, "modules_to_save"},
		{cfg.GELU || cfg.NormPlusOne || cfg.PostNorms || cfg.EmbedScale != 0, "Gemma"},
		{cfg.AttnSoftcap != 0 || cfg.LogitSoftcap != 0, "soft caps (Gemma 2)"},
		{cfg.RotaryDim%16 != 0, fmt.Sprintf("partial rotary embeddings of %d (multiples of 16 are)", cfg.RotaryDim)},
		{cfg.OutBias || cfg.MLPBias, "biases but those of q, k and v"},
		{cfg.HeadDim != 64 && cfg.HeadDim != 128 && (cfg.HeadDim != 96 || cfg.QKNorm), fmt.Sprintf("heads of %d (64, 128 and, without norms of their own, 96 are)", cfg.HeadDim)},
		{cfg.HiddenSize%8 != 0 || cfg.IntermediateSize%8 != 0, fmt.Sprintf("sizes %d and %d (multiples of 8 are)", cfg.HiddenSize, cfg.IntermediateSize)},
	} {
		if c.not {
			return fmt.Errorf("%s: not supported on CUDA", c.what)
		}
	}
	return nil
}

// Supports says why this engine cannot train such a model so; nil if it can.
func Supports(cfg model.Config, ad llama.Adapter) error {
	_, err := newNetwork(cfg, ad)
	return err
}

func (n *network) declare(lc *peft.LoraConfig) {
	site := 0
	for i := range n.NumLayers {
		p := fmt.Sprintf("model.layers.%d.", i)
		h, f := n.HiddenSize, n.IntermediateSize
		qkv := []part{{module: p + "self_attn.q_proj", out: n.q}, {module: p + "self_attn.k_proj", out: n.kv}, {module: p + "self_attn.v_proj", out: n.kv}}
		gateUp := []part{{module: p + "mlp.gate_proj", out: f}, {module: p + "mlp.up_proj", out: f}}
		if n.Fused { // the same rows below each other, and one adapter
			qkv, gateUp = []part{{module: p + "self_attn.qkv_proj", out: n.qkv}}, []part{{module: p + "mlp.gate_up_proj", out: 2 * f}}
		}
		n.groups = append(n.groups, [stages]group{
			{in: h, bias: n.QKVBias, parts: qkv},
			{in: n.q, parts: []part{{module: p + "self_attn.o_proj", out: h}}},
			{in: h, parts: gateUp},
			{in: f, parts: []part{{module: p + "mlp.down_proj", out: h}}},
		})
		for s := range stages {
			g := &n.groups[i][s]
			for j := range g.parts {
				site = n.place(g, &g.parts[j], lc, site)
			}
			if g.rank > 0 {
				n.lowest = min(n.lowest, stages*i+s)
			}
		}
	}
	n.head = group{in: n.HiddenSize, parts: []part{{module: "lm_head", out: n.VocabSize}}}
	n.place(&n.head, &n.head.parts[0], lc, site)
}

// place gives a part its rows in the group and, if the configuration matches it, its adapter; it returns the next site.
func (n *network) place(g *group, p *part, lc *peft.LoraConfig, site int) int {
	p.row = g.out
	g.out += p.out
	if lc == nil || !lc.Match(p.module) {
		return site
	}
	r, scale := lc.Of(p.module)
	a, b := peft.Names(p.module)
	p.rank, p.scale, p.col, p.site, p.a, p.b = r, float32(scale), g.rank, site, n.offset(a), n.offset(b)
	g.rank += p.cols()
	return site + 1
}

// turned is how many dimensions of a head, the first ones, turn with the position.
func (n *network) turned() int { return cmp.Or(n.RotaryDim, n.HeadDim) }

// tables is how many tables of rotations sequences up to a length need: with longrope those beyond a limit have one of their own.
func (n *network) tables(longest int) int {
	if n.longer(longest) {
		return 2
	}
	return 1
}

// longer says whether a sequence turns by the second table.
func (n *network) longer(sequence int) bool {
	return n.RopeScaling.Type == "longrope" && sequence > n.RopeScaling.OriginalMaxPosition
}

// offset is where a tensor lies in the flat vector.
func (n *network) offset(name string) int {
	i := slices.IndexFunc(n.layout, func(t engine.Tensor) bool { return t.Name == name })
	return n.layout[i].Offset
}

// trainable is the length of the flat vector.
func (n *network) trainable() int {
	if len(n.layout) == 0 {
		return 0
	}
	last := n.layout[len(n.layout)-1]
	return last.Offset + last.Len()
}

// backward is how many layers, the upper ones, have a backward pass.
func (n *network) backward() int { return n.NumLayers - n.lowest/stages }

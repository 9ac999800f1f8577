package model

// Config is the shape of a Llama-architecture model, whatever version of transformers wrote its config.json.
type Config struct {
	Architecture     string // "LlamaForCausalLM"
	VocabSize        int
	HiddenSize       int
	IntermediateSize int
	NumLayers        int
	NumHeads         int
	NumKVHeads       int // divides NumHeads; the key-value heads are shared by consecutive query heads
	HeadDim          int // even; NumHeads*HeadDim need not equal HiddenSize
	RMSNormEps       float64
	RopeTheta        float64
	RopeScaling      RopeScaling
	MaxPosition      int
	TieEmbeddings    bool // the output head is the input embedding; there is no lm_head.weight
	AttentionBias    bool // q, k, v and o carry a bias
	MLPBias          bool // gate, up and down carry a bias
	BOS              int  // -1: none
	EOS              []int
	Pad              int    // -1: none
	DType            string // dtype the weights were saved in ("bfloat16", "float32", "" = not said)
}

// RopeScaling says how the rotary frequencies 1/theta^(2i/d) are changed for longer contexts.
type RopeScaling struct {
	Type                string  // "" or "default": unchanged; "linear": divided by Factor; "llama3": by wavelength
	Factor              float64 // > 0
	LowFreqFactor       float64 // llama3 only
	HighFreqFactor      float64 // llama3 only, > LowFreqFactor
	OriginalMaxPosition int     // llama3 only: the context length the model was pretrained with
}

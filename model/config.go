package model

// Config is the shape of a model of the Llama family, whatever version of transformers wrote its config.json. What one kind of model has and
// another has not is a field here, never a question of its name: families (family.go) says which model_type sets which.
type Config struct {
	Architecture     string // "LlamaForCausalLM", "Qwen2ForCausalLM", ...
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
	TieEmbeddings    bool    // the output head is the input embedding; there is no lm_head.weight
	QKVBias, OutBias bool    // q, k and v carry a bias; o does
	MLPBias          bool    // gate, up and down carry a bias
	Fused            bool    // q, k, v are one linear layer qkv_proj, and gate, up one gate_up_proj
	QKNorm           bool    // RMSNorm over each head of q and k, before rotation
	PostNorms        bool    // attention's and the MLP's output is normalised before it is added to the residual
	NormPlusOne      bool    // RMSNorm multiplies by 1 + weight
	GELU             bool    // the gate's activation is GELU in its tanh form instead of SiLU
	EmbedScale       float64 // multiplies the embeddings; 0: nothing does
	ScoreScale       float64 // multiplies attention's scores; 0: 1/sqrt(HeadDim)
	AttnSoftcap      float64 // attention's scores x become cap*tanh(x/cap); 0: they stay
	LogitSoftcap     float64 // and the logits
	RotaryDim        int     // even; so many dimensions of a head turn with the position; 0: all
	Window           int     // a query of a sliding layer sees Window positions, its own included; 0: no layer slides
	Sliding          []bool  // by layer; nil: none
	SlidingRopeTheta float64 // of sliding layers, which then have no RopeScaling; 0: as the others
	FourBit          bool    // linear layers are stored in bitsandbytes' NF4
	BOS              int     // -1: none
	EOS              []int
	Pad              int    // -1: none
	DType            string // dtype the weights were saved in ("bfloat16", "float32", "" = not said)
}

// RopeScaling says how the rotary frequencies 1/theta^(2i/d) are changed for longer contexts.
type RopeScaling struct {
	Type                string  // "" or "default": unchanged; "linear": divided by Factor; "llama3": by wavelength; "longrope": one by one
	Factor              float64 // > 0
	LowFreqFactor       float64 // llama3 only
	HighFreqFactor      float64 // llama3 only, > LowFreqFactor
	OriginalMaxPosition int     // llama3 and longrope: the context length the model was pretrained with

	// longrope only: what each frequency is divided by in sequences of up to OriginalMaxPosition tokens, and in longer ones; and the factor of
	// all cosines and sines.
	Short, Long []float64
	Attention   float64
}

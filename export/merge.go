package export

import (
	"fmt"
	"io/fs"
	"math"
	"slices"
	"strings"

	"lorad/model"
	"lorad/model/safetensors"
)

// Report says what became of a merge.
type Report struct {
	Modules   int     `json:"modules"`   // layers that were changed
	DType     string  `json:"dtype"`     // of the weights written
	Untied    bool    `json:"untied"`    // lm_head is a weight of its own now
	Rounding  float64 `json:"rounding"`  // ||rounded - exact|| / ||change||, over all changed weights
	Quantised float64 `json:"quantised"` // ||base in NF4 - base|| / ||change||, if the adapter was trained so; else 0
}

// Merge writes the base with the adapter folded in as a model folder, in dtype ("" = the base's own, or bf16 if that is f32 or packed).
// from is the base's folder, for its tokenizer; quantise, if not nil, is what training did to the base's weights.
func (a *Adapter) Merge(dir string, from fs.FS, dtype safetensors.DType, quantise func([]float32) ([]float32, error)) (Report, error) {
	cfg := a.base.Config()
	m := merge{Adapter: a, dtype: dtype, quantise: quantise}
	if m.dtype == "" {
		m.dtype = m.own()
	}
	if _, head := a.changes["lm_head"]; head && cfg.TieEmbeddings {
		cfg.TieEmbeddings, m.report.Untied = false, true
	}
	var tensors []safetensors.Tensor
	for _, s := range cfg.Tensors() {
		tensors = append(tensors, safetensors.Tensor{Name: s.Name, Shape: s.Shape, DType: m.dtype, Load: func() ([]float32, error) { return m.weight(s.Name) }})
	}
	if err := model.WriteFolder(dir, cfg, tensors, from); err != nil {
		return Report{}, err
	}
	m.report.Modules, m.report.DType = len(a.changes), string(m.dtype)
	if m.change > 0 {
		m.report.Rounding, m.report.Quantised = math.Sqrt(m.lost/m.change), math.Sqrt(m.beside/m.change)
	}
	return m.report, nil
}

// merge is one Merge under way, with the sums of squares behind its report.
type merge struct {
	*Adapter
	dtype                safetensors.DType
	quantise             func([]float32) ([]float32, error)
	report               Report
	change, lost, beside float64
}

// own is the type that most of the base is kept in, as far as it has 16 bits.
func (m *merge) own() safetensors.DType {
	if m.base.StoredAs("model.embed_tokens.weight") == string(safetensors.F16) {
		return safetensors.F16
	}
	return safetensors.BF16
}

// weight is one tensor of the merged model.
func (m *merge) weight(name string) ([]float32, error) {
	if own, ok := m.whole[name]; ok {
		return slices.Clone(own), nil
	}
	w, _, err := m.base.Tensor(name)
	if err != nil {
		return nil, err
	}
	c, ok := m.changes[strings.TrimSuffix(name, ".weight")]
	if !ok {
		return w, nil
	}
	d := m.delta(c, w)
	if err := m.compare(w, d); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return d, nil
}

// compare turns the change d into the merged weight and adds up what is lost.
func (m *merge) compare(w, d []float32) error {
	if m.quantise != nil {
		q, err := m.quantise(w)
		if err != nil {
			return err
		}
		for i, v := range q {
			m.beside += (float64(v) - float64(w[i])) * (float64(v) - float64(w[i]))
		}
	}
	m.change += squares(d)
	for i, v := range w {
		d[i] += v
		e := float64(safetensors.Round(d[i], m.dtype)) - float64(d[i])
		m.lost += e * e
	}
	if !finite(d) {
		return fmt.Errorf("the merged weight has a NaN or an infinity; check the adapter with lorad adapter verify")
	}
	return nil
}

package export

import (
	"fmt"

	"lorad/engine/quant"
)

// Quantiser is what training did to the base's weights: nil if nothing, else there and back again through NF4.
func (p Provenance) Quantiser() (func([]float32) ([]float32, error), error) {
	switch p.FourBit {
	case "":
		return nil, nil
	case NF4, NF4Nested:
	default:
		return nil, fmt.Errorf("%s: base_quantisation %q is not known; use a newer lorad", ProvenanceFile, p.FourBit)
	}
	finder := quant.NewFinder(quant.DynamicMap(true))
	return func(w []float32) ([]float32, error) {
		q := quant.NewNF4(len(w), quant.BF16)
		q.Encode(0, w)
		if p.FourBit == NF4Nested {
			q.Nest(finder)
		}
		out := make([]float32, len(w))
		q.Decode(out, 0)
		return out, nil
	}, nil
}

package llama

import (
	"lorad/engine"
	"lorad/engine/kernel"
	"lorad/model"
)

// Layout is what New(cfg, _, ad, _) would train, without any weights: what an engine of another kind has to train too, in the same order.
func Layout(cfg model.Config, ad Adapter) ([]engine.Tensor, error) {
	b, err := declared(cfg, ad)
	if err != nil {
		return nil, err
	}
	return b.m.layout, nil
}

// Initial is the values that New would begin with. They follow from the adapter alone, unless parts of the base are trained themselves.
func Initial(cfg model.Config, ad Adapter) ([]float32, error) {
	ad.FourBit, cfg.FourBit = nil, false
	b, err := declared(cfg, ad)
	if err != nil {
		return nil, err
	}
	err = b.bind()
	return b.m.params, err
}

// declared is a builder of a model without weights.
func declared(cfg model.Config, ad Adapter) (*builder[float32], error) {
	m, err := shell(cfg, ad, kernel.Ops[float32](kernel.NewRef[float32]()))
	if err != nil {
		return nil, err
	}
	b := &builder[float32]{m: m, ad: ad}
	return b, b.declare()
}

package bench_test

import (
	"testing"

	"lorad/engine/cuda/gputest"
	"lorad/internal/bench"
)

// What lorad bench --gpu all measures of generation can be measured.
func TestGPUDecoder(t *testing.T) {
	dev, err := gputest.Open(t, 0)()
	if err != nil {
		t.Fatal(err)
	}
	d, m, err := bench.NewGPUDecoder("nf4", bench.GPUConfig(true), dev, true)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if r, err := d.Decode(); err != nil || !(r.PrefillTokensPerS > 0) || r.TokensPerS == 0 || r.Together == 0 || !(r.BytesPerToken > 0) {
		t.Errorf("%+v, %v", r, err)
	}
}

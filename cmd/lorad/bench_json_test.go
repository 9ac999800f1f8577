package main

import (
	"encoding/json"
	"testing"

	"lorad/internal/bench"
)

// The JSON is a promise: scripts/oracle/step_peer.py and whoever compares machines read it.
func TestBenchJSON(t *testing.T) {
	c := bench.Case{Model: "m", DType: "bf16", Adapter: "lora"}
	samples := []bench.Sample{{Millis: 500, Tokens: 100, Useful: 10, RSSMB: 3}, {Millis: 400, Tokens: 100, Useful: 10, RSSMB: 2}, {Millis: 250, Tokens: 100, Useful: 10, RSSMB: 3}}
	p := benchPeak{F32: 50, BF16: 100, Bandwidth: 7}
	got, err := json.Marshal(benchResult{Peak: p, Steps: []benchStep{summary(c, samples, p)}})
	const phases = `{"forward_gemm":0,"forward_attention":0,"forward_rowwise":0,"head":0,"backward_gemm":0,"backward_attention":0,"backward_rowwise":0,"optimiser":0}`
	const want = `{"peak":{"f32_gflops":50,"bf16_gflops":100,"bandwidth_gbs":7},"steps":[{"model":"m","dtype":"bf16","adapter":"lora",` +
		`"tokens_per_s":250,"share_of_peak":0.25,"peak_rss_mb":3,"phases_ms":` + phases + `}]}`
	if err != nil || string(got) != want {
		t.Errorf("%s, %v\nwant %s", got, err, want)
	}
}

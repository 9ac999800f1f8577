package bench

import (
	"time"

	"lorad/engine/cpu"
	"lorad/model"
)

// Product is one matrix product at a model's shape.
type Product struct {
	Name    string
	M, N, K int
	GFLOPS  float64
}

// Products times the products of a forward pass of so many rows, and those of the backward pass that differ in kind, each the best of several.
func Products(cfg model.Config, rows, rank, threads int, each time.Duration) []Product {
	ops := cpu.New(threads)
	h, f, kv := cfg.HiddenSize, cfg.IntermediateSize, cfg.NumKVHeads*cfg.HeadDim
	var out []Product
	for _, p := range []struct {
		name           string
		transA, transB bool
		m, n, k        int
	}{
		{"q, o", false, true, rows, h, h},
		{"k, v", false, true, rows, kv, h},
		{"gate, up", false, true, rows, f, h},
		{"down", false, true, rows, h, f},
		{"head, 128 rows", false, true, 128, cfg.VocabSize, h},
		{"lora A", false, true, rows, rank, h},
		{"lora B", false, true, rows, h, rank},
		{"input of down", false, false, rows, f, h},
		{"gradient of A", true, false, rank, h, rows},
	} {
		a, b, c := filled(p.m*p.k), filled(p.k*p.n), make([]float32, p.m*p.n)
		lda, ldb := p.k, p.n
		if p.transA {
			lda = p.m
		}
		if p.transB {
			ldb = p.k
		}
		t := best(each, func() { ops.Gemm(p.transA, p.transB, p.m, p.n, p.k, a, lda, b, ldb, c, p.n, false) })
		out = append(out, Product{p.name, p.m, p.n, p.k, 2 * float64(p.m) * float64(p.n) * float64(p.k) / t.Seconds() / 1e9})
	}
	return out
}

func filled(n int) []float32 {
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(i%13) - 6
	}
	return x
}

// best is the shortest of the runs that fit into the budget, one at least.
func best(budget time.Duration, f func()) time.Duration {
	shortest := time.Duration(0)
	for end := time.Now().Add(budget); ; {
		start := time.Now()
		f()
		if t := time.Since(start); shortest == 0 || t < shortest {
			shortest = t
		}
		if !time.Now().Before(end) {
			return shortest
		}
	}
}

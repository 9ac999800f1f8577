// Package kernel is the set of operations that a model's training maths is made of, and their reference in plain Go.
//
// The model (engine/llama) decides what is computed and in which order; an Ops decides how fast. The set is small on
// purpose: matrix products (of slices, and with frozen weights: Frozen), the row-wise operations whose inner loop is worth
// vectorising, and Parallel. Attention is not in it: it is a few Gemm1 and CausalSoftmax calls per (sequence, head), so whoever
// has a fast Gemm1 has fast attention.
//
// Two levels of parallelism exist and never nest. Gemm and Parallel use all threads and are called from the one goroutine
// that drives the step. Everything else is a leaf: serial, free of hidden state, and safe to call from inside Parallel.
//
// Determinism: every result is a function of the arguments alone. An implementation may add in any order it likes, as long as
// that order follows from the shape and not from the number of threads, the addresses, or the time of day.
//
// Why not a graph or an autograd tape: the model has one shape, and a hand-written backward pass is shorter than a tape,
// plans its memory, and can be read beside the formula.
//
// An implementation embeds Ref and overrides what it speeds up; kerneltest.Conformance holds it to Ref in float64.
package kernel

// Float is the type of all activations, parameters and gradients of one model. float32 trains; float64 checks the maths.
type Float interface{ float32 | float64 }

// Ops computes on row-major slices. "ld" is the distance between the first elements of neighbouring rows (ld >= width).
// Outputs do not overlap inputs unless a method says so.
type Ops[T Float] interface {
	// Gemm computes C[m,n] = op(A)[m,k] * op(B)[k,n], plus the old C if acc. transA: A is stored [k,m]; transB: B is stored
	// [n,k]. Without acc the old C is never read (it may hold NaN); k = 0 then clears it. Uses all threads.
	// A row of C has the same bits whatever the other rows are, and however many (Gemm1 does not promise that).
	Gemm(transA, transB bool, m, n, k int, a []T, lda int, b []T, ldb int, c []T, ldc int, acc bool)
	// Parallel runs f(0) .. f(n-1), in any order and concurrently. f(i) writes only its own outputs. n = 1 runs inline.
	Parallel(n int, f func(i int))

	// Freeze lays a weight out for Frozen's products; m is not needed afterwards.
	Freeze(m Matrix[T], p Precision) Frozen[T]
	// Keep is Freeze for a matrix that is smaller than its elements: it stays as it is, and every product unpacks it block by block.
	Keep(m Matrix[T], p Precision) Frozen[T]

	// Gemm1 is Gemm on the calling goroutine alone: a leaf, made for attention's small products.
	Gemm1(transA, transB bool, m, n, k int, a []T, lda int, b []T, ldb int, c []T, ldc int, acc bool)
	// Scale multiplies x by a.
	Scale(a T, x []T)
	// Axpy adds a*x to y, element by element; len(x) = len(y).
	Axpy(a T, x, y []T)
	// RMSNorm writes inv[i] = 1/sqrt(mean(x[i]^2)+eps) and y[i,j] = w[j] * (x[i,j]*inv[i]), for x, y [rows,n] without gaps.
	RMSNorm(rows, n int, y, inv, x, w []T, eps T)
	// RMSNormBackward ADDS to dx[rows,n] the gradient through y = RMSNorm(x), given dy, and ADDS to dw[n] that of w; dw may be nil.
	// dx[i,j] += inv*(dy*w) - x*inv^3/n * sum_j(dy*w*x);  dw[j] += sum_i dy*x*inv.
	RMSNormBackward(rows, n int, dx, dw, dy, x, w, inv []T)
	// Rope rotates, in place, one head of rows consecutive positions: for j < d/2,
	// (x[j], x[j+d/2]) -> (x[j]*cos - x[j+d/2]*sin, x[j+d/2]*cos + x[j]*sin); cos and sin are [rows, d/2] without gaps.
	// inverse turns the other way, which is also the backward pass.
	Rope(rows, d int, x []T, ld int, cos, sin []T, inverse bool)
	// CausalSoftmax turns scores s[rows,cols] into probabilities in place. Row i sees columns 0..first+i (first+i < cols); the rest
	// of the row becomes 0 and is never read. p = exp(scale*s - lse[i]), lse[i] = log(sum_j exp(scale*s[i,j])), written for the backward pass.
	CausalSoftmax(rows, cols, first int, s []T, ld int, scale T, lse []T)
	// CausalSoftmaxBackward takes the raw scores s again, the lse of the forward pass, and dp = the gradient by the probabilities.
	// It turns s into p and dp into ds = scale * p * (dp - sum_j(p*dp)); columns a row cannot see become 0 in both, unread.
	CausalSoftmaxBackward(rows, cols, first int, s, dp []T, ld int, scale T, lse []T)
	// SwiGLU writes h = silu(gate) * up, silu(x) = x/(1+exp(-x)).
	SwiGLU(h, gate, up []T)
	// SwiGLUBackward writes the gradients by gate and up, given dh. dup may be the same slice as dh.
	SwiGLUBackward(dgate, dup, dh, gate, up []T)
	// GeGLU writes h = gelu(gate) * up, gelu(x) = x/2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3))) (gelu_pytorch_tanh).
	GeGLU(h, gate, up []T)
	// GeGLUBackward writes the gradients by gate and up, given dh. dup may be the same slice as dh.
	GeGLUBackward(dgate, dup, dh, gate, up []T)
	// CrossEntropy writes loss[i] = -log softmax(x[i])[labels[i]] in nats for x[rows,n] without gaps (every label is in 0..n-1; no
	// label is ignored here), and, if grad, overwrites x with scale * (softmax(x) - onehot(label)).
	CrossEntropy(rows, n int, x []T, labels []int32, loss []float64, scale T, grad bool)
}

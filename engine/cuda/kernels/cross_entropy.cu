// Cross-entropy and its gradient from the logits of one chunk of rows. One block for each row.

// A group is WIDTH neighbouring columns: four where rows begin at multiples of 16 bytes.
template <int WIDTH> struct alignas(4 * WIDTH) Logits { float v[WIDTH]; };
template <int WIDTH> struct alignas(2 * WIDTH) Gradients { bf16 v[WIDTH]; };

// log_sum_exp reads a row once: each thread keeps its largest logit and the sum of powers relative to it.
template <int WIDTH> static __device__ __forceinline__ float log_sum_exp(const float* x, int vocab) {
    float top = -INFINITY, sum = 0;
    for (int c = WIDTH * threadIdx.x; c < vocab; c += WIDTH * blockDim.x) {
        Logits<WIDTH> l = *(const Logits<WIDTH>*)(x + c);
        float highest = top;
#pragma unroll
        for (int j = 0; j < WIDTH; j++) highest = fmaxf(highest, l.v[j]);
        sum *= __expf(top - highest);
        top = highest;
#pragma unroll
        for (int j = 0; j < WIDTH; j++) sum += __expf(l.v[j] - top);
    }
    float highest = block_max(top);
    sum = block_sum(sum > 0 || sum != sum ? sum * __expf(top - highest) : 0);  // a thread without columns has no top
    return highest + logf(sum);
}

template <int WIDTH> static __device__ __forceinline__ void row_cross_entropy(const float* x, int label, float* loss, bf16* dx, float scale, int vocab) {
    float lse = label < 0 ? 0 : log_sum_exp<WIDTH>(x, vocab);
    if (threadIdx.x == 0) *loss = label < 0 ? 0 : lse - x[label];
    if (!dx) return;
    for (int c = WIDTH * threadIdx.x; c < vocab; c += WIDTH * blockDim.x) {
        Logits<WIDTH> l = *(const Logits<WIDTH>*)(x + c);
        Gradients<WIDTH> g;
#pragma unroll
        for (int j = 0; j < WIDTH; j++) {
            float p = __expf(l.v[j] - lse);
            g.v[j] = round_bf16(label < 0 ? 0 : scale * (c + j == label ? p - 1 : p));
        }
        *(Gradients<WIDTH>*)(dx + c) = g;
    }
}

// cross_entropy writes loss = log(sum(exp(x))) - x[label] in nats and, unless dlogits is 0, bf16(scale * (softmax(x) - onehot(label))), for logits x and gradients of
// [rows, vocab] without gaps. A negative label has loss 0 and gradient 0. scale is one number in device memory, so that a recorded graph can be launched again with another.
extern "C" __global__ void __launch_bounds__(1024) cross_entropy(const float* logits, const int* labels, float* loss, bf16* dlogits, const float* scale, int rows, int vocab) {
    long long row = blockIdx.x;
    if (row >= rows) return;
    const float* x = logits + row * vocab;
    bf16* dx = dlogits ? dlogits + row * vocab : 0;
    if (vocab % 4 == 0)
        row_cross_entropy<4>(x, labels[row], loss + row, dx, *scale, vocab);
    else
        row_cross_entropy<1>(x, labels[row], loss + row, dx, *scale, vocab);
}

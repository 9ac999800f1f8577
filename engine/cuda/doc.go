// Package cuda trains LoRA and QLoRA adapters of Llama-architecture models on a GPU.
//
// It is plain Go over device.Device: which kernel, on which part of memory, in which order. What a Device is, and where its kernels come from,
// is below that seam (driver, kernels); so this package builds everywhere and its tests run where there is no GPU.
//
// What is computed is what engine/llama computes, read side by side with it: the same layout of the flat parameter vector, the same
// initial values, the same dropout masks to the bit, the same NF4 codes. How it is rounded differs, as on any GPU: activations, the residual stream and
// copies of the adapters are bf16; sums, statistics, softmax, losses and the adapters' gradients are f32. So a CUDA node and a CPU node give gradients
// that differ in the last bits, and a run's bits depend on which of them computed what. What never differs is the replicas: gradients are summed as
// integers and the optimiser (engine/optim, on the host) is exact, so all members of a run hold the same parameters after each step.
//
// A step:
//
//   - Memory is planned ahead (plan.go, arena.go): two allocations, one for what stays and one for a pass, cut at multiples of 256 bytes by the same
//     code that counts them for the plan. A step allocates nothing. What does not fit is met by computing layers again in the
//     backward pass, gate and up first, which costs least per byte; then by an engine.ErrOutOfMemory with the number.
//   - Linear layers with one input are one product: q, k and v; gate and up. Adapters are in it too, by a longer inner dimension (projection.go); what is
//     left beside it are the narrow products with lora_A or lora_B alone, one for all of a group. With dropout each adapter has an input of its own, and its way
//     back is a product of its own. In NF4 a group's weight is unpacked into one scratch before each use, and the adapters copied beside it.
//   - Gradients of the adapters are written where the flat vector has them, and stay there. A step's are added up in int64 (sum.go), by the rules of
//     those who reduce them over the members; the sum comes to the host once, in parts. Frozen weights get none, and the backward pass ends at
//     the lowest adapter.
//   - Whatever differs between micro-batches lies in device memory (inputs.go), and numbers of rows are rounded to few: so a pass is recorded once per shape
//     and is one launch from then on (graphs.go). Rows that rounding adds are a sequence of their own without labels.
//   - The head sees labelled rows only, a chunk of them at a time. The losses are summed on the host, in float64, in the order of the rows.
//
// Generation (generate.go, cache.go): each prompt is a pass of its own that leaves keys and values in a cache; then one recorded launch gives up to 32 sequences
// their next tokens, always with 32 rows, so that a sequence's bits do not depend on its company.
//
// A gradient's bits are a function of the micro-batch, the parameters and the device: not of earlier micro-batches, of how much memory
// there is, or of what is computed again.
//
// Why no autograd and no graph of tensors: as in engine/llama, the backward pass is the forward pass read upwards, and every buffer's life can be
// seen in one page. Why the optimiser is on the host: adapters are small, and replicas that include CPU nodes are then equal by construction.
//
// What is not computed here is refused by name (Supports): full fine-tuning, DoRA, trained biases and modules_to_save, Gemma,
// f32 products, heads other than 64, 96 and 128.
package cuda

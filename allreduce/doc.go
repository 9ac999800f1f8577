// Package allreduce adds up the gradients of one step over the members of a run, exactly.
//
// # Why integers
//
// Floating-point addition is not associative, so the sum of a ring all-reduce in f32 depends on the order of
// the ring, on the number of members and on who died on the way. Here each micro-batch's gradient is quantised
// once to int64 fixed point (unit 2^unitLog2, say 2^-40) by whoever computed it, and only integers are added.
// The sum is a function of the set of micro-batches and of nothing else: one node and five nodes, a run that
// lost a member and one that did not, get the same bits. The quantum is the micro-batch and never the member's
// local sum: otherwise the result would depend on who computed what.
//
// The error is at most half a unit per micro-batch: 64 micro-batches at 2^-40 stay within 2.9e-11, 0.3 % of
// AdamW's epsilon, and below the f32 rounding of any gradient larger than 2^-17.
//
// # One vector
//
// An [Accum] holds one int64 per parameter and a trailer: loss, labelled tokens, all tokens, votes, and a
// counter and a time per micro-batch. The trailer is summed with the gradient, so one collective per step settles
// everything: a result is valid only if each micro-batch was counted exactly once ([CoverageError] otherwise),
// and a NaN, an infinity or an overflow in a micro-batch is a flag that every member sees ([Sum].Bad).
//
// # Sums that are elsewhere
//
// A GPU rounds and adds gradients itself, by the same rules: [Accum.AddBy] keeps the books of its micro-batches, and [Accum.Arrive] lets its sum in, part by
// part, while Reduce is at work. Reduce waits for a part before it reads from it; nothing else about a reduction changes, and an aborted one leaves
// the sum in the accumulator, as it would have been with Add.
//
// # The ways of a vector
//
// The vector is cut into blocks of 256 values, chunks of whole blocks (one per member) and segments of at most 127
// blocks, each one frame. [Group.Reduce] is a reduce-scatter, after which each member has the sum of one chunk, and an
// all-gather. A block of the first is packed losslessly into the fewest bits per value that hold it (typically 30 of
// 64); a block of the second carries f32, rounded once by the chunk's owner, less the bits of the exponent that all its
// values share (typically 28 of 32). Where packing costs more time than the link saves, both take 32 bits.
//
// There are three ways to do it, with the same bits: a ring, in which a segment goes on to the next member as soon as
// it has been added, so that all hops overlap; a direct exchange with the owners, which takes 2 hops instead of 2(N-1);
// and, for what fits in a frame or two, everything to everyone. Members tell each other the round trips and rates
// of their links ([Group.Compare]) when a group begins and now and then afterwards, and derive the way of every vector
// from what all have said ([Way]). Where rates differ by a factor of three and more, the direct exchange gives slow
// members smaller chunks: a member with a share s of an S byte vector sends 1 + (N-2)s times S.
//
// Sending and receiving run concurrently, and TCP's own window is the only flow control.
//
// # Slow links
//
// [Accum.Quantise] gives each parameter a unit of its own, coarser than 2^unitLog2. Nothing else changes: micro-batches are
// rounded once, integers are added, and both phases send integers in the fewest bits, so the sum does not depend on the
// members either, and nothing can overflow a fixed width; what is unexpectedly large takes more bits. The worker takes the
// units from the optimiser's second moments, which every replica holds (reduce_wire: int16, node/replica): no scale has to be agreed
// on, and none is lost with a member.
//
// # Links, fences and death
//
// Every frame carries its [OpID], its place in the schedule and a CRC-32C. What arrives must be exactly what
// the schedule expects next; anything else aborts with a [FenceError]. Nothing stale is ever skipped over: a
// group lives for one generation and its links carry nothing else.
//
// Both directions of every link carry a heartbeat whenever nothing else was written, from a goroutine that does
// not depend on the caller: a member that is busy computing still beats. So silence means death and slowness
// does not. EOF, reset, CRC mismatch, fence mismatch, silence and cancellation abort the group with an
// [AbortError] that names the suspect; neighbours are told the suspect before the links close, so that a cascade
// of closed links does not accuse the innocent. An aborted group stays aborted: build the next generation's.
// The accumulator is read-only to Reduce, so nothing computed is lost.
//
// # Why not otherwise
//
//   - Not gRPC: three times the CPU per byte of a plain stream (docs/benchmarks.md), and no need of its framing.
//   - Not f32 with a canonical tree: up to log2(M) times the bytes and whole-vector partial sums.
//   - Not error feedback: its residual is a member's state, depends on who computed what, and dies with the member.
//   - Not one rank that decides the way and tells the others: all hold the same figures, and a rank that decides can die.
//   - Not packing in Go alone: AVX-512 VBMI does it eight times as fast (lanes.go), which is what makes the tight form worth its while on links
//     of 10 Gbit/s and on machines whose processors have better things to do. Elsewhere Go packs, to the same bytes.
//   - Not probes of the links' rates: the reductions themselves are measured. A ring cannot give a slow link less to
//     carry than half the vector, so that there are no shares in it.
package allreduce

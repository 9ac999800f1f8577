// Package sim lives through a cluster's life in virtual time: coordinator/state, coordinator/sched and node/step as they
// are, and small models of everything around them. One seed draws the cluster, its runs and all that befalls them, and
// the same seed draws the same again, so a life that went wrong can be looked at for as long as it takes.
//
// # What is real, what is a model
//
//   - state.Machine is every node's replica, sched.Next every leader's judgement, step.Machine every member's: real.
//   - The log (log.go) is an ideal Raft: one leader per term can commit, with a majority at hand; older leaders go on
//     believing in themselves for a while; what they proposed is lost or adopted by the next one, and they never learn
//     which. Replicas follow late, start from their last snapshot and know no more until a leader tells them.
//   - The process (process.go) forwards commands, follows runs and believes in gossip as package coordinator and
//     node.Node do; worker.go and reporter.go are node's, action by action, with its times.
//   - The ring (ring.go) completes member by member: when it dies, some have the sum and some have not.
//   - A gradient is the name of its micro-batch, a sum the sorted list of them, a state the hash of the last state and
//     the sum (run.go). Whatever is summed twice, left out or taken from another step changes the state for ever.
//     Some gradients are not finite, and their steps skipped; validation losses are drawn from the state, some end the run,
//     and what they have shown is in the next state's hash (replica.go).
//
// # Faults
//
// Processes crash and come back with their disk or without its checkpoints, are stopped and go on, lose each other in
// partitions and in one direction only; messages are lost, late, out of order and doubled; leaders are deposed and
// killed, all processes die at once, disks are slow or full, gossip calls the living dead, users stop and resume.
//
// # Invariants
//
// See checks.go. All of them are checked all the time, and against the future: the states of an undisturbed run are
// known from the start. After the last fault everything is mended, and the runs must end, in bounded time, with those.
//
// # Why not otherwise
//
// Why a model of the shell and not the shell? Because its goroutines, sockets and files would make a life of ten
// minutes last ten minutes, and no two lives of a seed the same. What the model cannot show, cmd/lorad's tests do, with
// real processes. Where a model must choose, it chooses what is worse.
package sim

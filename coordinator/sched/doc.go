// Package sched decides who works on what: Next looks at the replicated state and at who is alive, and says which
// commands the leader should propose, with the reason in words.
//
// It is pure: time comes in as a number, liveness as a map, and nothing is remembered between calls. A new leader
// therefore decides exactly as the old one would have, and every decision can be replayed from a test file.
//
// # The rules
//
//   - One run works at a time, the oldest first: two models at once would only make each other slow. A run that has
//     all its steps and waits for its home node to come back blocks nobody.
//   - A first lease needs the home node, which has the inputs. Later ones need it or somebody who worked on the run last:
//     a run outlives its home. When all of these have been away for 10 s, nodes that are ready to join go on with the state
//     they have: steps that were committed are computed again then, to the same bits.
//   - Members are the live nodes that run the same version as the rest (other code may give other bits), in ring
//     order: first those who stay, in their order, then the new ones by id; at the very start the home node first.
//   - A member that died, or a member that gave the generation up, costs one new generation. Generations that keep
//     being given up without a step are granted more and more slowly, and after three the suspect is left out for
//     half a minute: a link that is broken in one direction only must not stop everybody.
//   - A live node that is no member joins when it has been alive for 2 s, has said that it is ready (inputs fetched,
//     trainer made) and there is enough left to do to pay for copying the state. No generation includes a node that has
//     still to get ready, unless no other is left: the members would wait for it.
//   - A node that drains stays a member until all stand between two steps (drain.go).
//   - A lease is renewed when half its window is committed. The window is 64 steps or 10 s of work, whichever is
//     more: short enough to stop the minority side of a partition, long enough that Raft is never on the hot path.
//
// # Why not otherwise
//
// No timers and no queue of events: both are memory that a change of leader loses. A node whose liveness is not
// known yet (a leader that has just come up) is neither granted to nor taken from.
package sched

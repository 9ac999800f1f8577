// Package coordinator is a node's membership in its cluster: Raft, gossip, the RPC services and the disk around the
// pure packages state (what is true) and sched (what to do next).
//
// # How the parts meet
//
//	Control, Enrol --> apply --> Raft log --> fsm (state.Machine) --> Changed
//	                    ^                                                |
//	                    +---- leader: reconcile, sched.Next <------------+-- liveness (gossip, ping)
//
// Every node answers every question from its own replica and hands every command to the leader, through elections,
// until the caller's context ends. A refusal by the state is an answer; only the lack of a leader is waited out.
// Whoever had a command accepted reads his own write: the reply names the log index, and the node waits for it.
//
// # Who belongs to Raft
//
// Enrolment only records a node and signs its certificate. The leader then makes Raft's configuration follow the
// recorded nodes (sched.NextVoters): a node that gossip knows to be alive becomes a non-voter, and voters are promoted
// so that their number stays odd, because two voters survive less than one. A joiner that dies half-way therefore never
// takes part in a quorum, and a leader that dies half-way leaves nothing undone that its successor does not see. A
// witness votes, and is not given the secret: it may stand where nobody would put a voter. It passes leadership on.
//
// # Who is alive
//
// Gossip is the source. When a member gives a generation up, the leader asks all members of that lease directly before
// it decides, so that a killed process costs a fraction of a second and not gossip's suspicion time; a node that did
// not answer counts as dead until it answers a ping again. A leader that has just come up waits some seconds before
// it calls a node dead that it has never seen.
//
// # Who may do what, and secrets
//
// Who may call what is one table (access.go), asked before every RPC and HTTP request, and again for each command that a
// node hands to the leader: a person's command comes to the leader under the certificate of the node that he asked.
//
// Certificates renew themselves (renew.go). No quorum is needed for it, because whoever can open the authority can sign:
// a cluster that was off until all of them had ended comes back without a human.
//
// The authority's key lies in the replicated state, sealed with a secret that only voters have on their disk, so any
// leader can enrol. The gossip key is handed out at enrolment and drawn anew when a node is removed (keys.go); it is a
// second lock behind mutual TLS, and it keeps two clusters apart that were given each other's address by mistake.
//
// # Files
//
// In the state directory: raft.db (log and votes, bbolt), snapshots/ (an 8-byte big-endian log index, then package
// state's snapshot), cluster.json (who this node is and where the others were), authority.sealed (voters: a copy of
// what is in the state, for the day the node's certificate has ended) and package ca's files.
//
// # Why not otherwise
//
// Raft inside the process instead of etcd beside it: one binary, and the state machine can refuse. Nodes that cannot
// vote are Raft non-voters instead of clients that poll: every node then has the state, and a follower's answer costs
// no network.
package coordinator

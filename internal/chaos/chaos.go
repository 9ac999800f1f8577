// Package chaos decides which faults a cluster is put through, and judges what it made of them.
//
// Schedule is a pure function of its spec: the same seed gives the same faults, so that a run that went wrong can be
// put through the same again. (The moment within a step at which a fault hits is the machine's, not the seed's.)
// Whoever carries the faults out (lorad chaos) tells Judge what was seen.
//
// # The faults
//
//   - kill: SIGKILL of one node; it is started again, with its disk, after Down. No goodbye, no flush.
//   - stop: SIGSTOP of one node for Down, then SIGCONT: to the others it is a machine that hangs with its connections
//     open, and it comes back believing that no time has passed.
//   - leader: SIGKILL of the node that leads Raft at that moment, which also trains; started again after Down.
//   - restart: SIGTERM of one node, which hands over what it can; started again after Down.
//   - outage: SIGKILL of all nodes at once; all are started again, together, after Down.
//   - partition: as many nodes as can be are cut off from the majority for Down. They reach each other.
//   - pull: one node is cut off from all others for Down, as if its cable were pulled.
//   - torn: SIGKILL of one node, and the newest checkpoint on its disk loses its end, or a bit of it is flipped, before
//     it is started again.
//   - disk: the disk of one node is full for Down: no file may grow beyond the size that the node's Raft log has. If the
//     log needs more, the node ends, and says so; it is started again.
//   - wipe: SIGKILL of one node that is not the run's home. It loses its disk, is removed from the cluster and joins
//     anew.
//
// # Why not otherwise
//
// A cut is made by relays that the nodes' connections go through (package relay): a command for everybody cannot ask
// for rights on the machine. SIGKILL does not lose what the kernel has taken but not yet written: outage is a crash of
// all processes, and says nothing about a disk that lies about fsync (package durable's tests do).
//
// The generator is SplitMix64 (Steele, Lea, Flood 2014) and not math/rand, whose streams may change between releases.
package chaos

import (
	"fmt"
	"math/bits"
	"slices"
	"time"
)

// Kind is a sort of fault.
type Kind string

// The kinds; docs/cli.md says how long each lasts.
const (
	Kill      Kind = "kill"      // SIGKILL of a node
	Stop      Kind = "stop"      // SIGSTOP, then SIGCONT
	Leader    Kind = "leader"    // SIGKILL of whoever leads Raft
	Restart   Kind = "restart"   // SIGTERM
	Outage    Kind = "outage"    // SIGKILL of all nodes
	Partition Kind = "partition" // a minority is cut off together
	Pull      Kind = "pull"      // a node is cut off from all others
	Torn      Kind = "torn"      // SIGKILL, and its newest checkpoint is damaged
	Disk      Kind = "disk"      // the disk is full for a while
	Wipe      Kind = "wipe"      // SIGKILL, and it comes back without its disk
)

// Kinds lists all of them.
func Kinds() []Kind {
	return []Kind{Kill, Stop, Leader, Restart, Outage, Partition, Pull, Torn, Disk, Wipe}
}

// Cuts says whether a fault parts the network, and leaves all processes alone.
func (k Kind) Cuts() bool { return k == Partition || k == Pull }

// Freezes says whether the fault leaves the processes it hits as they are, to go on afterwards as if nothing had been.
func (k Kind) Freezes() bool { return k == Stop || k == Disk || k.Cuts() }

// Spec is what a schedule is made from.
type Spec struct {
	Seed  uint64
	Kinds []Kind
	Count int    // faults
	Nodes int    // of the cluster, numbered from 0
	Steps uint64 // of the run that is disturbed
	Brief bool   // nodes that are killed are away as briefly as it takes to start them
}

// Fault is one disturbance.
type Fault struct {
	Kind Kind
	Node int           // who is hit, except by Leader and Outage
	Step uint64        // it comes when this step has been committed
	Wait time.Duration // and so long after, to hit every phase of a step
	Down time.Duration // how long the node is away
}

const (
	maxWait           = 400 * time.Millisecond
	minDown, maxDown  = 300 * time.Millisecond, 2 * time.Second
	briefDown         = 500 * time.Millisecond
	minStop, maxStop  = time.Second, 6 * time.Second
	maxCount          = 10_000
	minNodes, maxNode = 3, 9
)

// Schedule deals the faults evenly over the run and the kinds evenly over the faults, in an order and with victims,
// waits and durations that the seed decides.
func Schedule(s Spec) ([]Fault, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	r := stream{mix(s.Seed + golden)}
	var bag []Kind
	faults := make([]Fault, s.Count)
	for i := range faults {
		if len(bag) == 0 {
			bag = slices.Clone(s.Kinds)
		}
		k := r.below(len(bag))
		f := Fault{Kind: bag[k], Node: r.below(s.Nodes), Step: s.step(i, &r), Wait: r.between(0, maxWait)}
		bag = slices.Delete(bag, k, k+1)
		switch f.Down = r.between(minDown, maxDown); {
		case f.Kind.Freezes():
			f.Down = r.between(minStop, maxStop)
		case s.Brief:
			f.Down = min(f.Down, briefDown)
		}
		faults[i] = f
	}
	return faults, nil
}

func (s Spec) check() error {
	switch {
	case len(s.Kinds) == 0:
		return fmt.Errorf("chaos: faults: none: choose from %v", Kinds())
	case s.Count < 1 || s.Count > maxCount:
		return fmt.Errorf("chaos: count: %d: give 1 to %d", s.Count, maxCount)
	case s.Nodes < minNodes || s.Nodes > maxNode:
		return fmt.Errorf("chaos: nodes: %d: give %d to %d; fewer have no majority without one", s.Nodes, minNodes, maxNode)
	case s.Steps < 2*uint64(s.Count):
		return fmt.Errorf("chaos: steps: %d: too few for %d faults; give at least %d", s.Steps, s.Count, 2*s.Count)
	}
	for _, k := range s.Kinds {
		if !slices.Contains(Kinds(), k) {
			return fmt.Errorf("chaos: faults: %q is not one of %v", k, Kinds())
		}
	}
	return nil
}

// step is that of fault i: somewhere in the i-th of Count equal parts of the run's first nine tenths, so that there is
// work left after the last one.
func (s Spec) step(i int, r *stream) uint64 {
	part := func(i int) uint64 { return s.Steps * 9 * uint64(i) / (10 * uint64(s.Count)) }
	from, to := part(i), part(i+1)
	return from + uint64(r.below(int(max(1, to-from))))
}

// stream is SplitMix64.
type stream struct{ x uint64 }

const golden = 0x9e3779b97f4a7c15 // 2^64 / golden ratio, odd

func (s *stream) next() uint64 {
	s.x += golden
	return mix(s.x)
}

func mix(z uint64) uint64 {
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// below draws from [0, n).
func (s *stream) below(n int) int {
	hi, _ := bits.Mul64(s.next(), uint64(n))
	return int(hi)
}

// between draws whole milliseconds from [lo, hi).
func (s *stream) between(lo, hi time.Duration) time.Duration {
	return lo + time.Duration(s.below(int((hi-lo)/time.Millisecond)))*time.Millisecond
}

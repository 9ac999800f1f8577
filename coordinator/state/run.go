package state

import (
	"cmp"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"lorad/proto"
)

// transitions is the graph of phases. Everything else is a bug in this package.
var transitions = map[proto.Phase][]proto.Phase{
	proto.Phase_PENDING:  {proto.Phase_RUNNING, proto.Phase_STOPPED, proto.Phase_FAILED},
	proto.Phase_RUNNING:  {proto.Phase_STOPPING, proto.Phase_STOPPED, proto.Phase_DONE, proto.Phase_FAILED},
	proto.Phase_STOPPING: {proto.Phase_STOPPED, proto.Phase_DONE, proto.Phase_FAILED},
	proto.Phase_STOPPED:  {proto.Phase_PENDING, proto.Phase_FAILED},
	proto.Phase_FAILED:   {proto.Phase_PENDING},
}

// Terminal reports whether a run in this phase goes no further by itself.
func Terminal(p proto.Phase) bool {
	return p == proto.Phase_STOPPED || p == proto.Phase_DONE || p == proto.Phase_FAILED
}

// Leased reports whether members may be at work on a run in this phase.
func Leased(p proto.Phase) bool { return p == proto.Phase_RUNNING || p == proto.Phase_STOPPING }

// move puts r, a copy that nobody has seen yet, into a phase. A move off the graph is a programming error.
func move(r *proto.Run, to proto.Phase, reason string, now int64) {
	if !slices.Contains(transitions[r.Phase], to) {
		panic(fmt.Sprintf("state: run %s cannot go from %s to %s", r.Spec.Run, r.Phase, to))
	}
	r.Phase, r.Reason = to, reason
	if to == proto.Phase_DONE {
		archived(r)
	}
	if Terminal(to) {
		r.FinishedUnixMs, r.Ready, r.Unfit = now, nil, nil
	}
}

// Header is the run without its ledger. What it points to is shared.
func Header(r *proto.Run) *proto.Run {
	h := mutable(r)
	h.Ledger, h.Archive = nil, nil
	return h
}

// mutable is a copy of the run whose own fields may be set. Messages it points to are shared and are replaced,
// never written to; the ledger is only ever appended to, which no older copy can see.
func mutable(r *proto.Run) *proto.Run {
	return &proto.Run{
		Spec: r.Spec, Phase: r.Phase, Reason: r.Reason, Lease: r.Lease, Step: r.Step, Ledger: r.Ledger,
		Checkpoints: r.Checkpoints, AdapterSha256: r.AdapterSha256, StartedUnixMs: r.StartedUnixMs,
		FinishedUnixMs: r.FinishedUnixMs, Recoveries: r.Recoveries, Trouble: r.Trouble, Yielded: r.Yielded, YieldedBy: r.YieldedBy, Ready: r.Ready, Unfit: r.Unfit, Home: r.Home,
		Archive: r.Archive, Ended: r.Ended,
	}
}

func (m *Machine) put(r *proto.Run) Result {
	m.runs[r.Spec.Run] = r
	return Result{Run: r}
}

func (m *Machine) find(op, id string) (*proto.Run, error) {
	r := m.runs[id]
	if r == nil {
		return nil, refuse(Unknown, op, "run "+id, "no run has this id")
	}
	return mutable(r), nil
}

// submitRun records a run. The same job with the same inputs has the same id, so submitting twice is a question,
// not a second run.
func (m *Machine) submitRun(s *proto.Spec) (Result, error) {
	switch {
	case s.GetRun() == "" || s.GetSteps() == 0 || s.GetMicroBatches() == 0:
		return Result{}, refuse(Invalid, "submit", "run "+s.GetRun(), "a run has an id, steps and micro-batches")
	case !safeNames(s):
		return Result{}, refuse(Invalid, "submit", "run", "its id or an input's name is not one that may become a file's: no .., no leading slash")
	case m.runs[s.Run] != nil:
		return m.resubmit(m.runs[s.Run], s.HomeNode), nil
	case m.nodes[s.HomeNode] == nil:
		return Result{}, refuse(Unknown, "submit", "run "+s.Run, "its home node %q is not in the cluster", s.HomeNode)
	}
	return m.put(&proto.Run{Spec: s, Phase: proto.Phase_PENDING, Reason: "submitted"}), nil
}

// safeNames reports whether the run's id and the names of its inputs stay in the directory they are put in: on every
// node, files and folders get these names.
func safeNames(s *proto.Spec) bool {
	if !fs.ValidPath(s.Run) || strings.ContainsAny(s.Run, `/\:`) || s.Run == "." {
		return false
	}
	return !slices.ContainsFunc(s.Files, func(f *proto.File) bool {
		return !fs.ValidPath(f.GetName()) || strings.ContainsAny(f.GetName(), `\:`) || f.GetName() == "."
	})
}

// resubmit finds the run that a job already is. One whose home is gone has found a new one with that.
func (m *Machine) resubmit(r *proto.Run, home string) Result {
	if m.nodes[r.HomeNode()] == nil && m.nodes[home] != nil || r.Lease == nil && r.Phase == proto.Phase_FAILED {
		r = mutable(r)
		r.Home = home
		m.put(r)
	}
	return Result{Run: r, Existed: true}
}

// stopRun asks the members to stop at a step they agree on. Without members there is nothing to wait for.
func (m *Machine) stopRun(s *proto.StopRun, now int64) (Result, error) {
	r, err := m.find("stop", s.GetRun())
	if err != nil {
		return Result{}, err
	}
	reason := cmp.Or(clipped(s.Reason), "stopped by the user")
	switch {
	case r.Phase == proto.Phase_DONE || r.Phase == proto.Phase_FAILED:
		return Result{}, refuse(Illegal, "stop", "run "+s.Run, "it is %s already", r.Phase)
	case r.Phase == proto.Phase_PENDING, r.Phase == proto.Phase_STOPPING && s.Settle:
		move(r, proto.Phase_STOPPED, reason, now)
	case r.Phase == proto.Phase_RUNNING:
		move(r, proto.Phase_STOPPING, reason, now)
	default: // being stopped or stopped: what was asked for is so
		return Result{Run: m.runs[s.Run]}, nil
	}
	return m.put(r), nil
}

// resumeRun queues a stopped or failed run again. Its ledger and checkpoints stay: steps that have to be done
// again must come out as they did.
func (m *Machine) resumeRun(id string) (Result, error) {
	r, err := m.find("resume", id)
	if err != nil {
		return Result{}, err
	}
	switch r.Phase {
	case proto.Phase_STOPPED, proto.Phase_FAILED:
	case proto.Phase_DONE:
		return Result{}, refuse(Illegal, "resume", "run "+id, "it is DONE: its adapter is in %s", r.Spec.OutputDir)
	default:
		return Result{Run: m.runs[id]}, nil
	}
	move(r, proto.Phase_PENDING, "resumed", 0)
	r.FinishedUnixMs, r.Trouble = 0, nil
	return m.put(r), nil
}

// grantLease begins the next generation, or raises the end of the current one.
func (m *Machine) grantLease(g *proto.GrantLease, now int64) (Result, error) {
	r, err := m.find("lease", g.GetRun())
	if err != nil {
		return Result{}, err
	}
	if err := m.checkLease(r, g.Lease); err != nil {
		return Result{}, err
	}
	if g.Lease.Generation == r.Lease.GetGeneration() {
		return m.renew(r, g.Lease)
	}
	r.Lease = &proto.Lease{
		Generation: g.Lease.Generation, Members: g.Lease.Members, From: g.Lease.From, Until: g.Lease.Until, GrantedUnixMs: now,
	}
	r.Recoveries = r.Lease.Generation - 1
	r.Ready = slices.DeleteFunc(slices.Clone(r.Ready), func(k *proto.Ready) bool { return slices.Contains(r.Lease.Members, k.Node) })
	if r.StartedUnixMs == 0 {
		r.StartedUnixMs = now
	}
	if r.Phase == proto.Phase_PENDING {
		move(r, proto.Phase_RUNNING, g.Reason, now)
	} else if r.Phase == proto.Phase_RUNNING {
		r.Reason = g.Reason
	}
	return m.put(r), nil
}

// checkLease refuses what the leader must never have proposed, or proposed too late.
func (m *Machine) checkLease(r *proto.Run, l *proto.Lease) error {
	subject, current := "run "+r.Spec.Run, r.Lease.GetGeneration()
	renewal := l.GetGeneration() == current && current > 0
	switch {
	case r.Phase != proto.Phase_PENDING && !Leased(r.Phase):
		return refuse(Illegal, "lease", subject, "it is %s", r.Phase)
	case r.Phase == proto.Phase_PENDING && renewal:
		return refuse(Stale, "lease", subject, "generation %d is over", current)
	case l.GetGeneration() != current+1 && !renewal:
		return refuse(Stale, "lease", subject, "generation %d is at work, so %d cannot be granted", current, l.GetGeneration())
	case l.From == 0 || l.From > r.Step+1 || l.Until <= l.From && r.Step < r.LastStep() || l.Until > r.Spec.Steps+1:
		return refuse(Invalid, "lease", subject, "steps [%d, %d) are not what comes after step %d of %d", l.From, l.Until, r.Step, r.Spec.Steps)
	}
	return m.checkMembers(subject, l.Members)
}

func (m *Machine) checkMembers(subject string, members []string) error {
	if len(members) == 0 {
		return refuse(Invalid, "lease", subject, "a lease has members")
	}
	for i, id := range members {
		if m.nodes[id] == nil {
			return refuse(Unknown, "lease", subject, "member %s is not in the cluster", id)
		}
		if slices.Contains(members[:i], id) {
			return refuse(Invalid, "lease", subject, "member %s is named twice", id)
		}
	}
	return nil
}

// renew lets the same members of the same generation go further.
func (m *Machine) renew(r *proto.Run, l *proto.Lease) (Result, error) {
	old := r.Lease
	if l.From != old.From || !slices.Equal(l.Members, old.Members) || l.Until < old.Until {
		return Result{}, refuse(Invalid, "lease", "run "+r.Spec.Run, "a renewal only raises the end of generation %d", old.Generation)
	}
	if r.Trouble.GetGeneration() == old.Generation {
		return Result{}, refuse(Stale, "lease", "run "+r.Spec.Run, "generation %d was given up", old.Generation)
	}
	r.Lease = &proto.Lease{
		Generation: old.Generation, Members: old.Members, From: old.From, Until: l.Until, GrantedUnixMs: old.GrantedUnixMs,
	}
	return m.put(r), nil
}

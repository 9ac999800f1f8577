package state

import (
	"bytes"
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"lorad/proto"
)

// maxDetail bounds what anybody may write into the state in words, in bytes.
const maxDetail = 4 << 10

// clipped is the text, or as much of it as the state takes. What is left of a character that was cut goes as well: a string that is
// not UTF-8 could never be encoded again.
func clipped(text string) string {
	return strings.ToValidUTF8(text[:min(len(text), maxDetail)], "")
}

// report takes in what a member saw: first the steps, then the checkpoint, then how the generation ended for it.
func (m *Machine) report(p *proto.Report, now int64) (Result, error) {
	r, err := m.find("report", p.GetRun())
	if err != nil {
		return Result{}, err
	}
	if p.Outcome == proto.Outcome_READY {
		return m.ready(r, p)
	}
	in := intake{run: r, report: p, now: now}
	in.stale = p.Generation != r.Lease.GetGeneration() || !Leased(r.Phase)
	if err := in.check(); err != nil {
		return Result{}, err
	}
	if in.steps() && in.checkpoint() && !in.stale {
		in.outcome()
	}
	res := m.put(r)
	res.Stale = in.stale
	return res, nil
}

// intake is one report on its way into a run that nobody else has seen yet.
type intake struct {
	run    *proto.Run
	report *proto.Report
	now    int64
	stale  bool // the generation is over: compare, do not add
}

// check refuses a report as a whole, before anything of it is taken in.
func (in *intake) check() error {
	r, p := in.run, in.report
	subject := "run " + p.Run
	if p.Generation == 0 || p.Generation > r.Lease.GetGeneration() {
		return refuse(Invalid, "report", subject, "generation %d was never granted", p.Generation)
	}
	if !in.stale && !slices.Contains(r.Lease.Members, p.Node) {
		return refuse(Invalid, "report", subject, "node %s is no member of generation %d", p.Node, p.Generation)
	}
	if err := in.checkSteps(subject); err != nil {
		return err
	}
	end := max(r.Step, in.lastStep())
	if c := p.Checkpoint; c != nil && (len(c.Sha256) != 32 || !in.stale && c.Step > end) {
		return refuse(Gap, "report", subject, "a checkpoint of step %d before the step is committed (at %d)", c.Step, end)
	}
	if p.Outcome == proto.Outcome_FINISHED && !in.stale && (end != in.lastOfRun() || len(p.AdapterSha256) != 32) {
		return refuse(Gap, "report", subject, "finished at step %d of %d: report the steps and the adapter's SHA-256 first", end, in.lastOfRun())
	}
	return nil
}

// checkSteps demands steps in order that join on to the ledger and stay below the end of the lease.
func (in *intake) checkSteps(subject string) error {
	r, steps := in.run, in.report.Steps
	for i, s := range steps {
		if s.GetStep() == 0 || i > 0 && s.Step != steps[i-1].Step+1 {
			return refuse(Invalid, "report", subject, "steps are numbered from 1 and come in order")
		}
	}
	if in.stale || len(steps) == 0 {
		return nil
	}
	if steps[0].Step > r.Step+1 {
		return refuse(Gap, "report", subject, "step %d where %d is next: report from there", steps[0].Step, r.Step+1)
	}
	last := in.lastStep()
	if last > r.Step && last >= r.Lease.Until {
		return refuse(Invalid, "report", subject, "step %d is beyond the lease, which ends before %d", last, r.Lease.Until)
	}
	if end := in.lastOfRun(); last > end {
		return refuse(Invalid, "report", subject, "step %d after step %d, which ended the run", last, end)
	}
	return nil
}

// lastOfRun is the step that the run ends with, as far as the ledger and this report say.
func (in *intake) lastOfRun() uint64 {
	for _, s := range in.report.Steps {
		if s.Last && !in.stale {
			return s.Step
		}
	}
	return in.run.LastStep()
}

func (in *intake) lastStep() uint64 {
	if n := len(in.report.Steps); n > 0 && !in.stale {
		return in.report.Steps[n-1].Step
	}
	return 0
}

// steps compares what is known and appends what is new. It reports whether the replicas agree.
func (in *intake) steps() bool {
	r := in.run
	var ledger []*proto.StepRecord // of what was known before
	if len(in.report.Steps) > 0 {
		ledger = Ledger(r)
	}
	for _, s := range in.report.Steps {
		switch {
		case s.Step <= uint64(len(ledger)):
			if known := ledger[s.Step-1]; !same(known, s) {
				in.diverged(fmt.Sprintf("at step %d", s.Step), describe(known, known.Node), describe(s, in.report.Node))
				return false
			}
		case !in.stale:
			r.Ledger = append(r.Ledger, in.record(s))
			r.Step = s.Step
			if s.Last {
				r.Ended = s.Step
			}
		}
	}
	return true
}

// same compares what is a function of the run alone. Durations differ from member to member.
func same(a, b *proto.StepRecord) bool {
	return a.Digest == b.Digest && a.Tokens == b.Tokens && math.Float64bits(a.Loss) == math.Float64bits(b.Loss) &&
		math.Float64bits(a.EvalLoss) == math.Float64bits(b.EvalLoss) && a.Last == b.Last
}

func describe(s *proto.StepRecord, node string) string {
	said := fmt.Sprintf("node %s has digest %016x, loss %v, %d tokens", node, s.Digest, s.Loss, s.Tokens)
	if s.EvalLoss != 0 {
		said += fmt.Sprintf(", eval loss %v", s.EvalLoss)
	}
	return said
}

// record is the step as the ledger keeps it: who said so, and in which generation.
func (in *intake) record(s *proto.StepRecord) *proto.StepRecord {
	return &proto.StepRecord{
		Step: s.Step, Generation: in.report.Generation, Loss: s.Loss, GradNorm: s.GradNorm, LearningRate: s.LearningRate,
		Tokens: s.Tokens, TotalTokens: s.TotalTokens, DurationUs: s.DurationUs, Epoch: s.Epoch, Digest: s.Digest,
		EvalLoss: s.EvalLoss, ComputeUs: s.ComputeUs, ReduceUs: s.ReduceUs, Node: in.member(),
		Bad: s.Bad, Last: s.Last,
	}
}

// member is the reporter's id, as the lease spells it where possible: a ledger of 100,000 steps then holds one
// string, not as many.
func (in *intake) member() string {
	members := in.run.Lease.GetMembers()
	if i := slices.Index(members, in.report.Node); i >= 0 {
		return members[i]
	}
	return in.report.Node
}

// checkpoint notes who holds the state of a step durably. It reports whether the replicas agree.
func (in *intake) checkpoint() bool {
	r, c := in.run, in.report.Checkpoint
	if c == nil || c.Step > r.Step {
		return true // nothing, or of a step that only an abandoned generation did
	}
	i, found := slices.BinarySearchFunc(r.Checkpoints, c.Step, func(k *proto.Checkpoint, step uint64) int {
		return cmp.Compare(k.Step, step)
	})
	if !found {
		fresh := &proto.Checkpoint{Step: c.Step, Sha256: c.Sha256, Nodes: []string{in.member()}}
		r.Checkpoints = slices.Insert(slices.Clone(r.Checkpoints), i, fresh)
		return true
	}
	known := r.Checkpoints[i]
	if !bytes.Equal(known.Sha256, c.Sha256) {
		in.diverged(fmt.Sprintf("in the checkpoint of step %d", c.Step),
			fmt.Sprintf("node %s has %x", known.Nodes[0], known.Sha256), fmt.Sprintf("node %s has %x", in.report.Node, c.Sha256))
		return false
	}
	if !slices.Contains(known.Nodes, in.report.Node) {
		nodes := append(slices.Clone(known.Nodes), in.member())
		slices.Sort(nodes)
		r.Checkpoints = slices.Clone(r.Checkpoints)
		r.Checkpoints[i] = &proto.Checkpoint{Step: c.Step, Sha256: known.Sha256, Nodes: nodes}
	}
	return true
}

// outcome is how the generation ended for one member.
func (in *intake) outcome() {
	r, p := in.run, in.report
	detail := clipped(p.Detail)
	switch p.Outcome {
	case proto.Outcome_OUTCOME_UNSPECIFIED:
		if detail != "" { // a complaint: the run goes on
			r.Reason = fmt.Sprintf("node %s: %s", p.Node, detail)
		}
	case proto.Outcome_FINISHED:
		in.finished(cmp.Or(detail, "all steps done"))
	case proto.Outcome_PAUSED:
		why := r.Reason
		if r.Phase == proto.Phase_RUNNING {
			why = fmt.Sprintf("paused by node %s: %s", p.Node, detail)
		}
		move(r, proto.Phase_STOPPED, why, in.now)
	case proto.Outcome_ABORTED:
		in.aborted(detail)
	case proto.Outcome_YIELDED:
		in.yielded()
	case proto.Outcome_UNFIT:
		in.unfit(detail)
		in.aborted(detail)
	case proto.Outcome_BROKEN:
		move(r, proto.Phase_FAILED, fmt.Sprintf("node %s: %s", p.Node, detail), in.now)
	}
}

// unfit notes that a member cannot do this run's work, and why.
func (in *intake) unfit(detail string) {
	r, id := in.run, in.member()
	r.Unfit = slices.DeleteFunc(slices.Clone(r.Unfit), func(u *proto.Unfit) bool { return u.Node == id })
	r.Unfit = append(r.Unfit, &proto.Unfit{Node: id, Boot: in.report.Boot, Reason: detail})
}

// yielded notes who stands between two steps. The generation is over when all its members do: one that has not got the
// sum yet would lose it with those that leave.
func (in *intake) yielded() {
	r := in.run
	if r.Yielded != in.report.Generation {
		r.Yielded, r.YieldedBy = in.report.Generation, nil
	}
	if !slices.Contains(r.YieldedBy, in.report.Node) {
		r.YieldedBy = append(slices.Clone(r.YieldedBy), in.member())
	}
}

// finished compares the adapters; the run is done when the home node has written its own.
func (in *intake) finished(why string) {
	r, p := in.run, in.report
	if len(r.AdapterSha256) > 0 && !bytes.Equal(r.AdapterSha256, p.AdapterSha256) {
		in.diverged("in the finished adapter", fmt.Sprintf("it was %x", r.AdapterSha256), fmt.Sprintf("node %s has %x", p.Node, p.AdapterSha256))
		return
	}
	r.AdapterSha256 = p.AdapterSha256
	// A member that became home while it was finishing has written to another place: it will finish once more.
	moved := r.Home != "" && r.Trouble.GetGeneration() == p.Generation
	if p.Node == r.HomeNode() && !moved {
		move(r, proto.Phase_DONE, why, in.now)
	}
}

// aborted breaks the lease. The first member to say so names the suspect; the others say the same a moment later.
func (in *intake) aborted(detail string) {
	r, p := in.run, in.report
	old := r.Trouble
	if old.GetGeneration() == p.Generation {
		return
	}
	row := uint32(1)
	if old != nil && r.Step < r.Lease.From {
		row += old.InARow
	}
	r.Trouble = &proto.Trouble{
		Generation: p.Generation, Node: p.Node, Suspect: p.Suspect, Detail: detail, UnixMs: in.now, InARow: row,
	}
}

// diverged fails the run, or says so where it is over already: what two nodes hold must never differ.
func (in *intake) diverged(where, one, other string) {
	why := fmt.Sprintf("replicas diverged %s: %s, %s; one of the two machines computes wrongly", where, one, other)
	if slices.Contains(transitions[in.run.Phase], proto.Phase_FAILED) {
		move(in.run, proto.Phase_FAILED, why, in.now)
		return
	}
	in.run.Reason = why
}

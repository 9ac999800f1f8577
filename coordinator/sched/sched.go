package sched

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"lorad/coordinator/state"
	"lorad/proto"
)

// Times are in milliseconds.
const (
	joinAfter    = 2_000  // a node that has been alive this long may join a run
	joinPause    = 5_000  // and no sooner than this after the last new generation
	joinWorth    = 5_000  // and only if at least this much work is left
	abandonAfter = 10_000 // whoever has a run's newest state may be away this long before others go on with an older one
	shunFor      = 30_000 // a suspect of fruitless generations is left out this long
	shunAfter    = 3      // fruitless generations in a row
	backoffFirst = 200    // before the generation after the second fruitless one; doubles
	backoffMost  = 5_000
	windowTime   = 10_000
	windowSteps  = 64
	windowMost   = 1 << 20 // steps: a lease is never endless, however fast the steps are
	sample       = 16      // records of the ledger that a step's duration is measured from
)

// Liveness is what the leader knows of one node. A node that is not in the map is not known yet.
type Liveness struct {
	Alive bool
	Since int64 // unix ms: alive or dead since then
	Boot  string
}

// View is the part of the state that decisions depend on.
type View struct {
	Nodes []*proto.Node // sorted by id
	Runs  []*proto.Run  // that are not over, the oldest first
}

// Look takes the view of a machine. It stays as it is while the machine goes on.
func Look(m *state.Machine) View { return View{m.Nodes(), m.Unsettled()} }

// Decision is one command to propose, or, without a command, why a run has to wait.
type Decision struct {
	Run     string
	Command *proto.Command
	Reason  string
}

// Next decides on every run, the oldest first.
func Next(v View, live map[string]Liveness, now int64) []Decision {
	var out []Decision
	busy := occupant(v.Runs)
	for _, r := range v.Runs {
		p := planner{view: v, live: live, now: now, run: r}
		d := p.next(busy)
		if d.Command == nil && d.Reason == "" {
			continue
		}
		if r.Phase == proto.Phase_PENDING && d.Command != nil {
			busy = r.Spec.Run
		}
		d.Run = r.Spec.Run
		out = append(out, d)
	}
	return out
}

// occupant is the run that has the cluster, or "". A run that has all its steps and only waits for its home node to
// come back leaves the cluster to the next one.
func occupant(runs []*proto.Run) string {
	for _, r := range runs {
		if state.Leased(r.Phase) && (r.Step < r.LastStep() || slices.Contains(r.Lease.Members, r.HomeNode())) {
			return r.Spec.Run
		}
	}
	return ""
}

// planner looks at one run.
type planner struct {
	view View
	live map[string]Liveness
	now  int64
	run  *proto.Run
}

// finishing: all steps are done, only the home node's files are missing.
func (p planner) finishing() bool { return p.run.Step == p.run.LastStep() }

// written: a member has the last step's state on its disk. It has said so and says no more.
func (p planner) written() bool { return len(p.run.AdapterSha256) > 0 }

func (p planner) next(busy string) Decision {
	switch p.run.Phase {
	case proto.Phase_PENDING:
		return p.start(busy)
	case proto.Phase_STOPPING:
		return p.stopping()
	case proto.Phase_RUNNING:
		return p.running()
	}
	return Decision{}
}

// start grants the first lease after submission or resumption.
func (p planner) start(busy string) Decision {
	home := p.run.HomeNode()
	switch {
	case busy != "":
		return wait("waits for run %s, which has the cluster", busy)
	case p.run.Lease == nil && !p.alive(home):
		return wait("waits for its home node %s, which has the inputs", p.name(home))
	}
	members := p.order(p.eligible())
	if !p.provided(members) {
		return p.unprovided()
	}
	if p.run.Lease != nil {
		return p.grant(members, "goes on with %s", p.names(members))
	}
	return p.grant(members, "starts on %s", p.names(members))
}

// stopping needs only the old members: they hold the state that the last checkpoint is made of. Their lease is renewed
// as ever, because they agree to stop in the sum of one more step.
func (p planner) stopping() Decision {
	l := p.run.Lease
	if p.written() && !slices.Contains(l.Members, p.run.HomeNode()) {
		return p.settle("stopped: all steps are done, and its home node %s is away", p.name(p.run.HomeNode()))
	}
	if p.dead(l.Members) == "" && !p.broken() && !p.yielded() {
		return p.renew()
	}
	rest := p.relieved(slices.DeleteFunc(p.staying(), func(id string) bool { return p.unfit(id) != "" }))
	if len(rest) == 0 {
		return p.settle("stopped: no member is alive and able to write another checkpoint")
	}
	if w := p.backoff(); w > 0 {
		return wait("stops again in %d ms", w)
	}
	return p.grant(rest, "stops on %s", p.names(rest))
}

// settle ends a run that is being stopped: there is nobody left to say that it has.
func (p planner) settle(format string, args ...any) Decision {
	stop := &proto.StopRun{Run: p.run.Spec.Run, Reason: p.run.Reason, Settle: true}
	return Decision{Command: &proto.Command{Do: &proto.Command_StopRun{StopRun: stop}}, Reason: fmt.Sprintf(format, args...)}
}

func (p planner) running() Decision {
	l := p.run.Lease
	members := p.order(p.handOver(p.prepared(p.eligible())))
	dead := p.dead(l.Members)
	switch {
	case !p.provided(members):
		return p.unprovided()
	case dead == "" && !p.broken() && !p.yielded():
		return p.undisturbed(members)
	case dead != "":
		return p.grant(members, "node %s is gone; goes on with %s", p.name(dead), p.names(members))
	case p.yielded():
		return p.grant(members, "%s; goes on with %s", p.leaver(), p.names(members))
	}
	if w := p.backoff(); w > 0 {
		return wait("tries again in %d ms: %s", w, p.trouble())
	}
	return p.grant(members, "%s; goes on with %s", p.trouble(), p.names(members))
}

// undisturbed: everybody works. Let newcomers in, or raise the end of the lease.
func (p planner) undisturbed(members []string) Decision {
	fresh := without(members, p.run.Lease.Members)
	whole := len(without(p.run.Lease.Members, members)) == 0 // newcomers must not drive a member out
	if whole && len(fresh) > 0 && !p.leaving() && p.mayJoin(fresh) {
		return p.grant(members, "%s joins; goes on with %s", p.names(fresh), p.names(members))
	}
	return p.renew()
}

// mayJoin reports whether a new generation for the sake of the newcomers pays.
func (p planner) mayJoin(fresh []string) bool {
	home := p.run.HomeNode()
	if p.finishing() {
		return slices.Contains(fresh, home) && p.steadily(home, joinAfter/2)
	}
	left := float64(p.run.LastStep() - p.run.Step)
	if p.now-p.run.Lease.GrantedUnixMs < joinPause || left < 4 || left*p.stepTime() < joinWorth {
		return false
	}
	return slices.ContainsFunc(fresh, func(id string) bool { return p.steadily(id, joinAfter) })
}

// grant is a new generation that goes on after the last committed step. Its end is never before that of the last one:
// members may have done every step below that, and what they report must not lie beyond the lease.
func (p planner) grant(members []string, format string, args ...any) Decision {
	reason := fmt.Sprintf(format, args...)
	return p.lease(&proto.Lease{
		Generation: p.run.Lease.GetGeneration() + 1, Members: members, From: p.run.Step + 1,
		Until: max(p.until(), p.run.Lease.GetUntil()),
	}, reason)
}

// renew raises the end of the lease once half its window is committed.
func (p planner) renew() Decision {
	l, until := p.run.Lease, p.until()
	if until <= l.Until || l.Until > p.run.Step+1+p.window()/2 {
		return Decision{}
	}
	raised := &proto.Lease{Generation: l.Generation, Members: l.Members, From: l.From, Until: until}
	return p.lease(raised, fmt.Sprintf("step %d is committed", p.run.Step))
}

func (p planner) lease(l *proto.Lease, reason string) Decision {
	g := &proto.GrantLease{Run: p.run.Spec.Run, Lease: l, Reason: reason}
	return Decision{Command: &proto.Command{Do: &proto.Command_GrantLease{GrantLease: g}}, Reason: reason}
}

func wait(format string, args ...any) Decision { return Decision{Reason: fmt.Sprintf(format, args...)} }

// until is the end of a window that begins after the last committed step.
func (p planner) until() uint64 { return min(p.run.Step+1+p.window(), p.run.LastStep()+1) }

// window is how many steps a lease reaches ahead.
func (p planner) window() uint64 {
	t := p.stepTime()
	if t <= 0 {
		return windowSteps
	}
	return max(windowSteps, uint64(math.Min(windowMost, math.Ceil(windowTime/t))))
}

// stepTime is the mean duration of the last steps in ms, or, before the first one, enough for any run to be worth
// joining.
func (p planner) stepTime() float64 {
	last := p.run.Ledger[max(0, len(p.run.Ledger)-sample):]
	if len(last) == 0 {
		return joinWorth
	}
	var us float64
	for _, s := range last {
		us += float64(s.DurationUs)
	}
	return us / 1000 / float64(len(last))
}

// broken reports whether a member gave the current generation up.
func (p planner) broken() bool {
	return p.run.Trouble != nil && p.run.Trouble.Generation == p.run.Lease.GetGeneration()
}

func (p planner) trouble() string {
	t := p.run.Trouble
	why := "node " + p.name(t.Node) + " gave generation " + fmt.Sprint(t.Generation) + " up"
	if t.Suspect != "" {
		why += " because of node " + p.name(t.Suspect)
	}
	if t.Detail != "" {
		why += " (" + t.Detail + ")"
	}
	return why
}

// backoff is how long to wait, in ms, before the next generation of a run whose generations keep being given up.
func (p planner) backoff() int64 {
	t := p.run.Trouble
	if t == nil || t.InARow < 2 || !p.broken() {
		return 0
	}
	pause := int64(backoffMost)
	if n := t.InARow - 2; n < 5 {
		pause = min(pause, backoffFirst<<n)
	}
	return max(0, min(pause, t.UnixMs+pause-p.now)) // another leader may have another clock
}

// shunned reports whether the node is left out because generations with it kept being given up.
func (p planner) shunned(id string) bool {
	t := p.run.Trouble
	return t != nil && t.Suspect == id && t.InARow >= shunAfter && p.now-t.UnixMs < shunFor && !p.finishing()
}

func (p planner) node(id string) *proto.Node {
	i, found := slices.BinarySearchFunc(p.view.Nodes, id, func(n *proto.Node, id string) int { return strings.Compare(n.Id, id) })
	if !found {
		return nil
	}
	return p.view.Nodes[i]
}

func (p planner) alive(id string) bool { return p.node(id) != nil && p.live[id].Alive }

// steadily reports whether the node has been alive for so many ms.
func (p planner) steadily(id string, ms int64) bool {
	return p.alive(id) && p.now-p.live[id].Since >= ms
}

// dead names the first of the members that is known to be gone, or is "".
func (p planner) dead(members []string) string {
	for _, id := range members {
		l, known := p.live[id]
		if p.node(id) == nil || known && !l.Alive {
			return id
		}
	}
	return ""
}

// eligible lists the nodes that may be members now, by id.
func (p planner) eligible() []string {
	version := p.version()
	var ids []string
	for _, n := range p.view.Nodes {
		same := n.Version == version || p.finishing()
		if p.alive(n.Id) && same && !n.Witness && !p.excused(n.Id) && !p.shunned(n.Id) && p.unfit(n.Id) == "" {
			ids = append(ids, n.Id)
		}
	}
	return ids
}

// version is what every member must run: that of the first member that stays, or of the home node, or of any live one.
func (p planner) version() string {
	candidates := append(slices.Clone(p.run.Lease.GetMembers()), p.run.HomeNode())
	if p.run.Phase == proto.Phase_PENDING {
		candidates = []string{p.run.HomeNode()}
	}
	for _, n := range p.view.Nodes {
		candidates = append(candidates, n.Id)
	}
	for _, id := range candidates {
		if p.alive(id) {
			return p.node(id).Version
		}
	}
	return ""
}

// order puts members in ring order: those of the last lease as they were, then the home node, then the rest by id.
func (p planner) order(ids []string) []string {
	before := append(slices.Clone(p.run.Lease.GetMembers()), p.run.HomeNode())
	var ring []string
	wanted := setOf(ids)
	for _, id := range slices.Concat(before, ids) {
		if wanted[id] {
			ring, wanted[id] = append(ring, id), false
		}
	}
	return ring
}

// staying lists the members of the lease that are alive.
func (p planner) staying() []string {
	return slices.DeleteFunc(slices.Clone(p.run.Lease.Members), func(id string) bool { return !p.alive(id) })
}

func (p planner) name(id string) string {
	if n := p.node(id); n != nil && n.Name != "" {
		return n.Name
	}
	return id
}

func (p planner) names(ids []string) string {
	names := make([]string, len(ids))
	for i, id := range ids {
		names[i] = p.name(id)
	}
	return strings.Join(names, ", ")
}

// without is the elements of a that are not in b.
func without(a, b []string) []string {
	in := setOf(b)
	return slices.DeleteFunc(slices.Clone(a), func(id string) bool { return in[id] })
}

func setOf(ids []string) map[string]bool {
	set := make(map[string]bool, len(ids))
	for _, id := range ids {
		set[id] = true
	}
	return set
}

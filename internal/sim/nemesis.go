package sim

import "lorad/proto"

// nemesis does harm, at times drawn from the seed, until its hour is over; then everything is mended, and the runs must
// end within a bounded time.
type nemesis struct {
	w        *World
	until    int64
	deadline int64
	pause    int64 // mean time between two faults
	kinds    []fault
}

type fault struct {
	name string
	do   func(*nemesis)
}

var faults = []fault{
	{"crash", (*nemesis).crash},
	{"crash", (*nemesis).crash},
	{"quick restart", (*nemesis).bounce},
	{"stop", (*nemesis).stop},
	{"partition", (*nemesis).partition},
	{"cut wire", (*nemesis).cut},
	{"link reset", (*nemesis).reset},
	{"link reset", (*nemesis).reset},
	{"leader deposed", (*nemesis).depose},
	{"leader killed", (*nemesis).regicide},
	{"slow disk", (*nemesis).slow},
	{"slow node", (*nemesis).load},
	{"lost checkpoints", (*nemesis).wipe},
	{"power cut", (*nemesis).powerCut},
	{"false alarm", (*nemesis).slander},
	{"user", (*nemesis).meddle},
	{"drain", (*nemesis).drain},
	{"full disk", (*nemesis).fill}, // the last, see Config.Roomy
}

// grace is how long runs may take after the last fault, besides their work.
const grace = 240 * second

func (m *nemesis) begin(w *World) {
	m.w = w
	m.pause = w.rng.span(200*ms, 8*second)
	if !w.cfg.Calm {
		m.until = w.rng.span(5*second, 150*second)
	}
	all := faults
	if w.cfg.Roomy {
		all = faults[:len(faults)-1]
	}
	m.kinds = all
	if w.cfg.Drain {
		m.kinds = []fault{{"drain", (*nemesis).drain}}
	} else if w.rng.percent(40) { // a life of few kinds of trouble, which may go deeper
		m.kinds = []fault{pick(&w.rng, all), pick(&w.rng, all)}
	}
	m.deadline = m.until + grace
	for _, u := range w.users {
		m.deadline += int64(u.life.plan.Steps) * (int64(u.life.most)*200*ms + 150*ms)
	}
	w.after(w.rng.span(0, m.pause), m.strike)
	w.at(m.until, m.mend)
}

// quiet says whether the last fault has been.
func (w *World) quiet() bool { return w.now >= w.nemesis.until }

func (m *nemesis) strike() {
	if m.w.quiet() {
		return
	}
	f := pick(&m.w.rng, m.kinds)
	m.w.out.Faults[f.name]++
	m.w.note("fault", "%s", f.name)
	f.do(m)
	m.w.after(m.w.rng.span(0, 2*m.pause), m.strike)
}

// mend ends all faults and sees to it that no run stays stopped.
func (m *nemesis) mend() {
	m.w.note("fault", "everything is mended")
	m.w.wires.heal()
	for _, n := range m.w.nodes {
		n.slowUntil, n.fullUntil, n.laden = 0, 0, 0
		n.thaw()
		if !n.up {
			n.start()
		}
	}
	m.resume()
}

// resume sees to it that nothing stays stopped or drained because somebody wanted it so.
func (m *nemesis) resume() {
	for _, n := range m.w.nodes {
		m.ask(n, true)
	}
	for _, u := range m.w.users {
		if u.w.checks.phases[u.run] == proto.Phase_STOPPED {
			u.meddle(true)
		}
	}
	m.w.after(10*second, m.resume)
}

// drain has somebody drain a node, and later let it work again.
func (m *nemesis) drain() {
	n := m.victim()
	m.ask(n, false)
	m.w.after(m.later(), func() { m.ask(n, true) })
}

// ask has any node pass on what somebody wants of n.
func (m *nemesis) ask(n *node, undo bool) {
	at := m.victim()
	if at.up && !at.frozen && (!undo || at.machine.Node(n.id).GetDrain() != nil) {
		c := &proto.Command{Do: &proto.Command_DrainNode{DrainNode: &proto.DrainNode{Id: n.id, Drain: &proto.Drain{Reason: "a fault"}, Undo: undo}}}
		m.w.users[0].command(at, c, func() {})
	}
}

func (m *nemesis) victim() *node { return pick(&m.w.rng, m.w.nodes) }

// later is when a fault is over.
func (m *nemesis) later() int64 {
	if m.w.rng.percent(50) {
		return m.w.rng.span(50*ms, second)
	}
	return m.w.rng.span(second, 25*second)
}

func (m *nemesis) restart(n *node, d int64) {
	m.w.after(d, func() {
		if !n.up {
			n.start()
		}
	})
}

func (m *nemesis) crash() {
	n := m.victim()
	n.crash()
	m.restart(n, m.later())
}

func (m *nemesis) bounce() {
	n := m.victim()
	n.crash()
	m.restart(n, m.w.rng.span(ms, 300*ms))
}

func (m *nemesis) stop() {
	n := m.victim()
	n.freeze()
	m.w.after(m.later(), n.thaw)
}

func (m *nemesis) partition() {
	var side []bool
	for range m.w.nodes {
		side = append(side, m.w.rng.percent(50))
	}
	for i := range side {
		for j := range side {
			if side[i] != side[j] {
				m.w.wires.cut[i][j] = true
			}
		}
	}
	m.w.silence()
	m.w.after(m.later(), m.w.wires.heal)
}

// cut loses what one node sends to another, in this direction only.
func (m *nemesis) cut() {
	a, b := m.victim(), m.victim()
	if a != b {
		m.w.wires.cut[a.index][b.index] = true
		m.w.silence()
		m.w.after(m.later(), func() { m.w.wires.cut[a.index][b.index] = false })
	}
}

// reset breaks one link of a ring, now or at the worst moment.
func (m *nemesis) reset() {
	n := m.victim()
	for _, u := range m.w.users {
		if k := n.workers[u.run]; k != nil && k.ring != nil {
			if m.w.rng.percent(50) {
				k.ring.doomed = true
				continue
			}
			k.ring.die(pick(&m.w.rng, k.ring.members), "reset")
		}
	}
}

func (m *nemesis) depose() {
	if l := m.w.log.leader; l != nil && l.reign != nil {
		m.w.log.vacant, m.w.log.patient = m.w.now, m.w.rng.span(10*ms, second)
		l.stepDown()
	}
}

func (m *nemesis) regicide() {
	if l := m.w.log.leader; l != nil && l.up {
		l.crash()
		m.restart(l, m.later())
	}
}

func (m *nemesis) slow() { m.victim().slowUntil = m.w.now + m.w.rng.span(second, 30*second) }

// fill leaves a disk without room. Checkpoints are not saved; what was set aside for Raft's log may do or may not: then the
// process ends, and is started again when there is room.
func (m *nemesis) fill() {
	n := m.victim()
	room := m.w.rng.span(second, 30*second)
	n.fullUntil = m.w.now + room
	if m.w.rng.percent(20) {
		m.w.after(m.w.rng.span(0, second), func() {
			if n.full() {
				n.crash()
				m.restart(n, room)
			}
		})
	}
}

// load is a machine on which something else runs for a while.
func (m *nemesis) load() { m.victim().laden = m.w.now + m.w.rng.span(second, 60*second) }

// wipe is a node whose process dies and comes back without its checkpoints, and, if it has no home there, without the
// inputs.
func (m *nemesis) wipe() {
	n := m.victim()
	n.crash()
	for _, u := range m.w.users {
		d := n.disk(u.run)
		if k := len(d.checkpoints); k > 0 {
			d.lost = max(d.lost, d.checkpoints[k-1].done)
		}
		d.checkpoints, d.acked = nil, 0
		d.inputs = d.inputs && u.home == n
	}
	m.restart(n, m.later())
}

// powerCut ends all processes at once. They come back one by one.
func (m *nemesis) powerCut() {
	for _, n := range m.w.nodes {
		n.crash()
		m.restart(n, m.later())
	}
}

// slander is a node that others believe to be dead, for a moment.
func (m *nemesis) slander() {
	n, o := m.victim(), m.victim()
	if s := n.seen[o.id]; n.up && s != nil {
		s.alive, s.since = false, n.clock()
	}
}

func (m *nemesis) meddle() { pick(&m.w.rng, m.w.users).meddle(m.w.rng.percent(60)) }

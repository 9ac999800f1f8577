package state

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"lorad/proto"
)

// Machine is the state. It is not safe for concurrent use: whoever owns it has the lock. Everything its views
// return is shared and must not be written to.
type Machine struct {
	cluster *proto.Cluster
	nodes   map[string]*proto.Node
	tokens  map[string]*proto.Token
	runs    map[string]*proto.Run
	removed map[string]string // id to id, for sorted

	recoveries []*proto.Recovery // the oldest first
	done       []*proto.Done     // the last commands that had an id, the oldest first
}

// New returns the state before the first command.
func New() *Machine {
	return &Machine{
		nodes:  map[string]*proto.Node{},
		tokens: map[string]*proto.Token{},
		runs:   map[string]*proto.Run{},

		removed: map[string]string{},
	}
}

// Result is what an accepted command led to.
type Result struct {
	Run     *proto.Run  // after a command about a run
	Node    *proto.Node // as recorded, after PutNode and UseToken
	Existed bool        // SubmitRun: the run was there already and stays as it is
	Stale   bool        // Report: of a generation that is over; only what was known already was compared
}

func (m *Machine) carryOut(c *proto.Command) (Result, error) {
	now := c.GetNowUnixMs()
	switch do := c.GetDo().(type) {
	case *proto.Command_PutCluster:
		return m.putCluster(do.PutCluster.GetCluster())
	case *proto.Command_PutNode:
		return m.putNode(do.PutNode.GetNode(), now)
	case *proto.Command_RemoveNode:
		return m.removeNode(do.RemoveNode, now)
	case *proto.Command_DrainNode:
		return m.drainNode(do.DrainNode, now)
	case *proto.Command_PutToken:
		return m.putToken(do.PutToken.GetToken(), now)
	case *proto.Command_UseToken:
		return m.useToken(do.UseToken, now)
	case *proto.Command_RemoveToken:
		return m.removeToken(do.RemoveToken.GetId())
	case *proto.Command_RotateGossipKey:
		return m.rotateGossipKey(do.RotateGossipKey)
	case *proto.Command_SubmitRun:
		return m.submitRun(do.SubmitRun.GetSpec())
	case *proto.Command_StopRun:
		return m.stopRun(do.StopRun, now)
	case *proto.Command_ResumeRun:
		return m.resumeRun(do.ResumeRun.GetRun())
	case *proto.Command_GrantLease:
		return m.grantLease(do.GrantLease, now)
	case *proto.Command_Report:
		return m.report(do.Report, now)
	}
	return Result{}, refuse(Invalid, "apply", "command",
		"this version does not know it; upgrade the nodes before using what is new")
}

func (m *Machine) putCluster(c *proto.Cluster) (Result, error) {
	if c.GetId() == "" {
		return Result{}, refuse(Invalid, "put", "cluster", "it has no id")
	}
	if m.cluster != nil && m.cluster.Id != c.Id {
		return Result{}, refuse(Illegal, "put", "cluster "+c.Id, "this is cluster %s, and a cluster never changes its id", m.cluster.Id)
	}
	if m.cluster != nil {
		c = &proto.Cluster{Id: c.Id, SealedCaKey: c.SealedCaKey, GossipKey: m.cluster.GossipKey, RotatedFor: m.cluster.RotatedFor}
	}
	m.cluster = c
	return Result{}, nil
}

// rotateGossipKey changes the key that gossip is encrypted with, once for each time that nodes were removed.
func (m *Machine) rotateGossipKey(r *proto.RotateGossipKey) (Result, error) {
	switch {
	case m.cluster == nil || len(r.GetKey()) != 32 || r.Removed > m.RemovedCount():
		return Result{}, refuse(Invalid, "rotate", "gossip key", "a key has 32 bytes and is of a cluster")
	case r.Removed <= m.cluster.RotatedFor:
		return Result{}, refuse(Stale, "rotate", "gossip key", "it was changed already")
	}
	m.cluster = &proto.Cluster{Id: m.cluster.Id, SealedCaKey: m.cluster.SealedCaKey, GossipKey: r.Key, RotatedFor: r.Removed}
	return Result{}, nil
}

func (m *Machine) putNode(n *proto.Node, now int64) (Result, error) {
	n, err := m.admit(n, now)
	if err != nil {
		return Result{}, err
	}
	m.nodes[n.Id] = n
	return Result{Node: n}, nil
}

// admit gives the node as it would be recorded: with a name nobody else has and the time it first joined.
func (m *Machine) admit(n *proto.Node, now int64) (*proto.Node, error) {
	if n.GetId() == "" || n.GetAddr() == "" {
		return nil, refuse(Invalid, "put", "node "+n.GetId(), "a node has an id and an address")
	}
	if m.Removed(n.Id) {
		return nil, refuse(Illegal, "put", "node "+n.Id, "it was removed from the cluster: join again with a token and an empty state directory")
	}
	fresh := recorded(n)
	fresh.Name, fresh.JoinedUnixMs, fresh.Drain = m.freeName(n), now, nil
	if old := m.nodes[n.Id]; old != nil {
		fresh.JoinedUnixMs, fresh.Drain = old.JoinedUnixMs, old.Drain
	}
	return fresh, nil
}

// freeName is the name the node asks for, or that name with the first number that makes it unique: three nodes on
// one host are normal, and a refusal would only make people invent the numbers themselves.
func (m *Machine) freeName(n *proto.Node) string {
	want := n.Name
	if want == "" {
		want = n.Id
	}
	taken := map[string]bool{}
	for _, o := range m.nodes {
		taken[o.Name] = taken[o.Name] || o.Id != n.Id
	}
	if old := m.nodes[n.Id]; old != nil && Named(old.Name, want) {
		return old.Name // it was given that number before
	}
	name := want
	for k := 2; taken[name]; k++ {
		name = fmt.Sprintf("%s-%d", want, k)
	}
	return name
}

// Named reports whether a recorded name is the one that the node wants, or that with a number to make it unique.
func Named(name, want string) bool {
	rest, ok := strings.CutPrefix(name, want)
	return ok && (rest == "" || len(rest) > 1 && rest[0] == '-' && strings.Trim(rest[1:], "0123456789") == "")
}

// Removed reports whether the node was removed: its certificate is still good, but nobody talks to it any more.
func (m *Machine) Removed(id string) bool { return m.removed[id] != "" }

// RemovedCount is how many nodes were removed, ever.
func (m *Machine) RemovedCount() uint64 { return uint64(len(m.removed)) }

// Cluster is the cluster's own record, nil before the first node wrote it.
func (m *Machine) Cluster() *proto.Cluster { return m.cluster }

// Node returns one node, or nil.
func (m *Machine) Node(id string) *proto.Node { return m.nodes[id] }

// Nodes returns all nodes, sorted by id.
func (m *Machine) Nodes() []*proto.Node { return sorted(m.nodes) }

// Token returns one token, or nil.
func (m *Machine) Token(id string) *proto.Token { return m.tokens[id] }

// Run returns one run by its exact id, or nil.
func (m *Machine) Run(id string) *proto.Run { return m.runs[id] }

// Runs returns all runs, the oldest first.
func (m *Machine) Runs() []*proto.Run { return byAge(sorted(m.runs)) }

// Unsettled returns the runs that are not over, the oldest first: a few of the thousand that there may be.
func (m *Machine) Unsettled() []*proto.Run {
	var runs []*proto.Run
	for _, r := range m.runs {
		if !Terminal(r.Phase) {
			runs = append(runs, r)
		}
	}
	slices.SortFunc(runs, func(a, b *proto.Run) int { return strings.Compare(a.Spec.Run, b.Spec.Run) })
	return byAge(runs)
}

// byAge sorts runs by the time of their submission, and those of one millisecond as they were.
func byAge(runs []*proto.Run) []*proto.Run {
	slices.SortStableFunc(runs, func(a, b *proto.Run) int { return cmp.Compare(a.Spec.SubmittedUnixMs, b.Spec.SubmittedUnixMs) })
	return runs
}

// FindRun returns the run that people call name: its id, a prefix that only it has, or its name, where the run
// submitted last wins because it is the one people talk about.
func (m *Machine) FindRun(name string) (*proto.Run, error) {
	if r := m.runs[name]; r != nil {
		return r, nil
	}
	var prefix []string
	var named *proto.Run
	for _, r := range m.Runs() {
		if r.Spec.Name == name {
			named = r
		}
		if name != "" && strings.HasPrefix(r.Spec.Run, name) {
			prefix = append(prefix, r.Spec.Run)
		}
	}
	switch {
	case named != nil:
		return named, nil
	case len(prefix) == 1:
		return m.runs[prefix[0]], nil
	case len(prefix) > 1:
		return nil, refuse(Ambiguous, "find", "run "+name, "%s all begin so: give more of the id", strings.Join(prefix, ", "))
	}
	return nil, refuse(Unknown, "find", "run "+name, "no run has this id or name: `lorad runs ls` lists them")
}

func sorted[V any](m map[string]V) []V {
	list := make([]V, 0, len(m))
	for _, k := range slices.Sorted(maps.Keys(m)) {
		list = append(list, m[k])
	}
	return list
}

package coordinator

import (
	"context"
	"crypto/rand"
	"errors"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"lorad/ca"
	"lorad/coordinator/sched"
	"lorad/coordinator/state"
	"lorad/proto"
)

const (
	followBatch = 512 // records in one event
	// patience is how long a command waits for a leader when its caller set no deadline.
	patience = 15 * time.Second
)

// control answers the command line, and nodes that pass its questions on.
type control struct {
	proto.UnimplementedControlServer
	*Coordinator
}

// Control returns the service for use inside the process.
func (c *Coordinator) Control() proto.ControlServer { return control{Coordinator: c} }

// coded gives an error its gRPC code.
func coded(err error) error {
	var refusal *state.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &refusal):
		return because(codeOf(refusal.Kind), string(refusal.Kind), refusal.Text)
	case status.Code(err) != codes.Unknown:
		return err
	case errors.Is(err, context.Canceled):
		return status.Error(codes.Canceled, err.Error())
	case errors.Is(err, context.DeadlineExceeded):
		return status.Error(codes.Unavailable, err.Error())
	}
	return err
}

func codeOf(k state.Kind) codes.Code {
	switch k {
	case state.Unknown:
		return codes.NotFound
	case state.Ambiguous, state.Invalid:
		return codes.InvalidArgument
	}
	return codes.FailedPrecondition
}

// do applies a command for a person, who does not wait for ever, once.
func (c *Coordinator) do(ctx context.Context, cmd *proto.Command) (*proto.ApplyReply, error) {
	if _, limited := ctx.Deadline(); !limited {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, patience)
		defer cancel()
	}
	cmd.Id = rand.Text()
	return c.apply(ctx, cmd)
}

// Cluster lists the nodes as this one sees them.
func (s control) Cluster(ctx context.Context, req *proto.ClusterRequest) (*proto.ClusterReply, error) {
	leader, voters := s.leader(), s.voterIDs()
	view := s.fsm.view()
	_, index := s.fsm.next()
	reply := &proto.ClusterReply{ClusterId: s.creds.ClusterID, RaftTerm: s.raft.CurrentTerm(), RaftIndex: index}
	for _, n := range view.Nodes {
		reply.Nodes = append(reply.Nodes, &proto.NodeStatus{
			Node: n, Alive: s.gossip.alive(n.Id), Leader: n.Id == leader, Self: n.Id == s.id, Runs: worksOn(view.Runs, n.Id),
			Votes: slices.Contains(voters, n.Id),
		})
	}
	reply.Recoveries = read(s.fsm, (*state.Machine).Recoveries)
	if req.Gpus {
		s.askGPUs(ctx, reply.Nodes)
	}
	return reply, nil
}

// askGPUs fills in how the GPUs of the nodes are now. They are asked all at once; who does not answer in time has none to show.
func (s control) askGPUs(ctx context.Context, nodes []*proto.NodeStatus) {
	ctx, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	var asked sync.WaitGroup
	for _, n := range nodes {
		switch {
		case n.Self:
			n.Gpus = s.gpus()
		case n.Alive:
			asked.Go(func() { n.Gpus = s.peers.gpus(ctx, n.Node.Id) })
		}
	}
	asked.Wait()
}

func worksOn(runs []*proto.Run, node string) []string {
	var ids []string
	for _, r := range runs {
		if state.Leased(r.Phase) && slices.Contains(r.Lease.Members, node) {
			ids = append(ids, r.Spec.Run)
		}
	}
	return ids
}

// Submit makes this node the home of a run, or finds the run that the same job already is: one that stopped or failed
// goes on where it was.
func (s control) Submit(ctx context.Context, req *proto.SubmitRequest) (*proto.SubmitReply, error) {
	if s.cfg.Prepare == nil {
		return nil, status.Error(codes.FailedPrecondition, "submit: this node is a witness, which holds no data of runs: submit on another node (`lorad nodes` lists them)")
	}
	req = &proto.SubmitRequest{JobYaml: req.JobYaml, Dir: req.Dir}
	if calledBy(ctx) != ca.Owner { // whose files these are
		if s.cfg.Workspace == "" {
			return nil, status.Error(codes.FailedPrecondition, "submit: this node takes no jobs from elsewhere: start it with --workspace DIR, below which they read and write")
		}
		req.Dir, req.Confined = s.cfg.Workspace, true
	}
	spec, err := s.cfg.Prepare(ctx, req)
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	spec.HomeNode, spec.SubmittedUnixMs = s.id, s.now().UnixMilli()
	if err := s.Ready(ctx); err != nil {
		return nil, coded(err)
	}
	reply, err := s.do(ctx, &proto.Command{Do: &proto.Command_SubmitRun{SubmitRun: &proto.SubmitRun{Spec: spec}}})
	if err != nil {
		return nil, coded(err)
	}
	if !reply.Existed {
		return &proto.SubmitReply{Run: s.header(spec.Run)}, nil
	}
	resumed, err := s.resume(ctx, spec.Run)
	return &proto.SubmitReply{Run: s.header(spec.Run), Existed: true, Resumed: resumed}, coded(err)
}

// resume queues a run that stopped or failed. One that is stopping just now is waited for: that is what somebody wants
// who interrupts a run and starts it again at once.
func (s control) resume(ctx context.Context, run string) (bool, error) {
	for {
		changed := s.Changed()
		switch s.Run(run).GetPhase() {
		case proto.Phase_STOPPED, proto.Phase_FAILED:
			_, err := s.do(ctx, &proto.Command{Do: &proto.Command_ResumeRun{ResumeRun: &proto.ResumeRun{Run: run}}})
			return err == nil, err
		case proto.Phase_STOPPING:
		default:
			return false, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return false, ctx.Err()
		case <-s.ctx.Done():
			return false, status.Error(codes.Unavailable, "submit: this node is shutting down")
		}
	}
}

// header is a run as people see it: without its ledger, and with the reason why it waits.
func (s control) header(id string) *proto.Run {
	r := s.Run(id)
	if r == nil {
		return nil
	}
	return s.explained(state.Header(r), s.waits())
}

// waits says of each run that waits why. Every node can tell: the scheduler is a pure function.
func (s control) waits() map[string]string {
	view, why := s.fsm.view(), map[string]string{}
	for _, d := range sched.Next(view, s.gossip.liveness(view.Nodes), s.now().UnixMilli()) {
		if d.Command == nil {
			why[d.Run] = d.Reason
		}
	}
	return why
}

// explained puts the reason why the run waits into r, which is nobody else's.
func (s control) explained(r *proto.Run, waits map[string]string) *proto.Run {
	if why := waits[r.Spec.Run]; why != "" {
		r.Reason = why
	}
	return r
}

// Runs lists all runs without their ledgers.
func (s control) Runs(ctx context.Context, _ *proto.RunsRequest) (*proto.RunsReply, error) {
	stale := !s.present(ctx)
	runs, waits := s.Coordinator.Runs(), s.waits()
	for _, r := range runs {
		s.explained(r, waits)
	}
	return &proto.RunsReply{Runs: runs, Stale: stale}, nil
}

func (s control) find(name string) (*proto.Run, error) {
	type found struct {
		run *proto.Run
		err error
	}
	f := read(s.fsm, func(m *state.Machine) found {
		r, err := m.FindRun(name)
		return found{r, err}
	})
	return f.run, coded(f.err)
}

// lookUp finds a run as it is at present, or, without a leader, as this node last knew it. That there is no such run is
// for a leader to say.
func (s control) lookUp(ctx context.Context, name string) (run *proto.Run, stale bool, err error) {
	stale = !s.present(ctx)
	run, err = s.find(name)
	if stale && status.Code(err) == codes.NotFound {
		return nil, true, status.Errorf(codes.Unavailable, "%v; but no leader answers, and another node may know of it", status.Convert(err).Message())
	}
	return run, stale, err
}

// GetRun gives one run with its ledger.
func (s control) GetRun(ctx context.Context, req *proto.GetRunRequest) (*proto.Run, error) {
	r, stale, err := s.lookUp(ctx, req.Run)
	if err != nil {
		return nil, err
	}
	whole := s.explained(state.Header(r), s.waits())
	whole.Ledger, whole.Stale = state.Ledger(r), stale
	return whole, nil
}

// Stop asks the members of a run to checkpoint and stop.
func (s control) Stop(ctx context.Context, req *proto.StopRequest) (*proto.StopReply, error) {
	r, _, err := s.lookUp(ctx, req.Run)
	if err != nil {
		return nil, err
	}
	stop := &proto.StopRun{Run: r.Spec.Run, Reason: req.Reason}
	if _, err := s.do(ctx, &proto.Command{Do: &proto.Command_StopRun{StopRun: stop}}); err != nil {
		return nil, coded(err)
	}
	return &proto.StopReply{Run: s.header(r.Spec.Run)}, nil
}

// whyAgain is how often Follow looks anew for what a run waits for: that changes without the run.
const whyAgain = time.Second

// Follow sends every step after a given one, in order, and the run whenever something about it changes, or about what it waits for. It ends
// when the run is over.
func (s control) Follow(req *proto.FollowRequest, out proto.Control_FollowServer) error {
	r, err := s.find(req.Run)
	if err != nil {
		return err
	}
	id, after, last, said := r.Spec.Run, req.AfterStep, (*proto.Run)(nil), ""
	for {
		changed := s.Changed()
		r := s.Run(id)
		ledger, why := state.Ledger(r), s.waits()[id]
		for r != last || after < r.Step || why != said {
			event := &proto.FollowEvent{Run: s.explained(state.Header(r), s.waits()), Steps: nextSteps(ledger, after)}
			if err := out.Send(event); err != nil {
				return err
			}
			after, last, said = after+uint64(len(event.Steps)), r, why
		}
		if state.Terminal(r.Phase) {
			return nil
		}
		select {
		case <-changed:
		case <-time.After(whyAgain):
		case <-out.Context().Done():
			return coded(out.Context().Err())
		case <-s.ctx.Done():
			return status.Error(codes.Unavailable, "follow: this node is shutting down; ask another one")
		}
	}
}

// nextSteps is the next batch of records after a step.
func nextSteps(ledger []*proto.StepRecord, after uint64) []*proto.StepRecord {
	n := uint64(len(ledger))
	if after >= n {
		return nil
	}
	return ledger[after:min(after+followBatch, n)]
}

// Audit has this node count the ledger of a run against the plan.
func (s control) Audit(ctx context.Context, req *proto.AuditRequest) (*proto.AuditReply, error) {
	if s.cfg.Audit == nil {
		return nil, status.Error(codes.Unimplemented, "audit: this node does not audit; ask another one")
	}
	r, err := s.find(req.Run)
	if err != nil {
		return nil, err
	}
	whole := state.Header(r)
	whole.Ledger = state.Ledger(r)
	reply, err := s.cfg.Audit(ctx, whole)
	return reply, coded(err)
}

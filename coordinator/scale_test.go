package coordinator

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/hashicorp/raft"

	"lorad/proto"
	"lorad/transport"
)

// BenchmarkLeader is what a leader costs that has so many nodes and 1,000 finished runs in its log, as a share of one core.
// The leader is a real one, alone in this process. The nodes are in another process: each has enrolled with its own
// certificate, listens on its own port, takes Raft's entries and heartbeats over TLS and acknowledges them without
// keeping anything, and reports over gRPC: one of them two steps every 200 ms, as the leading member of a run on all of
// them does, every other one once in 5 s. Who is alive is told to the leader by hand: two hundred memberlists and states
// would be the load of two hundred machines.
func BenchmarkLeader(b *testing.B) {
	for _, n := range []int{10, 50, 200} {
		b.Run(fmt.Sprint(n, " nodes"), func(b *testing.B) { leaderOf(b, n) })
	}
}

// swarmSize in the environment makes the test binary a swarm of so many nodes.
const swarmSize = "LORAD_TEST_SWARM"

func leaderOf(b *testing.B, n int) {
	lead := first(b)
	pastRuns(b, lead, 1000)
	s := startSwarm(b, lead, n)
	for _, id := range s.addrs {
		lead.gossip.sight(&memberlist.Node{Name: id.ID, Meta: []byte(id.Addr + " 1")}, true)
	}
	for end := time.Now().Add(2 * time.Minute); len(lead.raft.GetConfiguration().Configuration().Servers) < n+1; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			b.Fatal("not all nodes are in Raft's configuration")
		}
	}
	time.Sleep(5 * time.Second) // until all connections are made
	for b.Loop() {
		measure(b, "heartbeats")
	}
	run := lead.submit("job: long").Run.Spec.Run
	lead.leased(run, n+1, 1)
	s.say(run)
	time.Sleep(2*time.Second + time.Duration(n)*30*time.Millisecond)
	before := lead.Run(run).Step
	measure(b, "with-reports")
	if done := lead.Run(run).Step - before; done < 50 {
		b.Errorf("only %d steps were reported in 10 s", done)
	}
}

// measure is what this process uses of one core for ten seconds, in percent, and how often it was woken up in a second: on a machine
// with nothing else to do that is most of the former, and it depends less on the machine.
func measure(b *testing.B, what string) {
	cpu, wakes := used()
	began := time.Now()
	time.Sleep(10 * time.Second)
	cpuAfter, wakesAfter := used()
	took := time.Since(began)
	b.ReportMetric(100*float64(cpuAfter-cpu)/float64(took), "%core-"+what)
	b.ReportMetric(float64(wakesAfter-wakes)/took.Seconds(), "wakes/s-"+what)
}

func used() (cpu time.Duration, wakes int64) {
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), u.Nvcsw
}

// pastRuns puts finished runs of 100 steps into the log.
func pastRuns(b *testing.B, lead *box, runs int) {
	if err := lead.Ready(lead.ctx(5 * time.Second)); err != nil {
		b.Fatal(err)
	}
	var steps []*proto.StepRecord
	for i := range uint64(100) {
		steps = append(steps, &proto.StepRecord{Step: i + 1, Loss: math.Sqrt(float64(i)), GradNorm: 1 / float64(i+1), Digest: i * 0x9e3779b97f4a7c15, DurationUs: 1000})
	}
	var all sync.WaitGroup
	for i := range runs {
		all.Go(func() {
			id := fmt.Sprintf("old-%012x", i)
			for _, c := range []*proto.Command{
				{Do: &proto.Command_SubmitRun{SubmitRun: &proto.SubmitRun{Spec: &proto.Spec{Run: id, Steps: 100, MicroBatches: 1, HomeNode: lead.ID()}}}},
				{Do: &proto.Command_GrantLease{GrantLease: &proto.GrantLease{Run: id, Lease: &proto.Lease{Generation: 1, Members: []string{lead.ID()}, From: 1, Until: 101}}}},
				{Do: &proto.Command_Report{Report: &proto.Report{Run: id, Node: lead.ID(), Generation: 1, Steps: steps, Outcome: proto.Outcome_FINISHED, AdapterSha256: make([]byte, 32)}}},
			} {
				lead.propose(c) // the leader itself may have granted a lease before: it is one all the same
			}
		})
	}
	all.Wait()
	if n := len(lead.Runs()); n != runs {
		b.Fatalf("%d runs in the log", n)
	}
}

// swarm is the process of the nodes.
type swarm struct {
	addrs []swarmNode
	in    io.Writer
}

type swarmNode struct{ ID, Addr string }

func startSwarm(b *testing.B, lead *box, n int) *swarm {
	tok, err := lead.ctl.CreateToken(lead.ctx(5*time.Second), &proto.CreateTokenRequest{Uses: uint32(n), Role: "worker"})
	if err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], lead.mux.Advertise(), tok.Token, b.TempDir())
	cmd.Env, cmd.Stderr = append(os.Environ(), swarmSize+"="+strconv.Itoa(n)), os.Stderr
	in, _ := cmd.StdinPipe()
	out, _ := cmd.StdoutPipe()
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { in.Close(); cmd.Wait() })
	s := &swarm{in: in}
	if err := json.NewDecoder(bufio.NewReader(out)).Decode(&s.addrs); err != nil {
		b.Fatal("the swarm did not start: ", err)
	}
	return s
}

// say names the run that the nodes are to report of.
func (s *swarm) say(run string) { fmt.Fprintln(s.in, run) }

// beSwarm is the swarm's main function. It ends with its standard input.
func beSwarm(n int, leader, token, dir string) error {
	var nodes []*drone
	var all []swarmNode
	for i := range n {
		d, err := newDrone(leader, token, fmt.Sprint(dir, "/", i))
		if err != nil {
			return err
		}
		nodes, all = append(nodes, d), append(all, swarmNode{d.id, d.addr})
	}
	if err := json.NewEncoder(os.Stdout).Encode(all); err != nil {
		return err
	}
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		for i, d := range nodes {
			run := in.Text()
			time.AfterFunc(time.Duration(i)*25*time.Millisecond, func() { d.reports(leader, run, i == 0) })
		}
	}
	return nil
}

// drone is a node that agrees to everything and keeps nothing.
type drone struct {
	id, addr string
	dial     *transport.Dialer
	last     atomic.Uint64
}

func newDrone(leader, token, dir string) (*drone, error) {
	at, err := transport.Bind("127.0.0.1:0", "")
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	creds, err := Join(ctx, dir, leader, token, at, facts("drone"))
	at.Close()
	if err != nil {
		return nil, err
	}
	mux, err := transport.Listen(at.Advertise(), creds.Identity)
	if err != nil {
		return nil, err
	}
	d := &drone{id: creds.Node.Id, addr: at.Advertise(), dial: transport.NewDialer(creds.Identity)}
	tr := raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Logger: raftLog(quietLog()), MaxPool: 3, Timeout: raftTimeout, Stream: transport.NewRaftLayer(mux, d.dial),
	})
	tr.SetHeartbeatHandler(d.answer)
	go func() {
		for rpc := range tr.Consumer() {
			d.answer(rpc)
		}
	}()
	return d, nil
}

// answer agrees.
func (d *drone) answer(rpc raft.RPC) {
	switch req := rpc.Command.(type) {
	case *raft.AppendEntriesRequest:
		if len(req.Entries) > 0 || req.PrevLogEntry > 0 {
			d.last.Store(req.PrevLogEntry + uint64(len(req.Entries)))
		}
		rpc.Respond(&raft.AppendEntriesResponse{RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax}, Term: req.Term, LastLog: d.last.Load(), Success: true}, nil)
	case *raft.InstallSnapshotRequest:
		io.Copy(io.Discard, rpc.Reader)
		d.last.Store(req.LastLogIndex)
		rpc.Respond(&raft.InstallSnapshotResponse{RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax}, Term: req.Term, Success: true}, nil)
	default:
		rpc.Respond(nil, fmt.Errorf("a drone does not know %T", req))
	}
}

// reports tells the leader what this node has seen of a run, for ever.
func (d *drone) reports(leader, run string, leading bool) {
	conn, err := d.dial.GRPC(leader)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	pause, step, failed := 5*time.Second, uint64(0), 0
	if leading {
		pause = 200 * time.Millisecond
	}
	for {
		p := &proto.Report{Run: run, Node: d.id, Generation: 1}
		if leading {
			for range 2 {
				step++
				p.Steps = append(p.Steps, &proto.StepRecord{Step: step, Digest: step, DurationUs: 100_000})
			}
		}
		_, err := proto.NewCoordinationClient(conn).Apply(context.Background(), &proto.Command{Do: &proto.Command_Report{Report: p}})
		if err != nil && failed < 1 {
			failed++
			fmt.Fprintln(os.Stderr, err)
		}
		time.Sleep(pause)
	}
}

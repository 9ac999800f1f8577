package coordinator

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"lorad/ca"
	"lorad/coordinator/state"
	"lorad/proto"
	"lorad/transport"
)

// TestMain looks for goroutines that were left behind. memberlist's prober may sleep through its shutdown.
func TestMain(m *testing.M) {
	if n, err := strconv.Atoi(os.Getenv(swarmSize)); err == nil {
		if err := beSwarm(n, os.Args[1], os.Args[2], os.Args[3]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	code := m.Run()
	for try := 0; code == 0; try++ {
		err := goleak.Find()
		if err == nil {
			break
		}
		if try == 30 {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// box is a node of a real cluster on loopback, in this process.
type box struct {
	*Coordinator
	t    testing.TB
	dir  string
	mux  *transport.Mux
	dial *transport.Dialer
	ctl  proto.ControlServer
}

func facts(name string) *proto.Node {
	return &proto.Node{Name: name, Addr: "127.0.0.1:0", Cores: 2, Engine: "cpu", Version: "test"}
}

// open starts a node on whatever its directory holds.
func open(t testing.TB, dir, name string, creds *Credentials) *box {
	t.Helper()
	return openWith(t, dir, name, "127.0.0.1:0", creds, func(*Config) {})
}

// openWith is open with a Config that edit has had its hands on.
func openWith(t testing.TB, dir, name, addr string, creds *Credentials, edit func(*Config)) *box {
	t.Helper()
	mux, err := transport.Listen(addr, creds.Identity)
	if err != nil {
		t.Fatal(err)
	}
	b := &box{t: t, dir: dir, mux: mux, dial: transport.NewDialer(creds.Identity)}
	var out io.Writer = io.Discard
	if testing.Verbose() {
		out = os.Stderr
	}
	cfg := Config{
		Dir: dir, Credentials: creds, Node: facts(name), Mux: mux, Dialer: b.dial, Prepare: prepare,
		Log: slog.New(slog.NewTextHandler(out, nil)),
	}
	edit(&cfg)
	b.Coordinator, err = Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	b.ctl = b.Control()
	t.Cleanup(b.close)
	return b
}

// close ends the node politely.
func (b *box) close() {
	b.Coordinator.Close()
	b.kill()
}

// kill cuts all connections, so that nobody hears a goodbye.
func (b *box) kill() {
	b.mux.Close()
	b.dial.Close()
}

// prepare makes a run of 500 steps out of any job.
func prepare(_ context.Context, r *proto.SubmitRequest) (*proto.Spec, error) {
	sum := sha256.Sum256([]byte(r.JobYaml))
	return &proto.Spec{Run: fmt.Sprintf("%x", sum[:6]), Name: "job", JobYaml: r.JobYaml, Steps: 500, MicroBatches: 4, OutputDir: r.Dir}, nil
}

func first(t testing.TB) *box { return firstWith(t, func(*Config) {}) }

func firstWith(t testing.TB, edit func(*Config)) *box {
	t.Helper()
	dir := t.TempDir()
	creds, err := Create(dir)
	if err != nil {
		t.Fatal(err)
	}
	return openWith(t, dir, "box", "127.0.0.1:0", creds, edit)
}

func (b *box) token(uses uint32, ttl time.Duration) string {
	b.t.Helper()
	r, err := b.ctl.CreateToken(b.ctx(enough), &proto.CreateTokenRequest{Uses: uses, TtlMs: ttl.Milliseconds(), Voter: true})
	if err != nil {
		b.t.Fatal(err)
	}
	return r.Token
}

func (b *box) ctx(d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	b.t.Cleanup(cancel)
	return ctx
}

// join lets another node in, by way of b.
func (b *box) join(token string) *box { return b.joinWith(token, facts("box"), func(*Config) {}) }

func (b *box) joinWith(token string, facts *proto.Node, edit func(*Config)) *box {
	b.t.Helper()
	dir := b.t.TempDir()
	at := bound(b.t)
	creds, err := Join(b.ctx(enough), dir, b.mux.Advertise(), token, at, facts)
	if err != nil {
		b.t.Fatal(err)
	}
	at.Close()
	return openWith(b.t, dir, "box", "127.0.0.1:0", creds, edit)
}

// bound takes a port for a joiner.
func bound(t testing.TB) *transport.Bound {
	t.Helper()
	at, err := transport.Bind("127.0.0.1:0", "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { at.Close() })
	return at
}

func three(t testing.TB) []*box {
	t.Helper()
	a := first(t)
	tok := a.token(2, time.Minute)
	b := a.join(tok)
	c := a.join(tok)
	all := []*box{a, b, c}
	for _, x := range all {
		if err := x.Ready(x.ctx(enough)); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "three voters", func() bool { v, r := a.voters(); return v == 3 && r == 3 })
	return all
}

// enough is how long what has to come may take on a busy machine.
const enough = time.Minute

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(enough); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never came: %s", what)
		}
	}
}

func (b *box) submit(job string) *proto.SubmitReply {
	b.t.Helper()
	r, err := b.ctl.Submit(b.ctx(enough), &proto.SubmitRequest{JobYaml: job, Dir: "/out"})
	if err != nil {
		b.t.Fatal(err)
	}
	return r
}

// leased waits until the run is leased to n members in at least the given generation.
func (b *box) leased(run string, n int, generation uint64) *proto.Run {
	b.t.Helper()
	var r *proto.Run
	eventually(b.t, fmt.Sprintf("a lease for %d members in generation %d", n, generation), func() bool {
		r = b.Run(run)
		return r.GetPhase() == proto.Phase_RUNNING && len(r.Lease.Members) == n && r.Lease.Generation >= generation
	})
	return r
}

// did reports steps [from, to] as this node, again if a new leader was quicker to grant the next generation.
func (b *box) did(run string, from, to uint64) error {
	err := b.didOnce(run, from, to)
	for refusal := (*state.Error)(nil); errors.As(err, &refusal) && refusal.Kind == state.Stale; {
		err = b.didOnce(run, from, to)
	}
	return err
}

func (b *box) didOnce(run string, from, to uint64) error {
	var steps []*proto.StepRecord
	for s := from; s <= to; s++ {
		steps = append(steps, &proto.StepRecord{Step: s, Loss: 1 / float64(s), Digest: s, DurationUs: 100_000})
	}
	return b.Report(b.ctx(enough), &proto.Report{Run: run, Node: b.ID(), Generation: b.Run(run).Lease.Generation, Steps: steps})
}

func (b *box) leads() bool { _, id := b.raft.LeaderWithID(); return string(id) == b.ID() }

// leader waits for one: on a busy machine an election may be on.
func leader(boxes []*box) (lead *box, rest []*box) {
	i := -1
	eventually(boxes[0].t, "a leader", func() bool {
		i = slices.IndexFunc(boxes, (*box).leads)
		return i >= 0
	})
	return boxes[i], slices.Delete(slices.Clone(boxes), i, i+1)
}

func TestClusterGoesOnWithoutItsLeader(t *testing.T) {
	t.Parallel()
	boxes := three(t)
	home := boxes[1]
	run := home.submit("job: 1").Run.Spec.Run
	if r := home.submit("job: 1"); !r.Existed || r.Resumed {
		t.Errorf("submitted twice: %v", r)
	}
	r := home.leased(run, 3, 1)
	if r.Lease.Members[0] != home.ID() || r.Spec.HomeNode != home.ID() {
		t.Errorf("home %s, lease %v", home.ID(), r.Lease)
	}
	for _, b := range boxes { // every member reports the same, to whoever leads
		if err := b.did(run, 1, 40); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "a renewal", func() bool { return home.Run(run).Lease.Until > 65 })

	old, rest := leader(boxes)
	followed := rest[0].follow(run)
	old.kill()
	dead := time.Now()
	if err := rest[0].did(run, 41, 45); err != nil { // through the election
		t.Fatal(err)
	}
	t.Logf("report taken %v after the leader was cut off", time.Since(dead))
	gen := rest[0].Run(run).Lease.Generation
	err := rest[0].Report(rest[0].ctx(enough), &proto.Report{
		Run: run, Node: rest[0].ID(), Generation: gen, Outcome: proto.Outcome_ABORTED, Suspect: old.ID()})
	if err != nil {
		t.Fatal(err)
	}
	r = rest[1].leased(run, 2, 2)
	t.Logf("generation 2 granted %v after the leader was cut off: %s", time.Since(dead), r.Reason)
	if err := rest[1].did(run, 44, 60); err != nil {
		t.Fatal(err)
	}
	rest[1].stop(run)
	gen = rest[0].Run(run).Lease.Generation
	err = rest[0].Report(rest[0].ctx(enough), &proto.Report{Run: run, Node: rest[0].ID(), Generation: gen, Outcome: proto.Outcome_PAUSED})
	if err != nil {
		t.Fatal(err)
	}
	if n := <-followed; n != 60 {
		t.Errorf("followed %d steps of 60", n)
	}
	eventually(t, "equal replicas", func() bool { return rest[0].hash() == rest[1].hash() })
}

// follow counts the steps that Follow sends, and checks that none is skipped. It ends with the run.
func (b *box) follow(run string) <-chan uint64 {
	done := make(chan uint64, 1)
	go func() {
		var n uint64
		defer func() { done <- n }()
		conn, err := b.dial.GRPC(b.mux.Advertise())
		if err != nil {
			b.t.Error(err)
			return
		}
		defer conn.Close()
		stream, err := proto.NewControlClient(conn).Follow(b.ctx(enough), &proto.FollowRequest{Run: run})
		for err == nil {
			var e *proto.FollowEvent
			if e, err = stream.Recv(); err == nil {
				for _, s := range e.Steps {
					if n++; s.Step != n {
						b.t.Errorf("step %d came as number %d", s.Step, n)
					}
				}
			}
		}
		if err != io.EOF {
			b.t.Errorf("follow: %v", err)
		}
	}()
	return done
}

func (b *box) stop(run string) {
	b.t.Helper()
	if _, err := b.ctl.Stop(b.ctx(enough), &proto.StopRequest{Run: run}); err != nil {
		b.t.Fatal(err)
	}
}

func (b *box) hash() [32]byte {
	return read(b.fsm, func(m *state.Machine) [32]byte { h, _ := m.Hash(); return h })
}

func TestTokensThatDoNotWork(t *testing.T) {
	t.Parallel()
	a := first(t)
	used := a.token(1, time.Minute)
	a.join(used)
	expired := a.token(1, time.Millisecond)
	time.Sleep(2 * time.Millisecond)
	for want, token := range map[string]string{"used up": used, "expired": expired} {
		began := time.Now()
		_, err := Join(a.ctx(enough), t.TempDir(), a.mux.Advertise(), token, bound(t), facts("x"))
		if status.Code(err) != codes.PermissionDenied || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
		if d := time.Since(began); d > enough/2 {
			t.Errorf("%s: refused only after %v: it was asked again", want, d)
		}
	}
}

// A lost reply may be asked for again, but a spent token does not make its owner somebody else.
func TestSpentTokenKeepsItsIdentity(t *testing.T) {
	t.Parallel()
	a := first(t)
	tok, err := ca.ParseJoinToken(a.token(1, time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	key, csr, err := ca.NewKeyAndCSR()
	if err != nil {
		t.Fatal(err)
	}
	at := bound(t)
	stop, err := at.Answer(key)
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	ask := func(id string) error {
		_, err := enrolOnce(a.ctx(enough), a.mux.Advertise(), tok, &proto.JoinRequest{
			TokenId: tok.ID(), TokenSecret: tok.Secret(), CsrDer: csr, Node: withID(facts("x"), id, at.Advertise()), NowUnixMs: time.Now().UnixMilli(),
		})
		return err
	}
	id := ca.NewNodeID()
	for range 2 {
		if err := ask(id); err != nil {
			t.Fatal(err)
		}
	}
	for _, other := range []string{a.ID(), ca.NewNodeID()} {
		if err := ask(other); status.Code(err) != codes.PermissionDenied {
			t.Errorf("as %s: %v", other, err)
		}
	}
}

func TestNodeComesBackOnAnotherPort(t *testing.T) {
	t.Parallel()
	a := first(t)
	b := a.join(a.token(1, time.Minute))
	if err := b.Ready(b.ctx(enough)); err != nil {
		t.Fatal(err)
	}
	run := a.submit("job: 2").Run.Spec.Run
	a.leased(run, 2, 1)
	b.close()
	a.leased(run, 1, 2)
	creds, err := Load(b.dir)
	if err != nil {
		t.Fatal(err)
	}
	again := open(t, b.dir, "box", creds)
	if err := again.Ready(again.ctx(enough)); err != nil {
		t.Fatal(err)
	}
	if r := again.Run(run); r == nil || r.Lease.Generation < 2 {
		t.Errorf("came back with run %v", r)
	}
	if n := a.fsm.node(b.ID()); n.Addr != again.mux.Advertise() || n.Name != "box-2" {
		t.Errorf("recorded as %v", n)
	}
}

func TestStopAndResumeOnOneNode(t *testing.T) {
	t.Parallel()
	a := first(t)
	run := a.submit("job: 3").Run.Spec.Run
	a.leased(run, 1, 1)
	if err := a.did(run, 1, 3); err != nil {
		t.Fatal(err)
	}
	a.stop(run)
	resumed := make(chan *proto.SubmitReply, 1)
	go func() { // while it is still stopping
		r, err := a.ctl.Submit(a.ctx(enough), &proto.SubmitRequest{JobYaml: "job: 3"})
		if err != nil {
			t.Error(err)
		}
		resumed <- r
	}()
	time.Sleep(20 * time.Millisecond)
	err := a.Report(a.ctx(enough), &proto.Report{Run: run, Node: a.ID(), Generation: 1, Outcome: proto.Outcome_PAUSED})
	if err != nil {
		t.Fatal(err)
	}
	if r := <-resumed; !r.Resumed || !r.Existed {
		t.Errorf("resumed: %v", r)
	}
	a.leased(run, 1, 2)
	before := a.hash()
	if err := a.raft.Snapshot().Error(); err != nil {
		t.Fatal(err)
	}
	a.close()
	creds, err := Load(a.dir)
	if err != nil {
		t.Fatal(err)
	}
	b := open(t, a.dir, "box", creds)
	eventually(t, "the state from the disk", func() bool { return b.Run(run) != nil })
	b.Ready(b.ctx(enough))
	r := b.Run(run)
	if r.Step != 3 || r.Lease.Generation != 2 || before == [32]byte{} {
		t.Errorf("after a restart: %v", r)
	}
}

// TestRoles: a worker has the state and may report, but cannot grant itself anything, and nobody can who was removed.
func TestRoles(t *testing.T) {
	t.Parallel()
	a := first(t)
	tok, err := a.ctl.CreateToken(a.ctx(enough), &proto.CreateTokenRequest{})
	if err != nil {
		t.Fatal(err)
	}
	w := a.join(tok.Token)
	if err := w.Ready(w.ctx(enough)); err != nil {
		t.Fatal(err)
	}
	run := w.submit("job: 5").Run.Spec.Run
	w.leased(run, 2, 1)
	if err := w.did(run, 1, 2); err != nil {
		t.Fatal(err)
	}
	refused := func(what string, cmd *proto.Command) {
		if _, err := w.apply(w.ctx(enough), cmd); status.Code(err) != codes.PermissionDenied {
			t.Errorf("%s: %v", what, err)
		}
	}
	refused("lease", &proto.Command{Do: &proto.Command_GrantLease{GrantLease: &proto.GrantLease{Run: run}}})
	refused("another's report", &proto.Command{Do: &proto.Command_Report{Report: &proto.Report{Run: run, Node: a.ID()}}})
	voter := facts("box")
	voter.Id, voter.Addr, voter.Voter = w.ID(), w.mux.Advertise(), true
	if _, err := w.apply(w.ctx(enough), &proto.Command{Do: &proto.Command_PutNode{PutNode: &proto.PutNode{Node: voter}}}); err != nil {
		t.Error(err)
	}
	if a.fsm.node(w.ID()).Voter {
		t.Error("a worker made itself a voter")
	}

	remove := &proto.Command{Do: &proto.Command_RemoveNode{RemoveNode: &proto.RemoveNode{Id: w.ID(), Heir: a.ID()}}}
	if _, err := a.apply(a.ctx(enough), remove); err != nil {
		t.Fatal(err)
	}
	r := a.leased(run, 1, 2)
	if r.Lease.Members[0] != a.ID() {
		t.Errorf("leased to %v", r.Lease.Members)
	}
	eventually(t, "no connection for the removed", func() bool {
		_, err := w.apply(w.ctx(300*time.Millisecond), remove)
		return err != nil && status.Code(err) != codes.FailedPrecondition
	})
}

func TestWithoutQuorumItSaysSo(t *testing.T) {
	t.Parallel()
	boxes := three(t)
	boxes[0].kill()
	boxes[1].kill()
	c := boxes[2]
	_, err := c.ctl.Submit(c.ctx(2*time.Second), &proto.SubmitRequest{JobYaml: "job: 4"})
	if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "no quorum: 1 of 3 voters reachable") {
		t.Fatalf("got %v", err)
	}
}

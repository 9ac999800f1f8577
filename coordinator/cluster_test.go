package coordinator

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"lorad/ca"
	"lorad/proto"
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

// enough is how long what has to come may take on a busy machine.
const enough = time.Minute

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

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
	"testing"
	"time"

	"lorad/coordinator/state"
	"lorad/proto"
	"lorad/transport"
)

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

package coordinator

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/anishathalye/porcupine"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"lorad/proto"
)

var linearSeeds = flag.Int("linear.seeds", 6, "histories to check for linearizability")

// The model of the job API, on three jobs. None of them ever begins: another run has the cluster.
const jobs = 3

type phase uint8

const (
	absent phase = iota
	queued
	stopped
	other // of no model state: a reply that shows it is wrong
)

// runs is the model's state.
type runs [jobs]phase

type call struct {
	op  string // submit, stop, ls, show
	job int
}

type answer struct {
	lost    bool // no answer: it may have happened or not, and may yet
	existed bool // submit
	missing bool // stop, show: there is no such run
	shown   runs // ls, and show in [job]
}

// jobAPI says what each call may answer in a state, and which state it leaves.
var jobAPI = porcupine.Model{
	Init: func() any { return runs{} },
	Step: func(s, in, out any) (bool, any) {
		r, c, a := s.(runs), in.(call), out.(answer)
		was := r[c.job]
		switch c.op {
		case "submit":
			r[c.job] = queued
			return a.lost || a.existed == (was != absent), r
		case "stop":
			if was != absent {
				r[c.job] = stopped
			}
			return a.lost || a.missing == (was == absent), r
		case "show":
			return a.lost || a.missing == (was == absent) && a.shown[c.job] == was, r
		}
		return a.lost || a.shown == r, r
	},
	DescribeOperation: func(in, out any) string { return fmt.Sprintf("%+v %+v", in, out) },
}

// history is what clients did and were told, in the order in which they began and ended to.
type history struct {
	mu     sync.Mutex
	events []porcupine.Event
	lost   []int
	stale  int
}

// did records one call of one client.
func (h *history) did(client int, c call, do func() (answer, bool)) {
	h.mu.Lock()
	id := len(h.events)
	h.events = append(h.events, porcupine.Event{ClientId: client, Kind: porcupine.CallEvent, Value: c, Id: id})
	h.mu.Unlock()
	a, counts := do()
	h.mu.Lock()
	defer h.mu.Unlock()
	if a.lost {
		h.lost = append(h.lost, id)
		return
	}
	if !counts { // it says itself that it is not the present, which no model forbids
		h.stale++
		h.events[id].Value = call{"show", c.job}
		a = answer{lost: true}
	}
	h.events = append(h.events, porcupine.Event{ClientId: client, Kind: porcupine.ReturnEvent, Value: a, Id: id})
}

// check looks for an order. What was lost never returned: it may have happened at any time after it began.
func (h *history) check(t *testing.T, seed uint64) {
	t.Helper()
	for _, id := range h.lost {
		h.events = append(h.events, porcupine.Event{Kind: porcupine.ReturnEvent, Value: answer{lost: true}, Id: id, ClientId: h.events[id].ClientId})
	}
	res, info := porcupine.CheckEventsVerbose(jobAPI, h.events, 20*time.Second)
	t.Logf("seed %d: %d calls, %d lost, %d stale: %s", seed, len(h.events)/2, len(h.lost), h.stale, res)
	if res == porcupine.Illegal {
		t.Errorf("seed %d: no order of these calls explains what they answered; longest explained: %v", seed, info.PartialLinearizations())
		for _, e := range h.events {
			t.Logf("%+v", e)
		}
	}
}

// client calls a node's services as the command line does.
type client struct {
	h    *history
	id   int
	rng  *rand.Rand
	node func() (proto.ControlServer, context.Context)
}

func jobText(job int) string { return fmt.Sprint("job: linear ", job) }

// one makes one call, of whatever kind.
func (c *client) one() {
	ctl, alive := c.node()
	ctx, cancel := context.WithTimeout(alive, 10*time.Second)
	defer cancel()
	in := call{[]string{"submit", "stop", "ls", "show"}[c.rng.IntN(4)], c.rng.IntN(jobs)}
	c.h.did(c.id, in, func() (answer, bool) { return ask(ctx, ctl, in) })
}

func ask(ctx context.Context, ctl proto.ControlServer, in call) (answer, bool) {
	spec, _ := prepare(ctx, &proto.SubmitRequest{JobYaml: jobText(in.job)})
	var a answer
	stale := false
	var err error
	switch in.op {
	case "submit":
		var r *proto.SubmitReply
		r, err = ctl.Submit(ctx, &proto.SubmitRequest{JobYaml: jobText(in.job), Dir: "/out"})
		a.existed = r.GetExisted()
	case "stop":
		_, err = ctl.Stop(ctx, &proto.StopRequest{Run: spec.Run})
	case "show":
		var r *proto.Run
		r, err = ctl.GetRun(ctx, &proto.GetRunRequest{Run: spec.Run})
		a.shown[in.job], stale = phaseOf(r), r.GetStale()
	case "ls":
		var r *proto.RunsReply
		r, err = ctl.Runs(ctx, &proto.RunsRequest{})
		a.shown, stale = shownBy(r), r.GetStale()
	}
	switch {
	case status.Code(err) == codes.NotFound:
		return answer{missing: true}, true
	case err != nil:
		return answer{lost: true}, true
	}
	return a, !stale
}

func shownBy(reply *proto.RunsReply) (s runs) {
	for job := range jobs {
		spec, _ := prepare(context.Background(), &proto.SubmitRequest{JobYaml: jobText(job)})
		for _, r := range reply.GetRuns() {
			if r.Spec.Run == spec.Run {
				s[job] = phaseOf(r)
			}
		}
	}
	return s
}

func phaseOf(r *proto.Run) phase {
	switch {
	case r == nil:
		return absent
	case r.Phase == proto.Phase_PENDING:
		return queued
	case r.Phase == proto.Phase_STOPPED:
		return stopped
	}
	return other
}

// TestJobAPIIsLinearizable: clients of all nodes submit, stop, list and show while leaders are crashed and cut off. There
// is always an order in which one machine that does one thing at a time would have given the same answers.
func TestJobAPIIsLinearizable(t *testing.T) {
	for seed := range uint64(*linearSeeds) {
		h := &history{}
		synctest.Test(t, func(t *testing.T) { storm(t, h, seed) })
		h.check(t, seed)
	}
}

// storm is half a minute of it, in virtual time.
func storm(t *testing.T, h *history, seed uint64) {
	b := newBubble(t, 3)
	b.until("three voters", time.Minute, func() bool { return b.leader() != nil && len(b.leader().voterIDs()) == 3 })
	occupy(t, b)
	b.bad = rand.New(rand.NewPCG(seed, 98))
	var work sync.WaitGroup
	for i := range 4 {
		rng := rand.New(rand.NewPCG(seed, uint64(i)))
		c := &client{h: h, id: i, rng: rng, node: func() (proto.ControlServer, context.Context) {
			b.mu.Lock()
			defer b.mu.Unlock()
			n := b.nodes[fmt.Sprint("node", rng.IntN(3))]
			return n.ctl, n.ctx
		}}
		work.Go(func() {
			for range 25 {
				c.one()
				time.Sleep(time.Duration(rng.IntN(700)) * time.Millisecond)
			}
		})
	}
	rng := rand.New(rand.NewPCG(seed, 99))
	for range 4 {
		time.Sleep(time.Duration(1+rng.IntN(3)) * time.Second)
		strike(b, rng)
	}
	work.Wait()
}

// occupy has a run take the cluster, so that all others wait.
func occupy(t *testing.T, b *bubble) {
	n := b.nodes["node0"]
	reply, err := n.ctl.Submit(t.Context(), &proto.SubmitRequest{JobYaml: "job: first", Dir: "/out"})
	if err != nil {
		t.Fatal(err)
	}
	b.until("a run has the cluster", time.Minute, func() bool { return n.Run(reply.Run.Spec.Run).GetPhase() == proto.Phase_RUNNING })
}

// strike hits the leader, or whoever it is, for some seconds.
func strike(b *bubble, rng *rand.Rand) {
	victim := b.leader()
	if victim == nil || rng.IntN(4) == 0 {
		victim = b.all()[rng.IntN(3)]
	}
	pause := time.Duration(1+rng.IntN(5)) * time.Second
	if rng.IntN(2) == 0 {
		victim.crash()
		time.Sleep(pause)
		victim.start()
		return
	}
	b.part(func(id string) int { return slices.Index([]string{victim.id}, id) })
	time.Sleep(pause)
	b.part(func(string) int { return 0 })
}

// TestJobAPIIsLinearizableOverTLS: the same on real connections and disks, once; the leader is cut off half-way.
func TestJobAPIIsLinearizableOverTLS(t *testing.T) {
	t.Parallel()
	boxes, h := three(t), &history{}
	boxes[0].leased(boxes[0].submit("job: first").Run.Spec.Run, 3, 1)
	old, rest := leader(boxes)
	var calls atomic.Int32
	var work sync.WaitGroup
	for i := range 3 {
		rng := rand.New(rand.NewPCG(1, uint64(i)))
		c := &client{h: h, id: i, rng: rng, node: func() (proto.ControlServer, context.Context) {
			return rest[rng.IntN(2)].ctl, t.Context()
		}}
		work.Go(func() {
			for range 25 {
				c.one()
				if calls.Add(1) == 25 { // a third of them
					old.kill()
				}
			}
		})
	}
	work.Wait()
	h.check(t, 1)
}

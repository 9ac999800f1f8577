package allreduce

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// faulty breaks its link when it is to write its data frame number `at`, or alters that frame.
type faulty struct {
	Link
	at    int64
	count *atomic.Int64
	alter func(Header) Header // nil: the connection breaks instead
}

func (f faulty) WriteFrame(h Header, payload []byte) error {
	if h.Type == Data && f.count.Add(1)-1 == f.at {
		if f.alter == nil {
			_ = f.Link.Close()
			return io.ErrClosedPipe
		}
		h = f.alter(h)
	}
	return f.Link.WriteFrame(h, payload)
}

// breakNext makes member victim's link to its successor faulty.
func breakNext(victim, at int, alter func(Header) Header) func(int, Links) Links {
	return func(rank int, l Links) Links {
		if next := (victim + 1) % len(l); rank == victim {
			l[next] = faulty{l[next], int64(at), new(atomic.Int64), alter}
		}
		return l
	}
}

// TestDeadLink breaks a link at every frame of an operation, whatever its way: every member aborts in time or has the
// exact sum, nobody's accumulator changes, and the next generation gets the sum from the same accumulators.
func TestDeadLink(t *testing.T) {
	const n, params, micros = 3, 3*segBlocks*blockLen + 5000, 4
	ms := randomMicros(11, params, micros)
	accs := share(11, ms, n, -40)
	before := make([][]int64, n)
	for r, a := range accs {
		before[r] = slices.Clone(a.v)
	}
	want, _ := bigSum(ms, -40)
	phases := map[Phase]bool{}
	for at, over := 0, map[string]bool{}; len(over) < len(ways(n)); at++ {
		eachWay(t, n, breakNext(1, at, nil), func(t *testing.T, way string, groups []*Group) {
			sums, errs := reduceAll(groups, testOp(1), accs)
			if errors.Join(errs...) == nil {
				over[way] = true // fewer frames than that go over the link
			}
			for r, err := range errs {
				if err == nil && sameBits(sums[r].Grad, want) {
					continue // it needed nothing more: a complete result is a valid one
				}
				phases[abortOf(t, r, err).Phase] = true
				if !slices.Equal(accs[r].v, before[r]) {
					t.Fatalf("frame %d: member %d's accumulator changed", at, r)
				}
				if who := err.(*AbortError).Suspect; who != "n1" && who != "n2" {
					t.Fatalf("frame %d: suspect %q is at neither end of the broken link", at, who)
				}
			}
		})
	}
	if !phases[ReduceScatter] || !phases[AllGather] {
		t.Fatalf("phases hit: %v", phases)
	}
	eachWay(t, n, nil, func(t *testing.T, _ string, groups []*Group) {
		sums, errs := reduceAll(groups, testOp(1), accs)
		if errs[0] != nil || !sameBits(sums[0].Grad, want) {
			t.Fatalf("after the aborts: %v, or another sum", errs[0])
		}
	})
}

func abortOf(t *testing.T, r int, err error) *AbortError {
	t.Helper()
	var ae *AbortError
	if !errors.As(err, &ae) {
		t.Fatalf("member %d: got %v, want an abort", r, err)
	}
	return ae
}

// TestSuspect kills one of five members: all others name it.
func TestSuspect(t *testing.T) {
	const n, victim = 5, 2
	ids, links, groups := memberIDs(n), mesh(n), make([]*Group, n)
	for r := range links {
		if r == victim {
			continue
		}
		g, err := NewGroup(testConfig(r, ids), links[r])
		if err != nil {
			t.Fatal(err)
		}
		defer g.Close()
		groups[r] = g
	}
	for _, l := range links[victim] {
		if l != nil {
			_ = l.Close()
		}
	}
	for r, g := range groups {
		if r == victim {
			continue
		}
		<-g.Done()
		ae := abortOf(t, r, g.Err())
		if ae.Suspect != ids[victim] || ae.Phase != Idle || strings.Count(ae.Error(), "seen by member") > 1 {
			t.Errorf("member %d: %v", r, ae)
		}
	}
}

// TestFence alters one field of one frame: the receiver names the difference and nothing is mixed in.
func TestFence(t *testing.T) {
	cases := map[string]func(Header) Header{
		"step 0":               func(h Header) Header { h.Op.Step--; return h },
		"attempt 9":            func(h Header) Header { h.Op.Attempt = 9; return h },
		"generation 2":         func(h Header) Header { h.Op.Generation = 2; return h },
		"run 8":                func(h Header) Header { h.Op.Run = 8; return h },
		"segment 1 arrived":    func(h Header) Header { h.Segment++; return h },
		"hop 1 segment 0 arri": func(h Header) Header { h.Hop++; return h },
		"all-gather hop":       func(h Header) Header { h.Phase = AllGather; return h },
		"cuts the vector":      func(h Header) Header { h.Plan++; return h },
	}
	for want, alter := range cases {
		t.Run(want, func(t *testing.T) {
			groups := groupOf(3, breakNext(0, 0, alter))
			defer closeAll(groups)
			for _, g := range groups {
				g.decide = ways(3)["ring"]
			}
			_, errs := reduceAll(groups, testOp(1), share(1, randomMicros(1, 3000, 2), 3, -40))
			ae := abortOf(t, 1, errs[1])
			var fe *FenceError
			if ae.Suspect != "n0" || !errors.As(ae, &fe) || !strings.Contains(ae.Error(), want) {
				t.Fatalf("got %v", ae)
			}
			abortOf(t, 0, errs[0])
			abortOf(t, 2, errs[2])
		})
	}
}

// TestMisalignedOperations: members that disagree about what they are doing find out.
func TestMisalignedOperations(t *testing.T) {
	groups := groupOf(2, nil)
	defer closeAll(groups)
	accs := share(1, randomMicros(1, 3000, 2), 2, -40)
	var errs [2]error
	together(groups, func(r int, g *Group) {
		_, errs[r] = g.Reduce(t.Context(), testOp(uint64(r)), accs[r], new(Sum))
	})
	for r := range errs {
		abortOf(t, r, errs[r])
	}
}

// TestCancel: one member's cancellation releases everybody and blames nobody.
func TestCancel(t *testing.T) {
	groups := groupOf(3, nil)
	defer closeAll(groups)
	accs := share(1, randomMicros(1, 900_000, 2), 3, -40) // more frames than the links and mailboxes hold
	ctx, cancel := context.WithCancelCause(context.Background())
	stopped := errors.New("the user stopped the run")
	time.AfterFunc(100*time.Millisecond, func() { cancel(stopped) })
	var errs [3]error
	together(groups[:2], func(r int, g *Group) { // member 2 never enters
		_, errs[r] = g.Reduce(ctx, testOp(1), accs[r], new(Sum))
	})
	<-groups[2].Done()
	errs[2] = groups[2].Err()
	for r, err := range errs {
		if ae := abortOf(t, r, err); ae.Suspect != "" || !strings.Contains(ae.Error(), stopped.Error()) {
			t.Errorf("member %d: %v", r, ae)
		}
	}
	// The group remembers what came first: its own cancellation, or the word of the other that was cancelled.
	_, err := groups[0].Reduce(context.Background(), testOp(2), accs[0], new(Sum))
	if ae := abortOf(t, 0, err); ae.Suspect != "" || !strings.Contains(ae.Error(), stopped.Error()) {
		t.Errorf("a dead group accepted an operation: %v", err)
	}
}

// TestSlowIsNotDead: a member that computes for many silences keeps the group alive by its heartbeats. The time is virtual: on a busy
// machine a heartbeat may be late.
func TestSlowIsNotDead(t *testing.T) { synctest.Test(t, slowIsNotDead) }

func slowIsNotDead(t *testing.T) {
	ids, links := memberIDs(2), mesh(2)
	var groups []*Group
	for r := range ids {
		c := testConfig(r, ids)
		c.Silence, c.Heartbeat = 500*time.Millisecond, 20*time.Millisecond
		g, err := NewGroup(c, links[r])
		if err != nil {
			t.Fatal(err)
		}
		groups = append(groups, g)
	}
	defer closeAll(groups)
	accs := share(1, randomMicros(1, 200_000, 2), 2, -40) // more frames than the links hold
	var errs [2]error
	together(groups, func(r int, g *Group) {
		time.Sleep(time.Duration(r) * time.Minute)
		_, errs[r] = g.Reduce(context.Background(), testOp(1), accs[r], new(Sum))
	})
	if errs[0] != nil || errs[1] != nil {
		t.Fatal(errs)
	}
}

// mute drops everything after its first frames, as a machine without power does.
type mute struct {
	Link
	left *atomic.Int64
}

func (m mute) WriteFrame(h Header, payload []byte) error {
	if m.left.Add(-1) < 0 {
		return nil
	}
	return m.Link.WriteFrame(h, payload)
}

// TestSilence: a member that falls silent without closing anything is found out by the others.
func TestSilence(t *testing.T) { synctest.Test(t, silence) }

func silence(t *testing.T) {
	ids := memberIDs(3)
	links := mesh(3)
	links[1] = Links{mute{links[1][0], newCount(3)}, nil, mute{links[1][2], newCount(3)}}
	for r := range links {
		c := testConfig(r, ids)
		c.Silence = 500 * time.Millisecond
		g, err := NewGroup(c, links[r])
		if err != nil {
			t.Fatal(err)
		}
		defer g.Close()
		if r != 1 {
			defer func() {
				<-g.Done()
				if ae := abortOf(t, r, g.Err()); ae.Suspect != "n1" || !strings.Contains(ae.Error(), "silent for 500ms") {
					t.Errorf("member %d: %v", r, ae)
				}
			}()
		}
	}
}

func newCount(n int64) *atomic.Int64 {
	c := new(atomic.Int64)
	c.Store(n)
	return c
}

// TestLeave: members that close one after the other do not disturb each other's last operation, and whoever
// goes on learns that somebody has left.
func TestLeave(t *testing.T) {
	for range 20 {
		groups := groupOf(3, nil)
		accs := share(1, randomMicros(1, 50_000, 2), 3, -40)
		var errs [3]error
		together(groups, func(r int, g *Group) {
			_, errs[r] = g.Reduce(context.Background(), testOp(1), accs[r], new(Sum))
			_ = g.Close()
		})
		if err := errors.Join(errs[:]...); err != nil {
			t.Fatal(err)
		}
	}
	groups := groupOf(3, nil)
	defer closeAll(groups)
	_ = groups[1].Close()
	var errs [3]error
	together(groups, func(r int, g *Group) {
		if r != 1 {
			_, errs[r] = g.Reduce(context.Background(), testOp(1), NewAccum(1, 1, -40), new(Sum))
		}
	})
	if ae := abortOf(t, 2, errs[2]); ae.Suspect != "n1" || !errors.Is(ae, ErrLeft) && !strings.Contains(ae.Error(), ErrLeft.Error()) {
		t.Fatal(errs)
	}
}

// TestCloseAborts: Close during an operation ends it on every member.
func TestCloseAborts(t *testing.T) {
	groups := groupOf(2, nil)
	defer closeAll(groups)
	time.AfterFunc(20*time.Millisecond, func() { _ = groups[0].Close() })
	_, err := groups[0].Reduce(context.Background(), testOp(1), NewAccum(1, 1, -40), new(Sum))
	if ae := abortOf(t, 0, err); !errors.Is(ae, ErrClosed) || ae.Suspect != "" {
		t.Fatal(err)
	}
	<-groups[1].Done()
}

// A member may leave between two operations while its neighbour is already far into the next one: frames that nobody
// will read must not keep Close from returning.
func TestLeaveWhileNeighbourSends(t *testing.T) {
	const params = 16 * MaxPayload / 4 // a chunk is more segments than all buffers on the way hold
	groups := groupOf(2, nil)
	failed := make(chan error, 1)
	go func() {
		var out Sum
		_, err := groups[0].Reduce(context.Background(), testOp(1), NewAccum(params, 2, -40), &out)
		failed <- err
	}()
	for deadline := time.Now().Add(5 * time.Second); len(groups[1].peers[0].in) < inDepth && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	closed := make(chan struct{})
	go func() { groups[1].Close(); close(closed) }()
	select {
	case <-closed:
	case <-time.After(5 * time.Second):
		t.Fatal("Close does not return")
	}
	abortOf(t, 0, <-failed)
	groups[0].Close()
}

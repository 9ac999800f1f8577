package tcp

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"lorad/allreduce"
)

// named is a connection whose other end has been "authenticated": the dialler's first byte is its rank.
type named struct {
	net.Conn
	id string
}

func peerID(c net.Conn) (string, bool) {
	n, ok := c.(named)
	return n.id, ok
}

// namer stands for the secure transport on the accepting side.
type namer struct{ net.Listener }

func (l namer) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	var b [1]byte
	if _, err := c.Read(b[:]); err != nil {
		return c, nil
	}
	return named{c, fmt.Sprintf("n%d", b[0])}, nil
}

// dialAs stands for the secure transport on the dialling side.
func dialAs(rank int) func(context.Context, Member) (net.Conn, error) {
	return func(ctx context.Context, m Member) (net.Conn, error) {
		var d net.Dialer
		c, err := d.DialContext(ctx, "tcp", m.Addr)
		if err == nil {
			_, err = c.Write([]byte{byte(rank)})
		}
		return named{c, m.ID}, err
	}
}

// site is n nodes on loopback.
type site struct {
	members    []Member
	registries []*Registry
}

func newSite(t testing.TB, n int) *site {
	s := &site{}
	for i := range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		r := NewRegistry(fmt.Sprintf("n%d", i), peerID)
		s.members = append(s.members, Member{fmt.Sprintf("n%d", i), l.Addr().String()})
		s.registries = append(s.registries, r)
		served := make(chan error, 1)
		go func() { served <- r.Serve(namer{l}) }()
		t.Cleanup(func() {
			_ = r.Close()
			if err := <-served; err != nil {
				t.Error(err)
			}
		})
	}
	return s
}

func (s *site) config(rank int, generation uint64) Config {
	return Config{
		Run: 7, Generation: generation, Rank: rank, Members: s.members,
		Dial: dialAs(rank), Accept: s.registries[rank], Silence: 2 * time.Second, Heartbeat: 50 * time.Millisecond,
	}
}

// connect builds the whole ring.
func (s *site) connect(t testing.TB, generation uint64) []*allreduce.Group {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	groups := make([]*allreduce.Group, len(s.members))
	errs := make([]error, len(groups))
	each(len(groups), func(i int) { groups[i], errs[i] = Connect(ctx, s.config(i, generation)) })
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeAll(groups) })
	return groups
}

func closeAll(groups []*allreduce.Group) {
	each(len(groups), func(i int) { _ = groups[i].Close() })
}

func each(n int, f func(i int)) {
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { f(i) })
	}
	wg.Wait()
}

func op(step uint64) allreduce.OpID { return allreduce.OpID{Run: 7, Generation: 1, Step: step} }

// TestRing runs steps of two sizes and an all-gather over real sockets and compares with the plain sum.
func TestRing(t *testing.T) {
	for n := 1; n <= 4; n++ {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			groups := newSite(t, n).connect(t, 1)
			for step, params := range []int{0, 200_003, 200_003, 10} {
				want, got := make([]float32, params), make([]allreduce.Sum, n)
				accs := make([]*allreduce.Accum, n)
				for r := range accs {
					accs[r] = wave(r, n, params, want)
				}
				each(n, func(r int) {
					if _, err := groups[r].Reduce(context.Background(), op(uint64(step)), accs[r], &got[r]); err != nil {
						t.Error(err)
					}
				})
				for r, s := range got {
					if !slices.Equal(s.Grad, want) || s.Tokens != int64(n*10) {
						t.Fatalf("step %d: member %d got another sum", step, r)
					}
				}
			}
		})
	}
}

// wave is member r's accumulator: one micro-batch of small multiples of the unit, added to want as well.
func wave(r, n, params int, want []float32) *allreduce.Accum {
	a := allreduce.NewAccum(params, n, -40)
	g := make([]float32, params)
	for i := range g {
		g[i] = float32(math.Ldexp(float64((i*(r+3))%4001-2000), -30))
		want[i] += g[i] // exact: 12 bits
	}
	if err := a.Add(r, g, 1, 10, 11); err != nil {
		panic(err)
	}
	return a
}

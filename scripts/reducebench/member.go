package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"net"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"lorad/allreduce"
	"lorad/allreduce/tcp"
	"lorad/ca"
	"lorad/transport"
)

func appendFloat(b []byte, x float32) []byte {
	return binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
}

// member is one node's process: it connects, says that it is ready, and sums once for every line it reads.
func member() {
	in := bufio.NewReader(os.Stdin)
	line, err := in.ReadBytes('\n')
	check(err)
	var t task
	check(json.Unmarshal(line, &t))
	accum := load(t)
	group, err := connect(t)
	check(err)
	say := json.NewEncoder(os.Stdout)
	check(say.Encode(result{}))
	var sum allreduce.Sum
	for step := uint64(0); ; step++ {
		if _, err := in.ReadString('\n'); err != nil {
			_ = group.Close()
			return
		}
		before := cpu()
		st, err := group.Reduce(context.Background(), allreduce.OpID{Run: 1, Generation: 1, Step: step}, accum, &sum)
		check(err)
		used := cpu()
		check(say.Encode(result{CPU: used - before, Seconds: st.Elapsed.Seconds(), Way: st.Way.String(), First: float64(sum.Grad[0])}))
	}
}

// cpu is what this process has used so far, in seconds.
func cpu() float64 {
	var u syscall.Rusage
	check(syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "reducebench member:", err)
		os.Exit(1)
	}
}

// load makes this node's micro-batch of its tensor.
func load(t task) *allreduce.Accum {
	b, err := os.ReadFile(filepath.Join(t.Dir, "tensor"))
	check(err)
	g := make([]float32, t.Params)
	for i := range g {
		g[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
	}
	a := allreduce.NewAccum(t.Params, len(t.Addrs), -40)
	if t.Variant == "int16" { // the units of reduce_wire: int16 for an optimiser that has seen gradients like these
		a.Quantise(slices.Repeat([]int8{-14 - 12}, t.Params))
	}
	check(a.Add(t.Rank, g, 1, 1, 1))
	return a
}

func connect(t task) (*allreduce.Group, error) {
	c := tcp.Config{Run: 1, Generation: 1, Rank: t.Rank}
	for i, a := range t.Addrs {
		c.Members = append(c.Members, tcp.Member{ID: nodeID(i), Addr: a})
	}
	open := secure
	if t.Variant == "plain" {
		open = plain
	}
	var listener net.Listener
	var peer func(net.Conn) (string, bool)
	c.Dial, listener, peer = open(t)
	c.Accept = tcp.NewRegistry(nodeID(t.Rank), peer)
	go func() { check(c.Accept.Serve(listener)) }()
	return tcp.Connect(context.Background(), c)
}

type dial = func(context.Context, tcp.Member) (net.Conn, error)

// secure is what nodes use: one port, mutual TLS 1.3.
func secure(t task) (dial, net.Listener, func(net.Conn) (string, bool)) {
	id, err := ca.LoadIdentity(t.Dir)
	check(err)
	mux, err := transport.Listen(t.Addrs[t.Rank], id)
	check(err)
	dialer := transport.NewDialer(id)
	return func(ctx context.Context, m tcp.Member) (net.Conn, error) {
			return dialer.DialNode(ctx, m.Addr, m.ID, transport.Reduce)
		}, mux.Listener(transport.Reduce), func(c net.Conn) (string, bool) {
			tc, ok := c.(*transport.Conn)
			if !ok {
				return "", false
			}
			return tc.Peer().NodeID, true
		}
}

// plain is the same without TLS, for comparison: the first byte of a connection is the dialler's rank. No node can do this.
func plain(t task) (dial, net.Listener, func(net.Conn) (string, bool)) {
	l, err := net.Listen("tcp", t.Addrs[t.Rank])
	check(err)
	return func(ctx context.Context, m tcp.Member) (net.Conn, error) {
			var d net.Dialer
			c, err := d.DialContext(ctx, "tcp", m.Addr)
			if err == nil {
				_, err = c.Write([]byte{byte(t.Rank)})
			}
			return named{c, m.ID}, err
		}, greeter{l}, func(c net.Conn) (string, bool) {
			n, ok := c.(named)
			return n.id, ok
		}
}

type named struct {
	net.Conn
	id string
}

func (n named) NetConn() net.Conn { return n.Conn }

type greeter struct{ net.Listener }

func (g greeter) Accept() (net.Conn, error) {
	c, err := g.Listener.Accept()
	if err != nil {
		return nil, err
	}
	var b [1]byte
	_, _ = c.Read(b[:])
	return named{c, nodeID(int(b[0]))}, nil
}

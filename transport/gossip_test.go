package transport

import (
	"bytes"
	"fmt"
	"io"
	"log"
	"net"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"

	"lorad/ca"
)

// member starts a memberlist node with its detector sped up.
func member(t *testing.T, c cluster, name string, key []byte) (*memberlist.Memberlist, *Mux) {
	t.Helper()
	m := c.listen(t, name)
	cfg := memberlist.DefaultLANConfig()
	cfg.Name, cfg.Label, cfg.SecretKey = name, c.ClusterID(), key
	cfg.Transport = NewGossip(m, c.dialer(t, name))
	cfg.ProbeInterval, cfg.ProbeTimeout = 200*time.Millisecond, 200*time.Millisecond
	cfg.DisableTcpPings = true // probes have only packets to travel by
	cfg.GossipInterval, cfg.SuspicionMult = 20*time.Millisecond, 2
	cfg.UDPBufferSize = 60 << 10
	cfg.Logger = log.New(io.Discard, "", 0)
	list, err := memberlist.Create(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { list.Shutdown() })
	return list, m
}

func wantMembers(t *testing.T, n int, lists ...*memberlist.Memberlist) {
	t.Helper()
	var last string
	for end := time.Now().Add(enough); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		last = ""
		for _, l := range lists {
			if l.NumMembers() != n {
				last = fmt.Sprintf("%s sees %d members, want %d", l.LocalNode().Name, l.NumMembers(), n)
			}
		}
		if last == "" {
			return
		}
	}
	t.Fatal(last)
}

func TestMemberlistJoinsAndDetectsDeath(t *testing.T) {
	c := newCluster(t)
	key := bytes.Repeat([]byte{7}, 32)
	a, ma := member(t, c, "a", key)
	b, _ := member(t, c, "b", key)
	d, md := member(t, c, "d", key)
	for _, l := range []*memberlist.Memberlist{b, d} {
		if _, err := l.Join([]string{ma.Advertise()}); err != nil {
			t.Fatal(err)
		}
	}
	wantMembers(t, 3, a, b, d)
	// Were packets lost, all would be suspected after a probe (200 ms) and declared dead after 400 ms more.
	time.Sleep(time.Second)
	wantMembers(t, 3, a, b, d)
	md.Close() // as a killed process: no goodbye
	wantMembers(t, 2, a, b)
}

func TestGossipPacketsAndStreams(t *testing.T) {
	c := newCluster(t)
	ma, mb := c.listen(t, "a"), c.listen(t, "b")
	a, b := NewGossip(ma, c.dialer(t, "a")), NewGossip(mb, c.dialer(t, "b"))
	defer a.Shutdown()
	defer b.Shutdown()
	for _, n := range []int{1, 1400, maxPacket} {
		sent := bytes.Repeat([]byte{byte(n)}, n)
		if _, err := a.WriteTo(sent, mb.Advertise()); err != nil {
			t.Fatal(err)
		}
		if p := <-b.PacketCh(); !bytes.Equal(p.Buf, sent) {
			t.Errorf("packet of %d bytes arrived as %d", n, len(p.Buf))
		}
	}
	for _, n := range []int{0, maxPacket + 1} {
		if _, err := a.WriteTo(make([]byte, n), mb.Advertise()); err == nil {
			t.Errorf("packet of %d bytes accepted", n)
		}
	}
	if n := connections(mb, Gossip); n != 1 {
		t.Errorf("%d packet connections for one peer, want 1 that is kept", n)
	}
	s, err := a.DialTimeout(mb.Advertise(), enough)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	other := <-b.StreamCh()
	defer other.Close()
	go io.Copy(other, other)
	says(t, s, "push-pull")
}

func connections(m *Mux, p Proto) (n int) {
	m.conns.mu.Lock()
	defer m.conns.mu.Unlock()
	for c := range m.conns.open {
		if c.proto == p {
			n++
		}
	}
	return n
}

// TestGossipNeverBlocks: packets to peers that are gone, silent or slow cost the caller nothing.
func TestGossipNeverBlocks(t *testing.T) {
	c := newCluster(t)
	a := NewGossip(c.listen(t, "a"), c.dialer(t, "a"))
	defer a.Shutdown()
	full := c.listen(t, "full") // accepts, and nobody ever reads
	defer NewGossip(full, c.dialer(t, "full")).Shutdown()
	silent := plain(t, func(c net.Conn) { c.Read(make([]byte, 1<<16)); c.Read(make([]byte, 1)) })
	packet, longest := make([]byte, maxPacket), time.Duration(0)
	for range 500 {
		for _, addr := range []string{full.Advertise(), silent, closedPort(t)} {
			start := time.Now()
			a.WriteTo(packet, addr)
			longest = max(longest, time.Since(start))
		}
	}
	if longest > handshakeTimeout-time.Second { // a dial of the silent peer takes that
		t.Errorf("of 1500 writes one took %v", longest)
	}
}

// TestGossipRefusesBadFrames: a member that lost its mind is hung up on, and nothing is allocated for it.
func TestGossipRefusesBadFrames(t *testing.T) {
	c := newCluster(t)
	m, d := c.listen(t, "a"), c.dialer(t, "b")
	g := NewGossip(m, c.dialer(t, "a"))
	defer g.Shutdown()
	for _, bytes := range []string{"P\x00\x00\x00\x00", "P\xff\xff\xff\xff", "P\x00\x01\x00\x01x", "X", "S"} {
		conn, err := d.Dial(short(t), m.Advertise(), Gossip)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(conn, bytes)
		if bytes == "S" {
			(<-g.StreamCh()).Close()
		}
		conn.SetReadDeadline(time.Now().Add(enough))
		if _, err := conn.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("after %q: %v, want the connection closed", bytes, err)
		}
	}
	select {
	case p := <-g.PacketCh():
		t.Errorf("packet of %d bytes delivered", len(p.Buf))
	default:
	}
}

func TestGossipAdvertisesTheMux(t *testing.T) {
	c := newCluster(t)
	m := listen(t, Config{Identity: c.node(t, "a", ca.Worker), Advertise: "localhost:7000"})
	g := NewGossip(m, NewDialer(c.node(t, "a", ca.Worker)))
	defer g.Shutdown()
	ip, port, err := g.FinalAdvertiseAddr("", 0)
	if err != nil || !ip.IsLoopback() || port != 7000 {
		t.Errorf("advertised %v:%d, %v", ip, port, err)
	}
}

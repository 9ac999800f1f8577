package transport

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// A gossip connection starts with one byte that says what it is. A packet connection goes one way, from the
// node that dialed it, and is kept:
//
//	'P'  then for each packet: length, 4 bytes big-endian, 1..65536; the packet
//	'S'  then whatever memberlist says, both ways
const (
	packetConn = 'P'
	streamConn = 'S'

	maxPacket   = 64 << 10
	packetQueue = 128 // packets that wait for one peer; the next is dropped, as UDP would
	maxSenders  = 4096

	packetWrite = 2 * time.Second // for one packet to leave; also for the first byte to arrive
	packetRetry = time.Second     // pause after a failed dial, in which packets are dropped
	packetIdle  = 2 * time.Minute // a sender without work ends
)

// GossipTransport carries memberlist's packets and streams over TLS connections: memberlist.Config.Transport. Packets
// are best effort, as memberlist expects: no caller ever waits for the network.
type GossipTransport struct {
	ln        net.Listener
	dialer    *Dialer
	advertise string
	packets   chan *memberlist.Packet
	streams   chan net.Conn

	ctx  context.Context
	stop context.CancelFunc
	wg   sync.WaitGroup

	mu      sync.Mutex
	senders map[string]chan []byte // by address
}

var _ memberlist.NodeAwareTransport = (*GossipTransport)(nil)

// NewGossip starts taking in gossip connections. memberlist ends it with Shutdown. With it, memberlist's
// UDPBufferSize may be as large as 60 KiB, and its bind and advertise address and port are not used: leave
// AdvertiseAddr empty.
func NewGossip(m *Mux, d *Dialer) *GossipTransport {
	g := &GossipTransport{
		ln: m.Listener(Gossip), dialer: d, advertise: m.Advertise(),
		packets: make(chan *memberlist.Packet),
		streams: make(chan net.Conn),
		senders: map[string]chan []byte{},
	}
	g.ctx, g.stop = context.WithCancel(context.Background())
	g.wg.Go(g.accept)
	return g
}

// FinalAdvertiseAddr returns the Mux's advertised address, a host name resolved, unless ip is given.
func (g *GossipTransport) FinalAdvertiseAddr(ip string, port int) (net.IP, int, error) {
	addr := g.advertise
	if ip != "" {
		addr = net.JoinHostPort(ip, strconv.Itoa(port))
	}
	a, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		return nil, 0, fmt.Errorf("gossip: advertise address %s: %w", addr, err)
	}
	return a.IP, a.Port, nil
}

// PacketCh gives the packets that arrive.
func (g *GossipTransport) PacketCh() <-chan *memberlist.Packet { return g.packets }

// StreamCh gives the streams that arrive.
func (g *GossipTransport) StreamCh() <-chan net.Conn { return g.streams }

// Shutdown closes all and waits for its goroutines.
func (g *GossipTransport) Shutdown() error {
	g.stop()
	err := g.ln.Close()
	g.wg.Wait()
	return err
}

func (g *GossipTransport) accept() {
	for {
		c, err := g.ln.Accept()
		if err != nil {
			return
		}
		g.wg.Go(func() { g.serve(c) })
	}
}

// serve reads what kind of connection c is and hands it, or its packets, to memberlist.
func (g *GossipTransport) serve(c net.Conn) {
	stop := context.AfterFunc(g.ctx, func() { c.Close() })
	defer stop()
	c.SetReadDeadline(time.Now().Add(packetWrite))
	var kind [1]byte
	if _, err := io.ReadFull(c, kind[:]); err != nil {
		c.Close()
		return
	}
	c.SetReadDeadline(time.Time{})
	switch kind[0] {
	case packetConn:
		defer c.Close()
		g.receive(c)
	case streamConn:
		g.deliver(c)
	default:
		c.Close()
	}
}

// deliver passes a stream on; from then on it is memberlist's to close.
func (g *GossipTransport) deliver(c net.Conn) {
	select {
	case g.streams <- c:
	case <-g.ctx.Done():
		c.Close()
	}
}

func (g *GossipTransport) receive(c net.Conn) {
	r := bufio.NewReader(c)
	for {
		b, err := readPacket(r)
		if err != nil {
			return
		}
		p := &memberlist.Packet{Buf: b, From: c.RemoteAddr(), Timestamp: time.Now()}
		select {
		case g.packets <- p:
		case <-g.ctx.Done():
			return
		}
	}
}

func readPacket(r io.Reader) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n < 1 || n > maxPacket {
		return nil, fmt.Errorf("gossip packet of %d bytes, want 1..%d", n, maxPacket)
	}
	b := make([]byte, n)
	_, err := io.ReadFull(r, b)
	return b, err
}

func appendPacket(b, packet []byte) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(len(packet))), packet...)
}

// WriteTo queues a packet for the node at addr.
func (g *GossipTransport) WriteTo(b []byte, addr string) (time.Time, error) {
	if len(b) < 1 || len(b) > maxPacket {
		return time.Time{}, fmt.Errorf("gossip to %s: packet of %d bytes, want 1..%d", addr, len(b), maxPacket)
	}
	g.enqueue(addr, appendPacket(make([]byte, 0, 4+len(b)), b))
	return time.Now(), nil
}

// WriteToAddress queues a packet for a node.
func (g *GossipTransport) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	return g.WriteTo(b, a.Addr)
}

// enqueue hands a frame to the peer's sender, or drops it if that has too much to do.
func (g *GossipTransport) enqueue(addr string, frame []byte) {
	g.mu.Lock()
	defer g.mu.Unlock()
	q := g.senders[addr]
	if q == nil {
		if len(g.senders) >= maxSenders || g.ctx.Err() != nil {
			return
		}
		q = make(chan []byte, packetQueue)
		g.senders[addr] = q
		g.wg.Go(func() { g.send(addr, q) })
	}
	select {
	case q <- frame:
	default:
	}
}

// retire forgets a sender that has had nothing to do, unless something has just come in.
func (g *GossipTransport) retire(addr string, q chan []byte) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(q) > 0 {
		return false
	}
	delete(g.senders, addr)
	return true
}

// send writes one peer's frames to a connection that it makes when needed and keeps.
func (g *GossipTransport) send(addr string, q chan []byte) {
	var c net.Conn
	defer func() {
		if c != nil {
			c.Close()
		}
	}()
	var refuse time.Time // until when frames are dropped
	for {
		select {
		case frame := <-q:
			if time.Now().Before(refuse) {
				continue
			}
			if c = g.write(c, addr, frame); c == nil {
				refuse = time.Now().Add(packetRetry)
			}
		case <-time.After(packetIdle):
			if g.retire(addr, q) {
				return
			}
		case <-g.ctx.Done():
			return
		}
	}
}

// write sends one frame over c, or a new connection if c is nil or broken. It returns the connection to keep,
// nil if the peer cannot be reached.
func (g *GossipTransport) write(c net.Conn, addr string, frame []byte) net.Conn {
	if c != nil && put(c, frame) == nil {
		return c
	}
	c, err := g.open(g.ctx, addr, packetConn)
	if err != nil {
		return nil
	}
	impatient(c)
	g.wg.Go(func() { watch(c) })
	if put(c, frame) != nil {
		return nil
	}
	return c
}

// put closes c when the frame did not leave whole.
func put(c net.Conn, frame []byte) error {
	c.SetWriteDeadline(time.Now().Add(packetWrite))
	_, err := c.Write(frame)
	if err != nil {
		c.Close()
	}
	return err
}

// watch closes a packet connection as soon as the other end does. It ends with the connection.
func watch(c net.Conn) {
	c.Read(make([]byte, 1))
	c.Close()
}

// open dials a gossip connection and says what it is for.
func (g *GossipTransport) open(ctx context.Context, addr string, kind byte) (net.Conn, error) {
	c, err := g.dialer.Dial(ctx, addr, Gossip)
	if err != nil {
		return nil, err
	}
	return c, put(c, []byte{kind})
}

// DialTimeout opens a stream to the node at addr.
func (g *GossipTransport) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(g.ctx, timeout)
	defer cancel()
	return g.open(ctx, addr, streamConn)
}

// DialAddressTimeout opens a stream to a node.
func (g *GossipTransport) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	return g.DialTimeout(a.Addr, timeout)
}

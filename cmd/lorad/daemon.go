package main

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"lorad/allreduce"
	"lorad/allreduce/tcp"
	"lorad/coordinator"
	"lorad/embedded"
	"lorad/node"
	"lorad/proto"
	"lorad/transport"
)

// daemonConfig is what a node process is told on the command line.
type daemonConfig struct {
	Dir       string
	Name      string
	Bind      string
	Advertise string
	DialFrom  net.IP
	Threads   int
	Workspace string // absolute; "" for none
	Bootstrap bool   // make a new cluster if the directory has none
	Alone     bool   // nobody else will ever be in it
	Join      string
	Token     string
	Witness   bool // joins as one
	Log       *slog.Logger
}

// daemon is one running node: the coordinator's part and the worker's part over one listener and one dialer.
type daemon struct {
	coordinator *coordinator.Coordinator
	node        *node.Node // nil on a witness
	release     []func()   // the last first
	once        sync.Once
}

const (
	readyTimeout = 30 * time.Second
	renewTry     = 5 * time.Second // for a node that has a token, and so another way
)

// startDaemon starts a node and returns when it is part of its cluster.
func startDaemon(ctx context.Context, cfg daemonConfig) (*daemon, error) {
	signal.Ignore(syscall.SIGXFSZ) // a limit on the size of files is an error of whoever writes them
	d := &daemon{}
	if err := d.open(ctx, cfg); err != nil {
		d.close()
		return nil, err
	}
	ready, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	if err := d.coordinator.Ready(ready); err != nil {
		select {
		case err = <-d.coordinator.Failed():
			d.abandon()
		default:
			d.close()
		}
		return nil, err
	}
	return d, nil
}

func (d *daemon) open(ctx context.Context, cfg daemonConfig) error {
	local, err := transport.ListenLocal(cfg.Dir) // first: it also keeps a second node out of the directory
	if err != nil {
		return err
	}
	d.undo(func() { local.Close() })
	if cfg, err = placed(cfg); err != nil {
		return err
	}
	at, err := transport.Bind(cfg.Bind, cfg.Advertise)
	if err != nil {
		return err
	}
	d.undo(func() { at.Close() })
	facts := facts(cfg)
	creds, err := credentials(ctx, cfg, at, facts)
	if err != nil {
		return err
	}
	if err := keepPlace(cfg); err != nil {
		return err
	}
	mux, err := transport.Config{Bound: at, Identity: creds.Identity, Refused: refused(cfg.Log)}.Listen()
	if err != nil {
		return err
	}
	d.undo(func() { mux.Close() })
	dialer := transport.NewDialer(creds.Identity)
	dialer.From = cfg.DialFrom
	d.undo(func() { dialer.Close() })
	watch := d.openMonitor(cfg.Log)
	c := coordinator.Config{
		Dir: cfg.Dir, Credentials: creds, Node: facts, Mux: mux, Dialer: dialer, Local: local, Log: cfg.Log, Workspace: cfg.Workspace,
		GPUs: sayGPUs(watch, cfg.Log),
	}
	late := &lateControl{}
	if !creds.Node.Witness {
		if err := d.openNode(cfg, creds, &rings{d.registry(creds, mux), dialer, late}, machineGPUs{watch}); err != nil {
			return err
		}
		c.Prepare, c.Audit, c.Peer = d.node.Prepare, d.node.Audit, d.node
	}
	if d.coordinator, err = coordinator.Open(c); err != nil {
		return err
	}
	d.undo(func() { d.coordinator.Close() })
	late.Coordinator = d.coordinator
	if d.node != nil {
		d.work()
	}
	return nil
}

// registry takes in the connections of rings.
func (d *daemon) registry(creds *coordinator.Credentials, mux *transport.Mux) *tcp.Registry {
	r := tcp.NewRegistry(creds.Node.Id, peerID)
	go r.Serve(mux.Listener(transport.Reduce))
	d.undo(func() { r.Close() })
	return r
}

// openNode makes the part that works on runs. A witness has none.
func (d *daemon) openNode(cfg daemonConfig, creds *coordinator.Credentials, rings *rings, gpus node.GPUs) (err error) {
	d.node, err = node.New(node.Config{
		ID: creds.Node.Id, Dir: cfg.Dir, Threads: cfg.Threads, Alone: cfg.Alone, Embedded: embedded.Base(), GPUs: gpus,
		Control: rings.control, Peers: rings.control, Rings: rings, Log: cfg.Log,
	})
	return err
}

// work runs the node until the daemon is closed.
func (d *daemon) work() {
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); d.node.Run(ctx) }()
	d.undo(func() { stop(); <-done })
}

func (d *daemon) undo(f func()) { d.release = append(d.release, f) }

// abandon has close do nothing: a node that cannot write its log cannot end in order.
func (d *daemon) abandon() { d.once.Do(func() {}) }

// close stops everything in the reverse order of its start. It may be called more than once.
func (d *daemon) close() {
	d.once.Do(func() {
		for i := len(d.release) - 1; i >= 0; i-- {
			d.release[i]()
		}
	})
}

// credentials are those of the directory, or new ones: of a new cluster, or from the node to join.
func credentials(ctx context.Context, cfg daemonConfig, at *transport.Bound, facts *proto.Node) (*coordinator.Credentials, error) {
	creds, err := coordinator.Load(cfg.Dir)
	if err == nil {
		return existing(ctx, cfg, at, facts, creds)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	switch {
	case cfg.Join != "":
		return coordinator.Join(ctx, cfg.Dir, cfg.Join, cfg.Token, at, facts)
	case cfg.Bootstrap:
		return coordinator.Create(cfg.Dir)
	}
	return nil, &exitError{exitNotFound, fmt.Errorf("this machine is in no cluster yet (%s); lorad up makes one, lorad join enters one", cfg.Dir)}
}

// existing brings the credentials of the directory up to date. One that joins again, with a token, enrols again only
// if its certificate has ended and nobody renews it: otherwise it starts as it is.
func existing(ctx context.Context, cfg daemonConfig, at *transport.Bound, facts *proto.Node, creds *coordinator.Credentials) (*coordinator.Credentials, error) {
	joins := cfg.Join != ""
	wait := readyTimeout
	if joins {
		wait = renewTry
		if err := creds.CheckToken(cfg.Token); err != nil {
			return nil, usage(err)
		}
	}
	renewing, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	err := creds.Refresh(renewing, cfg.Dir)
	switch {
	case err != nil && joins:
		fmt.Fprintf(os.Stderr, "joining again as node %s: %v\n", creds.Node.Id, err)
		return creds.Rejoin(ctx, cfg.Dir, cfg.Join, cfg.Token, at, facts)
	case err != nil:
		return nil, &exitError{exitRetry, err}
	case joins:
		fmt.Fprintf(os.Stderr, "this machine is in cluster %s already and starts as it is; to enter another one, use another --dir\n", creds.ClusterID)
	}
	return creds, nil
}

func facts(cfg daemonConfig) *proto.Node {
	name := cfg.Name
	if name == "" {
		name, _ = os.Hostname()
	}
	return &proto.Node{
		Name: name, Cores: uint32(runtime.NumCPU()), MemoryBytes: memory(), Engine: engineName(), Version: version(),
		Witness: cfg.Witness,
	}
}

// memory is the machine's memory in bytes, 0 if the system does not say.
func memory() uint64 {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0
	}
	var kib uint64
	for _, line := range strings.Split(string(text), "\n") {
		if n, _ := fmt.Sscanf(line, "MemTotal: %d kB", &kib); n == 1 {
			return kib << 10
		}
	}
	return 0
}

// refused logs connections that were turned away.
func refused(log *slog.Logger) func(net.Addr, error) {
	return func(from net.Addr, why error) { log.Info("connection refused", "from", from.String(), "why", why) }
}

func peerID(c net.Conn) (string, bool) {
	t, ok := c.(*transport.Conn)
	if !ok {
		return "", false
	}
	return t.Peer().NodeID, true
}

// lateControl is the coordinator for a node that has to exist before it; Run starts only when it is there.
type lateControl struct{ *coordinator.Coordinator }

// rings builds the ring of a generation over the one listener and the one dialer.
type rings struct {
	registry *tcp.Registry
	dialer   *transport.Dialer
	control  *lateControl
}

// ringSilence is after which a neighbour that sends not even heartbeats (five a second, whatever it computes) is given up:
// a machine that hangs, a cable that was pulled. If it is only very busy, a new generation costs a fraction of a second.
const ringSilence = 2 * time.Second

// connectTimeout bounds how long a member waits for the others of its generation; the coordinator then decides anew.
const connectTimeout = 20 * time.Second

func (r *rings) Connect(ctx context.Context, run string, generation uint64, members []string, self string) (*allreduce.Group, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	h := fnv.New64a()
	h.Write([]byte(run))
	c := tcp.Config{Run: h.Sum64(), Generation: generation, Rank: -1, Accept: r.registry, Dial: r.dial, Silence: ringSilence}
	addrs := map[string]string{}
	for _, n := range r.control.Nodes() {
		addrs[n.Id] = n.Addr
	}
	for i, id := range members {
		c.Members = append(c.Members, tcp.Member{ID: id, Addr: addrs[id]})
		if id == self {
			c.Rank = i
		}
	}
	return tcp.Connect(ctx, c)
}

func (r *rings) dial(ctx context.Context, m tcp.Member) (net.Conn, error) {
	return r.dialer.DialNode(ctx, m.Addr, m.ID, transport.Reduce)
}

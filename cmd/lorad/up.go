package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"lorad/proto"
)

// tokenEnv gives a join token without showing it in the list of processes.
const tokenEnv = "LORAD_TOKEN"

// daemonFlags are common to lorad up and lorad join.
type daemonFlags struct {
	Name      string `help:"Name of this node (default: what it was, or the host name)."`
	Bind      string `help:"Address and port to listen on (default: what it was, or :7840); the one TCP port a firewall has to let through." placeholder:"[ADDR]:PORT"`
	Advertise string `help:"host:port at which other nodes reach this one, if it is not what it listens on (NAT, port mapping)."`
	Workspace string `help:"Folder below which jobs that people submit from elsewhere (--server) read and write; without it there are no such jobs." placeholder:"DIR" type:"path"`
	Threads   int    `help:"Threads of the CPU engine (default: all cores)." placeholder:"N"`
	drainFlags
	DialFrom         net.IP `hidden:"" help:"Address that connections to other nodes come from (default: the system chooses)."`
	UntilStdinCloses bool   `hidden:"" help:"End when standard input closes: for programs that start a node as a child."`
}

func (f daemonFlags) config(a *app) daemonConfig {
	return daemonConfig{Dir: a.dir, Name: f.Name, Bind: f.Bind, Advertise: f.Advertise, DialFrom: f.DialFrom, Threads: f.Threads, Workspace: f.Workspace, Log: a.log}
}

type upCmd struct {
	daemonFlags
	TokenUses uint32        `default:"1" help:"How many nodes may join with the token that is printed."`
	TokenTTL  time.Duration `default:"1h" name:"token-ttl" help:"How long it is valid."`
}

func (u upCmd) Run(a *app) error {
	if err := atLeastOne(u.TokenUses, "--token-uses"); err != nil {
		return err
	}
	cfg := u.config(a)
	cfg.Bootstrap = true
	return serve(a, cfg, u.daemonFlags, func(c *client) error {
		ctx, cancel := context.WithTimeout(a.ctx, readyTimeout)
		defer cancel()
		t, err := c.CreateToken(ctx, &proto.CreateTokenRequest{Uses: u.TokenUses, TtlMs: u.TokenTTL.Milliseconds(), Voter: true})
		if err != nil {
			return err
		}
		return a.print(started{Addr: t.Addr, Token: t.Token}, func(w io.Writer) {
			fmt.Fprintf(w, "this node is up at %s\n", t.Addr)
			printJoin(w, t, u.TokenUses)
			fmt.Fprintf(w, "\ntrain with:  lorad train job.yaml      (lorad example > job.yaml writes one to start from)\nCtrl-C stops this node; lorad up starts it again where it was\n")
		})
	})
}

func printJoin(w io.Writer, t *proto.CreateTokenReply, uses uint32) {
	fmt.Fprintf(w, "on another machine, within %s (%d use%s, %s):\n\n  LORAD_TOKEN=%s lorad join %s\n", left(t.ExpiresUnixMs), uses, plural(uses), t.Role, t.Token, t.Addr)
	if host, _, err := net.SplitHostPort(t.Addr); err == nil {
		if ip := net.ParseIP(host); ip != nil && ip.IsLoopback() {
			fmt.Fprintln(w, "\n(that address works on this machine only; give --bind or --advertise an address that the others reach)")
		}
	}
}

func plural(n uint32) string {
	if n == 1 {
		return ""
	}
	return "s"
}

type joinCmd struct {
	daemonFlags
	Addr    string `arg:"" help:"host:port of any node of the cluster."`
	Witness bool   `help:"Vote, so that two boxes survive the loss of one, and do nothing else: no run is leased to this node, and it needs no more than a small disk."`
	tokenFlags
}

func (j joinCmd) Run(a *app) error {
	if err := hostPort(j.Addr); err != nil {
		return err
	}
	token, err := j.read()
	if err != nil {
		return err
	}
	cfg := j.config(a)
	cfg.Join, cfg.Token, cfg.Witness = j.Addr, token, j.Witness
	return serve(a, cfg, j.daemonFlags, func(c *client) error {
		reply, err := c.Cluster(a.ctx, &proto.ClusterRequest{})
		if err != nil {
			return err
		}
		s := started{}
		for _, n := range reply.Nodes {
			if n.Self {
				s.Addr = n.Node.Addr
			}
		}
		return a.print(s, func(w io.Writer) {
			fmt.Fprintf(w, "joined: this node is up at %s, in a cluster of %d\nCtrl-C stops it; lorad up starts it again\n", s.Addr, len(reply.Nodes))
		})
	})
}

// serve runs a node until it is told to stop. It hands its work over before it ends, unless the program that started it
// is gone.
func serve(a *app, cfg daemonConfig, f daemonFlags, announce func(*client) error) error {
	d, err := startDaemon(a.ctx, cfg)
	if err != nil {
		return err
	}
	defer d.close()
	c, err := dial(a.ctx, a.dir)
	if err != nil {
		return err
	}
	err = announce(c)
	c.Close()
	if err != nil {
		return err
	}
	ended := make(chan struct{})
	if f.UntilStdinCloses {
		go func() { io.Copy(io.Discard, os.Stdin); close(ended) }()
	}
	if f.PreemptCmd != "" {
		go d.watchPreemption(a.ctx, f.PreemptCmd)
	}
	select {
	case <-a.ctx.Done():
		fmt.Fprintln(os.Stderr, "stopping")
		d.leave(f.DrainTimeout)
	case <-ended:
	case <-d.coordinator.CastOut():
		return &exitError{exitDenied, d.coordinator.Outcast()}
	case err := <-d.coordinator.Failed():
		d.abandon()
		return err
	}
	return nil
}

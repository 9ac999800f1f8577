package coordinator

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"lorad/ca"
	"lorad/coordinator/state"
	"lorad/internal/durable"
	"lorad/proto"
	"lorad/transport"
)

const (
	sealedFile   = "authority.sealed"
	renewGap     = time.Second // between two renewals of one node
	renewTimeout = 5 * time.Second
	renewLook    = time.Hour // a machine that slept may find its certificate older than it thought
)

// Renew signs a new certificate for a node that shows its old one, which may have ended. Any node that can open the
// authority does it: no quorum is needed, so a cluster whose certificates have all ended comes back by itself.
func (e enrolment) Renew(ctx context.Context, req *proto.RenewRequest) (*proto.RenewReply, error) {
	c := e.c
	caller, _ := transport.PeerFromContext(ctx)
	n := c.fsm.node(caller.NodeID)
	if n == nil {
		return nil, status.Errorf(codes.PermissionDenied, "renew certificate: node %s is not in the cluster: join with a token and an empty state directory", caller.NodeID)
	}
	authority, err := c.authority()
	if err != nil {
		return &proto.RenewReply{Elsewhere: c.signer()}, nil
	}
	if !c.renewals.allow(n.Id, c.now()) {
		return nil, status.Errorf(codes.ResourceExhausted, "renew certificate: node %s did a moment ago: wait", n.Id)
	}
	cert, err := authority.SignCSR(req.CsrDer, ca.Subject{ClusterID: c.creds.ClusterID, NodeID: n.Id, Role: roleOf(n)})
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	return &proto.RenewReply{CertDer: cert}, nil
}

// signer is where a node listens that can open the authority, "" if none is up.
func (c *Coordinator) signer() string {
	for _, n := range c.Nodes() {
		if n.Id != c.id && roleOf(n) == ca.Voter && c.gossip.alive(n.Id) {
			return c.addr(n.Id)
		}
	}
	return ""
}

// gaps holds a minimum of time between two things that one node wants.
type gaps struct {
	mu   sync.Mutex
	last map[string]time.Time // by node id, of nodes in the cluster only
}

func (g *gaps) allow(id string, now time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.last == nil {
		g.last = map[string]time.Time{}
	}
	if last, seen := g.last[id]; seen && now.Sub(last) < renewGap {
		return false
	}
	g.last[id] = now
	return true
}

// keepFresh renews this node's certificate when two thirds of its life are over. Connections go on; new ones show it.
func (c *Coordinator) keepFresh(ctx context.Context) {
	id := c.creds.Identity
	for {
		wait := min(time.Until(id.RenewAt()), renewLook)
		if wait <= 0 {
			if err := c.refresh(ctx); err == nil {
				c.log.Info("certificate renewed", "until", id.NotAfter())
			} else if ctx.Err() == nil {
				c.log.Warn("certificate was not renewed", "ends", id.NotAfter(), "err", err)
			}
			wait = max(time.Second, min(renewLook, time.Until(id.NotAfter())/30))
		}
		if sleep(ctx, wait) != nil {
			return
		}
	}
}

// refresh gets a new certificate: of the authority itself where this node can open it, else of a node that can.
func (c *Coordinator) refresh(ctx context.Context) error {
	authority, err := c.authority()
	if err != nil {
		return c.creds.renewAt(ctx, c.cfg.Dir, append([]string{c.signer()}, addresses(c.Nodes(), c.id)...))
	}
	role := c.creds.Identity.Self().Role
	if n := c.fsm.node(c.id); n != nil {
		role = roleOf(n)
	}
	return c.creds.selfSign(c.cfg.Dir, authority, role)
}

// selfSign renews with the authority that this node has itself.
func (c *Credentials) selfSign(dir string, a *ca.Authority, role ca.Role) error {
	csr, err := c.Identity.CSR()
	if err != nil {
		return err
	}
	cert, err := a.SignCSR(csr, ca.Subject{ClusterID: c.ClusterID, NodeID: c.Node.Id, Role: role})
	if err != nil {
		return err
	}
	return c.show(dir, cert)
}

// show makes a certificate the one that is shown from now on, and after a restart.
func (c *Credentials) show(dir string, cert []byte) error {
	if err := c.Identity.Renew(cert); err != nil {
		return err
	}
	return c.Identity.Save(dir)
}

// renewAt asks the nodes at these addresses, one after the other, until one has signed.
func (c *Credentials) renewAt(ctx context.Context, dir string, addrs []string) error {
	err := errors.New("renew certificate: no other node is known")
	asked := map[string]bool{"": true}
	for len(addrs) > 0 {
		addr := addrs[0]
		addrs = addrs[1:]
		if asked[addr] {
			continue
		}
		asked[addr] = true
		var reply *proto.RenewReply
		if reply, err = c.askRenewal(ctx, addr); err != nil {
			continue
		}
		if len(reply.CertDer) > 0 {
			return c.show(dir, reply.CertDer)
		}
		err = fmt.Errorf("renew certificate at %s: it cannot open the authority, and sees nobody who can; start a node that votes", addr)
		addrs = append([]string{reply.Elsewhere}, addrs...)
	}
	return err
}

func (c *Credentials) askRenewal(ctx context.Context, addr string) (*proto.RenewReply, error) {
	ctx, cancel := context.WithTimeout(ctx, renewTimeout)
	defer cancel()
	csr, err := c.Identity.CSR()
	if err != nil {
		return nil, err
	}
	conn, err := transport.GRPCRenew(ctx, addr, c.Identity)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return proto.NewEnrolClient(conn).Renew(ctx, &proto.RenewRequest{CsrDer: csr})
}

// Refresh renews a certificate that ended while the node was switched off: call it before anything else is done with the
// credentials. A node that votes needs nobody for it. Another asks those it knew until one answers or ctx ends.
func (c *Credentials) Refresh(ctx context.Context, dir string) error {
	if !c.Identity.Expired(time.Now()) {
		return nil
	}
	if a, err := c.keptAuthority(dir); err == nil {
		return c.selfSign(dir, a, c.Identity.Self().Role)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for {
		err := c.renewAt(ctx, dir, c.Seeds)
		if err == nil || status.Code(err) == codes.PermissionDenied {
			return err
		}
		if sleep(ctx, time.Second) != nil {
			return fmt.Errorf("this node's certificate ended on %s, and nobody could renew it: %w; start a node that votes first, or give `lorad join` a new token: the node keeps its id and its data",
				c.Identity.NotAfter().UTC().Format(time.DateOnly), err)
		}
	}
}

// keptAuthority opens the copy of the sealed authority that lies in dir. The error is fs.ErrNotExist if this node has
// none, or not the secret.
func (c *Credentials) keptAuthority(dir string) (*ca.Authority, error) {
	if c.secret == nil {
		return nil, fs.ErrNotExist
	}
	sealed, err := os.ReadFile(filepath.Join(dir, sealedFile))
	if err != nil {
		return nil, err
	}
	return ca.Open(sealed, *c.secret)
}

// keepAuthority lays the sealed authority beside the secret that opens it: a node whose certificate has ended cannot
// get it from the others.
func (c *Coordinator) keepAuthority() {
	sealed := read(c.fsm, (*state.Machine).Cluster).GetSealedCaKey()
	path := filepath.Join(c.cfg.Dir, sealedFile)
	if c.creds.secret == nil || len(sealed) == 0 {
		return
	}
	if old, err := os.ReadFile(path); err == nil && string(old) == string(sealed) {
		return
	}
	if err := durable.WriteFile(path, sealed, 0o600); err != nil && !errors.Is(err, fs.ErrNotExist) {
		c.log.Warn("the sealed authority was not saved", "err", err)
	}
}

package coordinator

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"lorad/ca"
	"lorad/coordinator/state"
	"lorad/proto"
	"lorad/transport"
)

// maxName bounds what a stranger may call itself, in bytes.
const maxName = 64

// enrolment lets strangers in.
type enrolment struct {
	proto.UnimplementedEnrolServer
	c *Coordinator
}

// Join checks a token, records the node and signs its certificate. Only the leader can; the others pass it on.
func (e enrolment) Join(ctx context.Context, req *proto.JoinRequest) (*proto.JoinReply, error) {
	c := e.c
	leader := c.leader()
	switch leader {
	case "":
		return nil, status.Error(codes.Unavailable, "join: "+errNoLeader.Error())
	case c.id:
		return c.enrol(ctx, req)
	}
	conn, err := c.peers.conn(leader)
	if err != nil {
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	return proto.NewEnrolClient(conn).Join(ctx, req)
}

// enrol spends the token only after everything else about the request was found good.
func (c *Coordinator) enrol(ctx context.Context, req *proto.JoinRequest) (*proto.JoinReply, error) {
	if n := req.Node; n == nil || len(n.Id) > maxName || len(n.Name) > maxName || len(n.Addr) > 4*maxName {
		return nil, status.Error(codes.InvalidArgument, "join: the node's id, name or address is missing or too long")
	}
	// Key and id together: whoever asks again with a spent token is let in as the node he was, not as another.
	key, err := ca.RequestHash(req.CsrDer, req.Node.Id)
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, "join: "+err.Error())
	}
	authority, err := c.authority()
	if err != nil {
		return nil, status.Error(codes.FailedPrecondition, err.Error())
	}
	use := &proto.UseToken{
		Id: req.TokenId, SecretSha256: ca.HashSecret(req.TokenSecret), Node: req.Node, KeySha256: key, Again: c.wasHere(req),
	}
	if err := c.inspect(ctx, req, use); err != nil {
		return nil, err
	}
	reply, err := c.propose(&proto.Command{Do: &proto.Command_UseToken{UseToken: use}})
	if err != nil {
		return nil, status.Error(codes.Unavailable, "join: "+err.Error())
	}
	if reply.RefusalKind != "" {
		c.log.Warn("a stranger was turned away", "name", req.Node.Name, "reason", reply.Refusal)
		return nil, turnAway(&state.Error{Kind: state.Kind(reply.RefusalKind), Text: reply.Refusal})
	}
	return c.welcome(authority, req.CsrDer, reply.Node)
}

// turnAway is a joiner's refusal with its reason.
func turnAway(e *state.Error) error {
	return because(codes.PermissionDenied, TokenPrefix+string(e.Kind), "join: "+e.Text)
}

// inspect finds what would be wrong with the joiner once it were in, in the order of what it costs. Nobody without a
// good token makes this node connect anywhere.
func (c *Coordinator) inspect(ctx context.Context, req *proto.JoinRequest, use *proto.UseToken) error {
	var refusal *state.Error
	if err := read(c.fsm, func(m *state.Machine) error { return m.CheckToken(use, c.now().UnixMilli()) }); errors.As(err, &refusal) {
		return turnAway(refusal)
	}
	if skew := c.now().Sub(time.UnixMilli(req.NowUnixMs)); skew.Abs() > ca.Backdate {
		return because(codes.FailedPrecondition, ClockReason, fmt.Sprintf("join: clock skew: it is %s here and %s on the joiner, %s apart; set the clock that is wrong (NTP), then join again",
			c.now().UTC().Format(time.RFC3339), time.UnixMilli(req.NowUnixMs).UTC().Format(time.RFC3339), skew.Abs().Round(time.Second)))
	}
	if err := transport.Reach(ctx, req.Node.Addr, func(cert []byte) bool { return ca.SameKey(req.CsrDer, cert) }); err != nil {
		return because(codes.FailedPrecondition, ReachReason, fmt.Sprintf("join: not reached back: the cluster (from %s) cannot connect to the joiner at %s, which it gave as its address: %v; open that TCP port, or give --advertise the host:port at which other nodes reach the joiner",
			c.cfg.Mux.Advertise(), req.Node.Addr, err))
	}
	return nil
}

// wasHere reports whether the joiner showed that it is the node whose id it wants: the authority signed its key under
// that id, however long ago.
func (c *Coordinator) wasHere(req *proto.JoinRequest) bool {
	if len(req.OldCertDer) == 0 || !ca.SameKey(req.CsrDer, req.OldCertDer) {
		return false
	}
	was, err := c.creds.Identity.Lapsed(req.OldCertDer, ca.AuthorityLifetime)
	return err == nil && was.NodeID == req.Node.Id && was.ClusterID == c.creds.ClusterID
}

// authority opens the key that lies sealed in the state.
func (c *Coordinator) authority() (*ca.Authority, error) {
	sealed := c.creds.sealed // of the node that made the cluster, until it is in the state
	if cluster := read(c.fsm, (*state.Machine).Cluster); cluster != nil {
		sealed = cluster.SealedCaKey
	}
	if sealed == nil || c.creds.secret == nil {
		return nil, errors.New("join: this leader has no access to the cluster's authority; try again when another node leads")
	}
	a, err := ca.Open(sealed, *c.creds.secret)
	if err == nil {
		a.Lifetime = c.cfg.CertLifetime
	}
	return a, err
}

// welcome is what a node that was let in needs.
func (c *Coordinator) welcome(authority *ca.Authority, csr []byte, n *proto.Node) (*proto.JoinReply, error) {
	role := roleOf(n)
	cert, err := authority.SignCSR(csr, ca.Subject{ClusterID: c.creds.ClusterID, NodeID: n.Id, Role: role})
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, "join: "+err.Error())
	}
	reply := &proto.JoinReply{
		CertChainDer: [][]byte{cert}, CaCertDer: authority.CertDER(), ClusterId: c.creds.ClusterID, GossipKey: c.newest().key,
		Nodes: c.Nodes(), Node: n,
	}
	if role == ca.Voter { // a witness votes from a place that need not be trusted with the authority
		reply.VoterSecret = c.creds.secret.Reveal()
	}
	c.log.Info("node let in", "name", n.Name, "id", n.Id, "role", role)
	return reply, nil
}

// roleOf is what a node's certificate says it is.
func roleOf(n *proto.Node) ca.Role {
	switch {
	case n.Witness:
		return ca.Witness
	case n.Voter:
		return ca.Voter
	}
	return ca.Worker
}

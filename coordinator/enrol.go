package coordinator

import (
	"context"
	"errors"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"lorad/ca"
	"lorad/coordinator/state"
	"lorad/proto"
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
	_, leader := c.raft.LeaderWithID()
	switch string(leader) {
	case "":
		return nil, status.Error(codes.Unavailable, "join: "+errNoLeader.Error())
	case c.id:
		return c.enrol(req)
	}
	conn, err := c.peers.conn(string(leader))
	if err != nil {
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	return proto.NewEnrolClient(conn).Join(ctx, req)
}

// enrol spends the token only after everything else about the request was found good.
func (c *Coordinator) enrol(req *proto.JoinRequest) (*proto.JoinReply, error) {
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
	use := &proto.UseToken{Id: req.TokenId, SecretSha256: ca.HashSecret(req.TokenSecret), Node: req.Node, KeySha256: key}
	reply, err := c.propose(&proto.Command{Do: &proto.Command_UseToken{UseToken: use}})
	if err != nil {
		return nil, status.Error(codes.Unavailable, "join: "+err.Error())
	}
	if reply.RefusalKind != "" {
		c.log.Warn("a stranger was turned away", "name", req.Node.Name, "reason", reply.Refusal)
		return nil, because(codes.PermissionDenied, TokenPrefix+reply.RefusalKind, "join: "+reply.Refusal)
	}
	return c.welcome(authority, req.CsrDer, reply.Node)
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
	return ca.Open(sealed, *c.creds.secret)
}

// welcome is what a node that was let in needs.
func (c *Coordinator) welcome(authority *ca.Authority, csr []byte, n *proto.Node) (*proto.JoinReply, error) {
	role := roleOf(n)
	cert, err := authority.SignCSR(csr, ca.Subject{ClusterID: c.creds.ClusterID, NodeID: n.Id, Role: role})
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, "join: "+err.Error())
	}
	reply := &proto.JoinReply{
		CertChainDer: [][]byte{cert}, CaCertDer: authority.CertDER(), ClusterId: c.creds.ClusterID, GossipKey: c.creds.GossipKey,
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

package coordinator

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"lorad/ca"
	"lorad/internal/durable"
	"lorad/proto"
	"lorad/transport"
)

const clusterFile = "cluster.json"

// Credentials are what a node needs to be one: who it is, the keys it shares with the cluster, and where to find it.
type Credentials struct {
	Identity  *ca.Identity
	Node      *proto.Node // id, and whether it may vote; facts are the Config's
	ClusterID string
	GossipKey []byte   // 32 bytes
	Seeds     []string // host:port of nodes that were there

	secret  *ca.ClusterSecret // voters only
	sealed  []byte            // the first node only, until it is in the state
	removed atomic.Pointer[func(id string) bool]
}

// record is cluster.json.
type record struct {
	Version   int      `json:"version"`
	ClusterID string   `json:"cluster_id"`
	NodeID    string   `json:"node_id"`
	Voter     bool     `json:"voter"`
	GossipKey []byte   `json:"gossip_key"`
	Seeds     []string `json:"seeds"`
	SealedCA  []byte   `json:"sealed_ca,omitempty"` // the node that made the cluster
}

// Create makes a new cluster whose first node keeps its credentials in dir.
func Create(dir string) (*Credentials, error) {
	id := ca.NewClusterID()
	authority, err := ca.New(id)
	if err != nil {
		return nil, err
	}
	secret := ca.NewClusterSecret()
	sealed, err := ca.Seal(authority, secret)
	if err != nil {
		return nil, err
	}
	node := &proto.Node{Id: ca.NewNodeID(), Voter: true}
	identity, err := authority.Issue(ca.Subject{ClusterID: id, NodeID: node.Id, Role: ca.Voter})
	if err != nil {
		return nil, err
	}
	c := &Credentials{
		Identity: identity, Node: node, ClusterID: id, GossipKey: newGossipKey(), secret: &secret, sealed: sealed,
	}
	return c.ready(), c.save(dir)
}

func newGossipKey() []byte {
	key := make([]byte, 32)
	rand.Read(key)
	return key
}

// Join enrols with the node at addr and keeps the credentials it is given in dir. facts need an address or at least a
// guess of it; the node tells the true one once it listens.
func Join(ctx context.Context, dir, addr, token string, facts *proto.Node) (*Credentials, error) {
	tok, err := ca.ParseJoinToken(token)
	if err != nil {
		return nil, err
	}
	key, csr, err := ca.NewKeyAndCSR()
	if err != nil {
		return nil, err
	}
	req := &proto.JoinRequest{TokenId: tok.ID(), TokenSecret: tok.Secret(), CsrDer: csr, Node: withID(facts, ca.NewNodeID())}
	reply, err := enrol(ctx, addr, tok, req)
	if err != nil {
		return nil, err
	}
	c, err := fromReply(key, reply)
	if err != nil {
		return nil, fmt.Errorf("join %s: damaged reply: %w", addr, err)
	}
	c.Seeds = append(c.Seeds, addr)
	return c.ready(), c.save(dir)
}

func withID(n *proto.Node, id string) *proto.Node {
	return &proto.Node{
		Id: id, Name: n.GetName(), Addr: n.GetAddr(), Cores: n.GetCores(), MemoryBytes: n.GetMemoryBytes(),
		Engine: n.GetEngine(), Version: n.GetVersion(), Witness: n.GetWitness(),
	}
}

// enrol asks until it is let in or turned away: the cluster may be electing a leader just now.
func enrol(ctx context.Context, addr string, tok ca.JoinToken, req *proto.JoinRequest) (*proto.JoinReply, error) {
	for {
		reply, err := enrolOnce(ctx, addr, tok, req)
		if err == nil || !retryable(err) {
			return reply, err
		}
		if sleep(ctx, 200*time.Millisecond) != nil {
			return nil, err
		}
	}
}

func enrolOnce(ctx context.Context, addr string, tok ca.JoinToken, req *proto.JoinRequest) (*proto.JoinReply, error) {
	conn, err := transport.GRPCEnrol(ctx, addr, tok)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return proto.NewEnrolClient(conn).Join(ctx, req)
}

func fromReply(key *ecdsa.PrivateKey, r *proto.JoinReply) (*Credentials, error) {
	identity, err := ca.NewIdentity(key, r.CertChainDer, r.CaCertDer)
	if err != nil {
		return nil, err
	}
	c := &Credentials{Identity: identity, Node: r.Node, ClusterID: r.ClusterId, GossipKey: r.GossipKey}
	if len(r.VoterSecret) > 0 {
		secret, err := ca.ParseClusterSecret(r.VoterSecret)
		if err != nil {
			return nil, err
		}
		c.secret = &secret
	}
	if r.Node == nil || len(r.GossipKey) != 32 {
		return nil, errors.New("no node or no gossip key in it")
	}
	c.Seeds = addresses(r.Nodes, r.Node.Id)
	return c, nil
}

// Load reads what Create or Join left in dir. The error is fs.ErrNotExist if this node is in no cluster.
func Load(dir string) (*Credentials, error) {
	b, err := os.ReadFile(filepath.Join(dir, clusterFile))
	if err != nil {
		return nil, fmt.Errorf("load cluster: %w", err)
	}
	var r record
	if err := json.Unmarshal(b, &r); err != nil || r.Version != 1 || len(r.GossipKey) != 32 {
		return nil, fmt.Errorf("load %s: damaged or of another version: remove the directory and join again (%v)", filepath.Join(dir, clusterFile), err)
	}
	identity, err := ca.LoadIdentity(dir)
	if err != nil {
		return nil, err
	}
	c := &Credentials{
		Identity: identity, Node: &proto.Node{Id: r.NodeID, Voter: r.Voter, Witness: identity.Self().Role == ca.Witness}, ClusterID: r.ClusterID, GossipKey: r.GossipKey,
		Seeds: r.Seeds, sealed: r.SealedCA,
	}
	secret, err := ca.LoadSecret(dir)
	if err == nil {
		c.secret = &secret
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return c.ready(), nil
}

// ready makes the identity ask the replicated state about peers, as soon as there is one.
func (c *Credentials) ready() *Credentials {
	c.Identity.Revoked = func(id string) bool {
		f := c.removed.Load()
		return f != nil && (*f)(id)
	}
	return c
}

// save writes the secrets first: cluster.json is what makes the rest count.
func (c *Credentials) save(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := c.Identity.Save(dir); err != nil {
		return err
	}
	if c.secret != nil {
		if err := c.secret.Save(dir); err != nil {
			return err
		}
	}
	return c.saveRecord(dir, c.Seeds)
}

func (c *Credentials) saveRecord(dir string, seeds []string) error {
	r := record{
		Version: 1, ClusterID: c.ClusterID, NodeID: c.Node.Id, Voter: c.Node.Voter, GossipKey: c.GossipKey, Seeds: seeds,
		SealedCA: c.sealed,
	}
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return durable.WriteFile(filepath.Join(dir, clusterFile), append(b, '\n'), 0o600)
}

// addresses lists where the nodes are, without the one whose id is self.
func addresses(nodes []*proto.Node, self string) []string {
	var addrs []string
	for _, n := range nodes {
		if n.Id != self && n.Addr != "" {
			addrs = append(addrs, n.Addr)
		}
	}
	return addrs
}

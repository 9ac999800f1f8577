package coordinator

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
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

	mu     sync.Mutex // for the two below, GossipKey and Seeds, and cluster.json
	newKey uint64     // removed nodes when GossipKey was drawn
}

func (c *Credentials) gossipKey() gossipKey {
	c.mu.Lock()
	defer c.mu.Unlock()
	return gossipKey{c.GossipKey, c.newKey}
}

func (c *Credentials) setGossipKey(k gossipKey) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.GossipKey, c.newKey = k.key, k.removed
}

func (c *Credentials) seeds() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.Seeds
}

func (c *Credentials) setSeeds(addrs []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.Seeds = addrs
}

// record is cluster.json.
type record struct {
	Version   int      `json:"version"`
	ClusterID string   `json:"cluster_id"`
	NodeID    string   `json:"node_id"`
	Voter     bool     `json:"voter"`
	GossipKey []byte   `json:"gossip_key"`
	Rotated   uint64   `json:"gossip_rotated_for,omitempty"`
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
	if err := c.save(dir); err != nil {
		return nil, err
	}
	return c.ready(), durable.WriteFile(filepath.Join(dir, sealedFile), sealed, 0o600)
}

func newGossipKey() []byte {
	key := make([]byte, gossipKeySize)
	rand.Read(key)
	return key
}

// Join enrols with the node at addr and keeps the credentials it is given in dir. The cluster lets in only whom it
// reaches back, so the port that the node is going to serve is taken already: at.
func Join(ctx context.Context, dir, addr, token string, at *transport.Bound, facts *proto.Node) (*Credentials, error) {
	key, csr, err := ca.NewKeyAndCSR()
	if err != nil {
		return nil, err
	}
	stop, err := at.Answer(key)
	if err != nil {
		return nil, err
	}
	defer stop()
	reply, err := enrol(ctx, addr, token, &proto.JoinRequest{CsrDer: csr, Node: withID(facts, ca.NewNodeID(), at.Advertise())})
	if err != nil {
		return nil, err
	}
	identity, err := ca.NewIdentity(key, reply.CertChainDer, reply.CaCertDer)
	if err != nil {
		return nil, fmt.Errorf("join %s: damaged reply: %w", addr, err)
	}
	return keep(dir, addr, identity, reply)
}

// Rejoin enrols a node again that has been in the cluster: under its id, with its key, and whatever else dir holds. It is
// for one whose certificate ended too long ago to be renewed.
func (c *Credentials) Rejoin(ctx context.Context, dir, addr, token string, at *transport.Bound, facts *proto.Node) (*Credentials, error) {
	csr, err := c.Identity.CSR()
	if err != nil {
		return nil, err
	}
	stop, err := at.Answer(c.Identity.Key())
	if err != nil {
		return nil, err
	}
	defer stop()
	req := &proto.JoinRequest{CsrDer: csr, Node: withID(facts, c.Node.Id, at.Advertise()), OldCertDer: c.Identity.CertDER()}
	reply, err := enrol(ctx, addr, token, req)
	if err != nil {
		return nil, err
	}
	identity, err := c.Identity.With(reply.CertChainDer, reply.CaCertDer)
	if err != nil {
		return nil, fmt.Errorf("join %s: damaged reply: %w", addr, err)
	}
	return keep(dir, addr, identity, reply)
}

// CheckToken says what is wrong with joining this cluster again with a token, by the looks of it.
func (c *Credentials) CheckToken(token string) error {
	tok, err := ca.ParseJoinToken(token)
	if err == nil && !tok.PinnedBy(c.Identity.Pin()) {
		err = fmt.Errorf("this machine is in cluster %s already, and the token is of another one: use another --dir", c.ClusterID)
	}
	return err
}

func withID(n *proto.Node, id, addr string) *proto.Node {
	return &proto.Node{
		Id: id, Name: n.GetName(), Addr: addr, Cores: n.GetCores(), MemoryBytes: n.GetMemoryBytes(),
		Engine: n.GetEngine(), Version: n.GetVersion(), Witness: n.GetWitness(),
	}
}

// enrol asks until it is let in or turned away: the cluster may be electing a leader just now.
func enrol(ctx context.Context, addr, token string, req *proto.JoinRequest) (*proto.JoinReply, error) {
	tok, err := ca.ParseJoinToken(token)
	if err != nil {
		return nil, err
	}
	req.TokenId, req.TokenSecret = tok.ID(), tok.Secret()
	for {
		req.NowUnixMs = time.Now().UnixMilli()
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

// keep saves what a node that was let in was given.
func keep(dir, addr string, identity *ca.Identity, r *proto.JoinReply) (*Credentials, error) {
	c, err := fromReply(identity, r)
	if err != nil {
		return nil, fmt.Errorf("join %s: damaged reply: %w", addr, err)
	}
	c.Seeds = append([]string{addr}, c.Seeds...)
	return c.ready(), c.save(dir)
}

func fromReply(identity *ca.Identity, r *proto.JoinReply) (*Credentials, error) {
	c := &Credentials{Identity: identity, Node: r.Node, ClusterID: r.ClusterId, GossipKey: r.GossipKey}
	if len(r.VoterSecret) > 0 {
		secret, err := ca.ParseClusterSecret(r.VoterSecret)
		if err != nil {
			return nil, err
		}
		c.secret = &secret
	}
	if r.Node == nil || len(r.GossipKey) != gossipKeySize {
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
	if err := json.Unmarshal(b, &r); err != nil || r.Version != 1 || len(r.GossipKey) != gossipKeySize {
		return nil, fmt.Errorf("load %s: damaged or of another version: remove the directory and join again (%v)", filepath.Join(dir, clusterFile), err)
	}
	identity, err := ca.LoadIdentity(dir)
	if err != nil {
		return nil, err
	}
	c := &Credentials{
		Identity: identity, Node: &proto.Node{Id: r.NodeID, Voter: r.Voter, Witness: identity.Self().Role == ca.Witness}, ClusterID: r.ClusterID, GossipKey: r.GossipKey,
		Seeds: r.Seeds, sealed: r.SealedCA, newKey: r.Rotated,
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
	c.mu.Lock()
	defer c.mu.Unlock()
	r := record{
		Version: 1, ClusterID: c.ClusterID, NodeID: c.Node.Id, Voter: c.Node.Voter, GossipKey: c.GossipKey, Rotated: c.newKey,
		Seeds: slices.Clone(seeds), SealedCA: c.sealed,
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

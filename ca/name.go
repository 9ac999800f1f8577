package ca

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"
)

// Role is what a certificate lets its owner do.
type Role string

const (
	Worker  Role = "worker"  // computes; may not speak Raft
	Voter   Role = "voter"   // also takes part in Raft and may enrol joiners
	Witness Role = "witness" // votes, never computes
	// Owner is the user of this machine on its local socket. It is never in a certificate, nor are those below.
	Owner Role = "owner"
	// Viewer and Operator are people who call from elsewhere with a token: one looks, the other also runs things.
	Viewer   Role = "viewer"
	Operator Role = "operator"
	// Lapsed is a node, of whatever role, that may do nothing but have its certificate renewed.
	Lapsed Role = "lapsed"
	// Visitor is somebody on the port for people who has not shown a token yet: each call brings it.
	Visitor Role = "visitor"
)

// Subject is the whole identity of a node as the leader decides it.
type Subject struct {
	ClusterID string
	NodeID    string
	Role      Role
}

// Peer is the verified identity at the other end of a connection. The zero Peer is a stranger.
type Peer = Subject

// part is what a cluster id, a node id and a role may look like: a DNS label, so that it can stand in a URI
// and in a host name without any escaping.
var part = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

func (s Subject) check() error {
	if !part.MatchString(s.ClusterID) {
		return fmt.Errorf("cluster id %q: want 1-63 of a-z, 0-9 and '-'", s.ClusterID)
	}
	if !part.MatchString(s.NodeID) {
		return fmt.Errorf("node id %q: want 1-63 of a-z, 0-9 and '-'", s.NodeID)
	}
	switch s.Role {
	case Worker, Voter, Witness:
		return nil
	}
	return fmt.Errorf("role %q: want worker, voter or witness", s.Role)
}

func (s Subject) uri() *url.URL {
	return &url.URL{Scheme: "spiffe", Host: s.ClusterID, Path: "/" + string(s.Role) + "/" + s.NodeID}
}

// ServerName is the name that every node of a cluster answers to: in the SNI, and in its certificate.
func ServerName(clusterID string) string { return "node." + clusterID + ".lorad" }

// NewClusterID returns 128 random bits in hex.
func NewClusterID() string { return randomHex(16) }

// NewNodeID returns 64 random bits in hex: 16 digits.
func NewNodeID() string { return randomHex(8) }

func randomHex(n int) string {
	b := make([]byte, n)
	rand.Read(b) // never fails: crypto/rand ends the process instead
	return hex.EncodeToString(b)
}

// errName: the certificate is not one of a lorad node.
var errName = errors.New("certificate has no lorad node name (spiffe://cluster/role/node)")

// PeerID returns who is at the other end of a connection. It reads the certificate that the handshake
// verified; on a connection whose configuration did not come from an Identity it means nothing.
func PeerID(cs tls.ConnectionState) (Peer, error) {
	if len(cs.PeerCertificates) == 0 {
		return Peer{}, errors.New("peer sent no certificate")
	}
	return subjectOf(cs.PeerCertificates[0])
}

func subjectOf(c *x509.Certificate) (Subject, error) {
	if len(c.URIs) != 1 {
		return Subject{}, errName
	}
	u := c.URIs[0]
	role, node, ok := strings.Cut(strings.TrimPrefix(u.Path, "/"), "/")
	s := Subject{ClusterID: u.Host, NodeID: node, Role: Role(role)}
	if !ok || s.check() != nil || s.uri().String() != u.String() {
		return Subject{}, errName
	}
	return s, nil
}

// IsNode says whether c names a node of some cluster, ours or not. It verifies nothing.
func IsNode(c *x509.Certificate) bool {
	_, err := subjectOf(c)
	return err == nil
}

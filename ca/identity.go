package ca

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"time"
)

const identityFile = "identity.pem"

var (
	// ErrOtherCluster: the peer's certificate is a node's, but of another cluster.
	ErrOtherCluster = errors.New("peer belongs to another cluster")
	// ErrRevoked: the peer was removed from the cluster.
	ErrRevoked = errors.New("peer was removed from the cluster")
	// ErrLapsed: the peer's certificate ended too long ago to be renewed.
	ErrLapsed = errors.New("peer's certificate ended too long ago")
)

// Identity is one node's key, its certificate and its cluster's authority. Safe for concurrent use.
type Identity struct {
	// Revoked says whether a node was removed from the cluster; nil means none was. It is asked at every
	// handshake, from many goroutines, and must not block. Set it before the first connection.
	Revoked func(nodeID string) bool

	key     *ecdsa.PrivateKey
	ca      *x509.Certificate
	self    Subject                         // but for the role, which a newer certificate may change
	current atomic.Pointer[tls.Certificate] // replaced by Renew while connections are being made
}

// NewKeyAndCSR makes a node's key, which never leaves the node, and the request to have it certified.
func NewKeyAndCSR() (*ecdsa.PrivateKey, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("new node key: %w", err)
	}
	csr, err := newCSR(key)
	return key, csr, err
}

func newCSR(key *ecdsa.PrivateKey) ([]byte, error) {
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, fmt.Errorf("new certificate request: %w", err)
	}
	return csr, nil
}

// CSR returns a request to have this node's key certified again.
func (id *Identity) CSR() ([]byte, error) { return newCSR(id.key) }

// With returns the identity that a new certificate for the same key and node makes, as NewIdentity does: for a node
// that has enrolled again.
func (id *Identity) With(chainDER [][]byte, caDER []byte) (*Identity, error) {
	fresh, err := NewIdentity(id.key, chainDER, caDER)
	if err == nil && fresh.self.NodeID != id.self.NodeID {
		return nil, fmt.Errorf("node identity: certificate of node %s, this is %s", fresh.self.NodeID, id.self.NodeID)
	}
	return fresh, err
}

// NewIdentity puts together what a joiner has (key) and what it was given: the certificate, first in chainDER,
// and the authority's. An expired certificate is accepted here, so that a node that was switched off for long
// can say who it is and enrol again; see Expired.
func NewIdentity(key *ecdsa.PrivateKey, chainDER [][]byte, caDER []byte) (*Identity, error) {
	if len(chainDER) == 0 {
		return nil, errors.New("node identity: no certificate")
	}
	leaf, err := x509.ParseCertificate(chainDER[0])
	if err != nil {
		return nil, fmt.Errorf("node identity: certificate: %w", err)
	}
	authority, err := x509.ParseCertificate(caDER)
	if err != nil {
		return nil, fmt.Errorf("node identity: authority: %w", err)
	}
	return newIdentity(bundle{key: key, certs: []*x509.Certificate{leaf, authority}})
}

func newIdentity(b bundle) (*Identity, error) {
	if len(b.certs) != 2 {
		return nil, fmt.Errorf("node identity: %d certificates, want the node's and the authority's", len(b.certs))
	}
	leaf, authority := b.certs[0], b.certs[1]
	self, err := subjectOf(leaf)
	if err != nil {
		return nil, fmt.Errorf("node identity: %w", err)
	}
	id := &Identity{key: b.key, ca: authority, self: self}
	if err := id.install(leaf); err != nil {
		return nil, err
	}
	return id, nil
}

// install makes leaf the certificate shown from now on, if it is one for our key, by our authority.
func (id *Identity) install(leaf *x509.Certificate) error {
	if !owns(id.key, leaf) {
		return errors.New("node identity: certificate is of another key")
	}
	_, err := leaf.Verify(x509.VerifyOptions{
		Roots:       id.pool(),
		CurrentTime: leaf.NotBefore,
		DNSName:     ServerName(id.self.ClusterID),
		KeyUsages:   []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return fmt.Errorf("node identity: %w", err)
	}
	// The authority's certificate is sent along: a joiner finds the key that its token pins there.
	id.current.Store(&tls.Certificate{
		Certificate: [][]byte{leaf.Raw, id.ca.Raw}, PrivateKey: id.key, Leaf: leaf,
	})
	return nil
}

// Renew replaces the certificate by a newer one for the same key and node. Connections made from now on show it.
func (id *Identity) Renew(certDER []byte) error {
	leaf, err := x509.ParseCertificate(certDER)
	if err != nil {
		return fmt.Errorf("renew certificate: %w", err)
	}
	s, err := subjectOf(leaf)
	if err != nil {
		return fmt.Errorf("renew certificate: %w", err)
	}
	if s.ClusterID != id.self.ClusterID || s.NodeID != id.self.NodeID {
		return fmt.Errorf("renew certificate: it names %s, this node is %s", s.uri(), id.self.uri())
	}
	return id.install(leaf)
}

// Save writes key and certificates to one file in dir, mode 0600, atomically.
func (id *Identity) Save(dir string) error {
	b := bundle{key: id.key, certs: []*x509.Certificate{id.leaf(), id.ca}}
	if err := b.save(filepath.Join(dir, identityFile)); err != nil {
		return fmt.Errorf("save node identity: %w", err)
	}
	return nil
}

// LoadIdentity reads what Save wrote. The error is fs.ErrNotExist if this directory holds no identity.
func LoadIdentity(dir string) (*Identity, error) {
	b, err := loadBundle(filepath.Join(dir, identityFile))
	if err != nil {
		return nil, fmt.Errorf("load node identity: %w", err)
	}
	return newIdentity(b)
}

// Key returns the node's private key: to prove possession of it, and for nothing else.
func (id *Identity) Key() *ecdsa.PrivateKey { return id.key }

// Self returns who this node is, as its current certificate says.
func (id *Identity) Self() Subject {
	s, err := subjectOf(id.leaf())
	if err != nil {
		return id.self // never: install looked
	}
	return s
}

// CertDER returns the certificate that is shown now.
func (id *Identity) CertDER() []byte { return id.leaf().Raw }

// Pin returns the hash of the authority's key, for tokens.
func (id *Identity) Pin() Pin { return PinOf(id.ca) }

// NotAfter returns when the certificate ends.
func (id *Identity) NotAfter() time.Time { return id.leaf().NotAfter }

// Expired says whether the certificate has ended at the time now.
func (id *Identity) Expired(now time.Time) bool { return now.After(id.NotAfter()) }

// RenewAt returns when the certificate should be renewed: at two thirds of its life, so that a cluster that cannot sign
// for a month locks nobody out.
func (id *Identity) RenewAt() time.Time {
	c := id.leaf()
	return c.NotAfter.Add(-c.NotAfter.Sub(c.NotBefore.Add(Backdate)) / 3)
}

func (id *Identity) leaf() *x509.Certificate { return id.current.Load().Leaf }

func (id *Identity) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(id.ca)
	return p
}

// ServerTLS returns the configuration for nodes that connect to us: TLS 1.3, their certificate required. The
// caller sets NextProtos.
func (id *Identity) ServerTLS() *tls.Config {
	c := id.StrangerTLS()
	c.ClientAuth = tls.RequireAndVerifyClientCert
	c.ClientCAs = id.pool()
	c.VerifyConnection = id.verify
	return c
}

// StrangerTLS returns the configuration for those who have no certificate yet: only we are authenticated.
func (id *Identity) StrangerTLS() *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		SessionTicketsDisabled: true, // every connection is verified afresh, so revocation holds at once

		DynamicRecordSizingDisabled: true, // small first records help browsers, not us
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return id.current.Load(), nil
		},
	}
}

// ClientTLS returns the configuration for connecting to nodes: TLS 1.3, our certificate shown, theirs verified
// by our authority, whatever address they are reached at. The caller sets NextProtos.
func (id *Identity) ClientTLS() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		RootCAs:    id.pool(),
		ServerName: ServerName(id.self.ClusterID),
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return id.current.Load(), nil
		},
		VerifyConnection: id.verify,

		DynamicRecordSizingDisabled: true,
	}
}

// RenewalTLS returns the configuration for nodes that want a new certificate: theirs is required and must be one that
// our authority signed, but may have ended, for RenewalGrace at most. Who connects so is to be given nothing else.
func (id *Identity) RenewalTLS() *tls.Config {
	c := id.StrangerTLS()
	c.ClientAuth = tls.RequireAnyClientCert
	c.VerifyConnection = id.verifyLapsed
	return c
}

func (id *Identity) verifyLapsed(cs tls.ConnectionState) error {
	if len(cs.PeerCertificates) == 0 {
		return errors.New("peer sent no certificate")
	}
	if _, err := id.Lapsed(cs.PeerCertificates[0].Raw, RenewalGrace); err != nil {
		return err
	}
	return id.verify(cs)
}

// Lapsed says whose certificate this is or was: one that our authority signed and that ended at most grace ago, or has
// not ended. It does not ask whether the node was removed.
func (id *Identity) Lapsed(certDER []byte, grace time.Duration) (Peer, error) {
	leaf, err := x509.ParseCertificate(certDER)
	if err != nil {
		return Peer{}, fmt.Errorf("old certificate: %w", err)
	}
	at := time.Now()
	if at.After(leaf.NotAfter) {
		if at.Sub(leaf.NotAfter) > grace {
			return Peer{}, fmt.Errorf("%w: on %s", ErrLapsed, leaf.NotAfter.UTC().Format(time.DateOnly))
		}
		at = leaf.NotAfter
	}
	_, err = leaf.Verify(x509.VerifyOptions{Roots: id.pool(), CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	if err != nil {
		return Peer{}, fmt.Errorf("old certificate: %w", err)
	}
	return subjectOf(leaf)
}

// verify runs after the chain was verified, on both sides of every connection between nodes.
func (id *Identity) verify(cs tls.ConnectionState) error {
	peer, err := PeerID(cs)
	if err != nil {
		return err
	}
	if peer.ClusterID != id.self.ClusterID {
		return fmt.Errorf("%w: %s", ErrOtherCluster, peer.ClusterID)
	}
	if id.Revoked != nil && id.Revoked(peer.NodeID) {
		return fmt.Errorf("%w: %s", ErrRevoked, peer.NodeID)
	}
	return nil
}

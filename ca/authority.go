package ca

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"time"
)

const (
	// AuthorityLifetime is how long a cluster's authority is valid.
	AuthorityLifetime = 10 * 365 * 24 * time.Hour
	// NodeLifetime is how long a node's certificate is valid.
	NodeLifetime = 90 * 24 * time.Hour
	// RenewalGrace is how long after its end a node's certificate can still be renewed with nothing but itself: a box
	// that was on a shelf for a year comes back by itself.
	RenewalGrace = 365 * 24 * time.Hour
	// Backdate is how far a joiner's clock may be behind the leader's.
	Backdate = time.Hour
)

// Authority signs the certificates of one cluster's nodes. Safe for concurrent use.
type Authority struct {
	// Lifetime of the certificates it signs; 0 means NodeLifetime. Set it before use.
	Lifetime time.Duration

	clusterID string
	key       *ecdsa.PrivateKey
	cert      *x509.Certificate
}

// New makes the authority of a new cluster.
func New(clusterID string) (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("new authority: %w", err)
	}
	return certify(clusterID, key)
}

// certify makes the authority's own certificate.
func certify(clusterID string, key *ecdsa.PrivateKey) (*Authority, error) {
	if !part.MatchString(clusterID) {
		return nil, fmt.Errorf("new authority: cluster id %q: want 1-63 of a-z, 0-9 and '-'", clusterID)
	}
	t := authorityTemplate(clusterID, time.Now())
	der, err := x509.CreateCertificate(rand.Reader, t, t, &key.PublicKey, key)
	if err != nil {
		return nil, fmt.Errorf("new authority: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("new authority: %w", err)
	}
	return &Authority{clusterID: clusterID, key: key, cert: cert}, nil
}

func authorityTemplate(clusterID string, now time.Time) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber:          serial(),
		Subject:               pkix.Name{Organization: []string{clusterID}, CommonName: "lorad cluster authority"},
		URIs:                  []*url.URL{{Scheme: "spiffe", Host: clusterID}},
		NotBefore:             now.Add(-Backdate),
		NotAfter:              now.Add(AuthorityLifetime),
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
}

func serial() *big.Int {
	b := make([]byte, 16)
	rand.Read(b)
	b[0] &= 0x7f // positive, and at most 20 bytes in DER
	return new(big.Int).SetBytes(b)
}

// Renamed is the same authority, its key, for a cluster of another id: nobody with a certificate of the old id is let
// in, and tokens still pin it.
func (a *Authority) Renamed(clusterID string) (*Authority, error) { return certify(clusterID, a.key) }

// ClusterID returns the id that the authority was made for.
func (a *Authority) ClusterID() string { return a.clusterID }

// CertDER returns the authority's self-signed certificate.
func (a *Authority) CertDER() []byte { return a.cert.Raw }

// Pin returns the hash that tokens carry.
func (a *Authority) Pin() Pin { return PinOf(a.cert) }

// Pin is the SHA-256 of an authority's public key (SubjectPublicKeyInfo, DER).
type Pin [sha256.Size]byte

// PinOf returns the hash of a certificate's public key.
func PinOf(c *x509.Certificate) Pin { return sha256.Sum256(c.RawSubjectPublicKeyInfo) }

func newAuthority(b bundle) (*Authority, error) {
	cert := b.certs[0]
	if !cert.IsCA || len(cert.URIs) != 1 || !part.MatchString(cert.URIs[0].Host) {
		return nil, errors.New("open sealed authority: the certificate is not a cluster authority's")
	}
	if !owns(b.key, cert) {
		return nil, errors.New("open sealed authority: key and certificate do not belong together")
	}
	return &Authority{clusterID: cert.URIs[0].Host, key: b.key, cert: cert}, nil
}

// SignCSR signs a certificate for the public key in csrDER. The request proves possession of the key; every
// name is s's and none the request's. It returns the certificate in DER.
func (a *Authority) SignCSR(csrDER []byte, s Subject) ([]byte, error) {
	if err := a.checkSubject(s); err != nil {
		return nil, fmt.Errorf("sign certificate: %w", err)
	}
	pub, err := requestKey(csrDER)
	if err != nil {
		return nil, fmt.Errorf("sign certificate of %s: %w", s.NodeID, err)
	}
	der, err := x509.CreateCertificate(rand.Reader, a.nodeTemplate(s, time.Now()), a.cert, pub, a.key)
	if err != nil {
		return nil, fmt.Errorf("sign certificate of %s: %w", s.NodeID, err)
	}
	return der, nil
}

func (a *Authority) checkSubject(s Subject) error {
	if s.ClusterID != a.clusterID {
		return fmt.Errorf("cluster id %q: this authority is of %q", s.ClusterID, a.clusterID)
	}
	return s.check()
}

func requestKey(csrDER []byte) (*ecdsa.PublicKey, error) {
	csr, err := x509.ParseCertificateRequest(csrDER)
	if err != nil {
		return nil, fmt.Errorf("certificate request: %w", err)
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, fmt.Errorf("certificate request: %w", err)
	}
	pub, ok := csr.PublicKey.(*ecdsa.PublicKey)
	if !ok || pub.Curve != elliptic.P256() {
		return nil, errors.New("certificate request: key is not ECDSA P-256")
	}
	return pub, nil
}

// SameKey reports whether a certificate request and a certificate are of the same key.
func SameKey(csrDER, certDER []byte) bool {
	pub, err := requestKey(csrDER)
	if err != nil {
		return false
	}
	cert, err := x509.ParseCertificate(certDER)
	return err == nil && pub.Equal(cert.PublicKey)
}

// RequestHash returns the SHA-256 of the public key in a certificate request and of the node id it is for, once
// both are found such that SignCSR will sign. It tells a joiner that asks again, because a reply was lost, from
// another one with the same token. The id is in it so that a joiner cannot come back as somebody else.
func RequestHash(csrDER []byte, nodeID string) ([]byte, error) {
	pub, err := requestKey(csrDER)
	if err != nil {
		return nil, err
	}
	if !part.MatchString(nodeID) {
		return nil, fmt.Errorf("node id %q: want 1-63 of a-z, 0-9 and '-'", nodeID)
	}
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return nil, fmt.Errorf("certificate request: %w", err)
	}
	h := sha256.Sum256(append(der, nodeID...)) // der gives its own length
	return h[:], nil
}

func (a *Authority) nodeTemplate(s Subject, now time.Time) *x509.Certificate {
	life := a.Lifetime
	if life == 0 {
		life = NodeLifetime
	}
	end := now.Add(life)
	if end.After(a.cert.NotAfter) {
		end = a.cert.NotAfter
	}
	return &x509.Certificate{
		SerialNumber:          serial(),
		Subject:               pkix.Name{Organization: []string{s.ClusterID}, CommonName: s.NodeID},
		URIs:                  []*url.URL{s.uri()},
		DNSNames:              []string{ServerName(s.ClusterID)},
		NotBefore:             now.Add(-Backdate),
		NotAfter:              end,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
}

// Issue makes a key and a certificate in one go: for the first node of a cluster, which has nobody to ask.
func (a *Authority) Issue(s Subject) (*Identity, error) {
	key, csr, err := NewKeyAndCSR()
	if err != nil {
		return nil, err
	}
	der, err := a.SignCSR(csr, s)
	if err != nil {
		return nil, err
	}
	return NewIdentity(key, [][]byte{der}, a.CertDER())
}

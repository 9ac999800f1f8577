package ca

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func newTestAuthority(t testing.TB) *Authority {
	t.Helper()
	a, err := New(NewClusterID())
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func issue(t testing.TB, a *Authority, node string, r Role) *Identity {
	t.Helper()
	id, err := a.Issue(Subject{a.ClusterID(), node, r})
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// TestNamesComeFromTheLeader: a request that asks for everything gets the names it was given, and no powers.
func TestNamesComeFromTheLeader(t *testing.T) {
	a := newTestAuthority(t)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	evil := Subject{a.ClusterID(), "leader", Voter}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject:  pkix.Name{CommonName: "leader"},
		DNSNames: []string{"evil.example"}, URIs: []*url.URL{evil.uri()},
		ExtraExtensions: []pkix.Extension{{Id: []int{2, 5, 29, 19}, Critical: true, Value: []byte{0x30, 3, 1, 1, 0xff}}}, // CA: true
	}, key)
	if err != nil {
		t.Fatal(err)
	}
	want := Subject{a.ClusterID(), "n1", Worker}
	der, err := a.SignCSR(csr, want)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := subjectOf(c); err != nil || got != want {
		t.Errorf("names %+v, %v, want %+v", got, err, want)
	}
	if c.URIs[0].String() != "spiffe://"+a.ClusterID()+"/worker/n1" {
		t.Errorf("URI %s", c.URIs[0])
	}
	if c.IsCA || c.KeyUsage&x509.KeyUsageCertSign != 0 || c.Subject.CommonName != "n1" ||
		!slices.Equal(c.DNSNames, []string{"node." + a.ClusterID() + ".lorad"}) {
		t.Errorf("certificate has CA=%v, CN=%q, DNS=%v", c.IsCA, c.Subject.CommonName, c.DNSNames)
	}
	if err := c.CheckSignatureFrom(a.cert); err != nil {
		t.Error(err)
	}
	now := time.Now()
	if d := now.Sub(c.NotBefore); d < Backdate || d > Backdate+time.Minute {
		t.Errorf("backdated by %v", d)
	}
	if d := c.NotAfter.Sub(now); d > NodeLifetime || d < NodeLifetime-time.Minute {
		t.Errorf("valid for %v", d)
	}
}

func TestSignRefuses(t *testing.T) {
	a := newTestAuthority(t)
	_, good, err := NewKeyAndCSR()
	if err != nil {
		t.Fatal(err)
	}
	bad := slices.Clone(good)
	bad[len(bad)-1] ^= 1 // the signature
	weak, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	rsaCSR, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, weak)
	if err != nil {
		t.Fatal(err)
	}
	ok := Subject{a.ClusterID(), "n1", Worker}
	if _, err := a.SignCSR(good, ok); err != nil {
		t.Fatal(err)
	}
	for name, x := range map[string]struct {
		csr []byte
		s   Subject
	}{
		"changed request": {bad, ok},
		"RSA key":         {rsaCSR, ok},
		"no request":      {nil, ok},
		"other cluster":   {good, Subject{"other", "n1", Worker}},
		"no node id":      {good, Subject{a.ClusterID(), "", Worker}},
		"slash in id":     {good, Subject{a.ClusterID(), "voter/n1", Worker}},
		"owner":           {good, Subject{a.ClusterID(), "n1", Owner}},
		"no role":         {good, Subject{a.ClusterID(), "n1", ""}},
	} {
		if _, err := a.SignCSR(x.csr, x.s); err == nil {
			t.Errorf("%s: signed", name)
		}
	}
}

func TestSaveAndLoad(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	if _, err := LoadIdentity(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("LoadIdentity of nothing: %v", err)
	}
	a := newTestAuthority(t)
	id := issue(t, a, "n1", Voter)
	if err := id.Save(dir); err != nil {
		t.Fatal(err)
	}
	id2, err := LoadIdentity(dir)
	if err != nil || id2.Self() != id.Self() || id2.Pin() != a.Pin() || !id2.leaf().Equal(id.leaf()) {
		t.Errorf("identity differs after Load: %v", err)
	}
	path := filepath.Join(dir, identityFile)
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	os.Chmod(path, 0o640)
	if _, err := LoadIdentity(dir); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("readable identity: %v", err)
	}
}

func TestIdentityRefusesWhatDoesNotBelong(t *testing.T) {
	a, b := newTestAuthority(t), newTestAuthority(t)
	key, csr, err := NewKeyAndCSR()
	if err != nil {
		t.Fatal(err)
	}
	stranger, _, err := NewKeyAndCSR()
	if err != nil {
		t.Fatal(err)
	}
	der, err := a.SignCSR(csr, Subject{a.ClusterID(), "n1", Worker})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := NewIdentity(key, [][]byte{der}, a.CertDER()); err != nil {
		t.Fatal(err)
	}
	if _, err := NewIdentity(stranger, [][]byte{der}, a.CertDER()); err == nil {
		t.Error("another key accepted")
	}
	if _, err := NewIdentity(key, [][]byte{der}, b.CertDER()); err == nil {
		t.Error("another authority accepted")
	}
	if _, err := NewIdentity(key, [][]byte{a.CertDER()}, a.CertDER()); err == nil {
		t.Error("the authority's certificate accepted as a node's")
	}
	if _, err := NewIdentity(key, nil, a.CertDER()); err == nil {
		t.Error("no certificate accepted")
	}
}

func TestRenew(t *testing.T) {
	a := newTestAuthority(t)
	key, csr, err := NewKeyAndCSR()
	if err != nil {
		t.Fatal(err)
	}
	self := Subject{a.ClusterID(), "n1", Worker}
	a.Lifetime = -Backdate / 2
	old, err := a.SignCSR(csr, self)
	if err != nil {
		t.Fatal(err)
	}
	id, err := NewIdentity(key, [][]byte{old}, a.CertDER())
	if err != nil || !id.Expired(time.Now()) {
		t.Fatalf("expired identity: %v", err)
	}
	a.Lifetime = 0
	fresh, err := a.SignCSR(csr, self)
	if err != nil {
		t.Fatal(err)
	}
	other, err := a.SignCSR(csr, Subject{a.ClusterID(), "n2", Worker})
	if err != nil {
		t.Fatal(err)
	}
	if err := id.Renew(other); err == nil {
		t.Error("renewed to another node's name")
	}
	if err := id.Renew(fresh); err != nil || id.Expired(time.Now()) {
		t.Errorf("renew: %v, expired %v", err, id.Expired(time.Now()))
	}
	shown, err := id.ClientTLS().GetClientCertificate(nil)
	if err != nil || !bytes.Equal(shown.Certificate[0], fresh) {
		t.Error("the new certificate is not the one shown")
	}
}

func TestVerify(t *testing.T) {
	a := newTestAuthority(t)
	id := issue(t, a, "n1", Worker)
	id.Revoked = func(node string) bool { return node == "gone" }
	state := func(x *Identity) tls.ConnectionState {
		return tls.ConnectionState{PeerCertificates: []*x509.Certificate{x.leaf()}}
	}
	if err := id.verify(state(issue(t, a, "n2", Worker))); err != nil {
		t.Error(err)
	}
	if err := id.verify(state(issue(t, a, "gone", Worker))); !errors.Is(err, ErrRevoked) {
		t.Errorf("removed node: %v", err)
	}
	if err := id.verify(state(issue(t, newTestAuthority(t), "n2", Worker))); !errors.Is(err, ErrOtherCluster) {
		t.Errorf("other cluster: %v", err)
	}
	if err := id.verify(tls.ConnectionState{PeerCertificates: []*x509.Certificate{a.cert}}); !errors.Is(err, errName) {
		t.Errorf("the authority as a peer: %v", err)
	}
	if err := id.verify(tls.ConnectionState{}); err == nil {
		t.Error("no certificate accepted")
	}
}

func TestPinOutlivesTheCertificate(t *testing.T) {
	a := newTestAuthority(t)
	tmpl := authorityTemplate(a.ClusterID(), time.Now().Add(time.Hour))
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &a.key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	again, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	if again.Equal(a.cert) || PinOf(again) != a.Pin() {
		t.Error("pin of the authority issued again differs")
	}
}

func TestRequestHash(t *testing.T) {
	_, one, err1 := NewKeyAndCSR()
	_, two, err2 := NewKeyAndCSR()
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	hash := func(csr []byte, node string) string {
		h, err := RequestHash(csr, node)
		if err != nil {
			t.Fatal(err)
		}
		return string(h)
	}
	if first := hash(one, "n1"); first != hash(one, "n1") {
		t.Error("the same request has two hashes")
	}
	if hash(one, "n1") == hash(two, "n1") || hash(one, "n1") == hash(one, "n2") {
		t.Error("another key or another node has the same hash")
	}
	if _, err := RequestHash([]byte("x"), "n1"); err == nil {
		t.Error("nonsense hashed")
	}
	if _, err := RequestHash(one, "voter/n1"); err == nil {
		t.Error("a node id that cannot be signed hashed")
	}
}

// FuzzLoad: a damaged key file is an error and never a panic.
func FuzzLoad(f *testing.F) {
	a := newTestAuthority(f)
	b, err := bundle{a.key, []*x509.Certificate{a.cert}}.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, data []byte) { tryBundle(t, data) })
}

func tryBundle(t testing.TB, data []byte) {
	if b, err := decodeBundle(data); err == nil {
		newAuthority(b)
		newIdentity(b)
	}
}

package ca

import (
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"lorad/internal/durable"
)

// maxFile bounds what is read from a key file; real ones are about 2 KiB.
const maxFile = 64 << 10

const (
	pemKey  = "PRIVATE KEY"
	pemCert = "CERTIFICATE"
)

// bundle is a private key with its certificates, kept in one file so that a crash cannot leave a key beside a
// certificate of another key.
type bundle struct {
	key   *ecdsa.PrivateKey
	certs []*x509.Certificate
}

func (b bundle) encode() ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(b.key)
	if err != nil {
		return nil, err
	}
	out := pem.EncodeToMemory(&pem.Block{Type: pemKey, Bytes: der})
	for _, c := range b.certs {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: pemCert, Bytes: c.Raw})...)
	}
	return out, nil
}

func decodeBundle(data []byte) (bundle, error) {
	var b bundle
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if err := b.add(block); err != nil {
			return bundle{}, err
		}
	}
	if b.key == nil || len(b.certs) == 0 {
		return bundle{}, errors.New("no private key and certificate in it")
	}
	return b, nil
}

func (b *bundle) add(block *pem.Block) (err error) {
	switch block.Type {
	case pemKey:
		b.key, err = parseKey(block.Bytes)
	case pemCert:
		var c *x509.Certificate
		if c, err = x509.ParseCertificate(block.Bytes); err == nil {
			b.certs = append(b.certs, c)
		}
	default:
		err = fmt.Errorf("unexpected PEM block %q", block.Type)
	}
	return err
}

func parseKey(der []byte) (*ecdsa.PrivateKey, error) {
	k, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, err
	}
	key, ok := k.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("a %T, want ECDSA", k)
	}
	return key, nil
}

// owns says whether key is the private half of cert's public key.
func owns(key *ecdsa.PrivateKey, cert *x509.Certificate) bool {
	pub, ok := cert.PublicKey.(*ecdsa.PublicKey)
	return ok && pub.Equal(&key.PublicKey)
}

func (b bundle) save(path string) error {
	data, err := b.encode()
	if err != nil {
		return err
	}
	return writeSecret(path, data)
}

func loadBundle(path string) (bundle, error) {
	data, err := readSecret(path)
	if err != nil {
		return bundle{}, err
	}
	return decodeBundle(data)
}

// writeSecret replaces path by data, mode 0600: after a crash there is the old content or the new, never a part.
func writeSecret(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return durable.WriteFile(path, data, 0o600)
}

// readSecret refuses a file that others on the machine can read: whoever read it is the node, or the cluster.
func readSecret(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if st.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s: mode %o lets others read it; if nobody has, run chmod 600 on it", path, st.Mode().Perm())
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = fmt.Errorf("%s: larger than %d bytes", path, maxFile)
	}
	return data, err
}

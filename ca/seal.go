package ca

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
)

// A sealed authority:
//
//	offset  size  what
//	0       4     "LRCA"
//	4       1     version, 1
//	5       16    salt of HKDF-SHA256(secret, salt, "lorad ca seal 1") -> AES-256 key
//	21      12    AES-GCM nonce
//	33      n+16  the authority's PEM bundle, encrypted; bytes 0..21 are the additional data
const (
	sealMagic  = "LRCA\x01"
	sealInfo   = "lorad ca seal 1"
	sealSalt   = 16
	sealHeader = len(sealMagic) + sealSalt

	secretFile = "cluster.secret"
)

// ClusterSecret is the 32 random bytes under which the authority's key is sealed. Voters have it, workers and
// the replicated store do not. It prints as a placeholder.
type ClusterSecret struct{ secret hidden }

// NewClusterSecret draws a new secret.
func NewClusterSecret() ClusterSecret { return ClusterSecret{draw(32)} }

// ParseClusterSecret takes the 32 bytes that Reveal gave.
func ParseClusterSecret(b []byte) (ClusterSecret, error) {
	if len(b) != 32 {
		return ClusterSecret{}, fmt.Errorf("cluster secret: %d bytes, want 32", len(b))
	}
	return ClusterSecret{hide(b)}, nil
}

// Reveal returns the 32 bytes: to hand them to a voter over mutual TLS, and for nothing else.
func (s ClusterSecret) Reveal() []byte { return s.secret() }

const hiddenSecret = "cluster-secret(hidden)"

func (s ClusterSecret) String() string               { return hiddenSecret }
func (s ClusterSecret) LogValue() slog.Value         { return slog.StringValue(hiddenSecret) }
func (s ClusterSecret) Format(f fmt.State, _ rune)   { fmt.Fprint(f, hiddenSecret) }
func (s ClusterSecret) MarshalText() ([]byte, error) { return []byte(hiddenSecret), nil }

// Save writes the secret to dir, mode 0600, atomically.
func (s ClusterSecret) Save(dir string) error {
	if err := writeSecret(filepath.Join(dir, secretFile), s.secret()); err != nil {
		return fmt.Errorf("save cluster secret: %w", err)
	}
	return nil
}

// LoadSecret reads what Save wrote.
func LoadSecret(dir string) (ClusterSecret, error) {
	b, err := readSecret(filepath.Join(dir, secretFile))
	if err != nil {
		return ClusterSecret{}, fmt.Errorf("load cluster secret: %w", err)
	}
	return ParseClusterSecret(b)
}

// Seal encrypts an authority, key and certificate. Sealing twice gives different bytes.
func Seal(a *Authority, secret ClusterSecret) ([]byte, error) {
	plain, err := bundle{key: a.key, certs: []*x509.Certificate{a.cert}}.encode()
	if err != nil {
		return nil, fmt.Errorf("seal authority: %w", err)
	}
	out := make([]byte, sealHeader, sealHeader+64+len(plain))
	copy(out, sealMagic)
	rand.Read(out[len(sealMagic):])
	aead, err := sealCipher(secret, out)
	if err != nil {
		return nil, fmt.Errorf("seal authority: %w", err)
	}
	nonce := make([]byte, aead.NonceSize())
	rand.Read(nonce)
	header := out[:sealHeader:sealHeader]
	return aead.Seal(append(out, nonce...), nonce, plain, header), nil
}

// Open decrypts what Seal gave.
func Open(sealed []byte, secret ClusterSecret) (*Authority, error) {
	if len(sealed) < sealHeader || string(sealed[:len(sealMagic)]) != sealMagic {
		return nil, errors.New("open sealed authority: not a sealed authority of version 1")
	}
	aead, err := sealCipher(secret, sealed)
	if err != nil {
		return nil, fmt.Errorf("open sealed authority: %w", err)
	}
	header, rest := sealed[:sealHeader], sealed[sealHeader:]
	if len(rest) < aead.NonceSize() {
		return nil, errors.New("open sealed authority: truncated")
	}
	plain, err := aead.Open(nil, rest[:aead.NonceSize()], rest[aead.NonceSize():], header)
	if err != nil {
		return nil, errors.New("open sealed authority: wrong cluster secret, or the bytes were changed")
	}
	b, err := decodeBundle(plain)
	if err != nil {
		return nil, fmt.Errorf("open sealed authority: %w", err)
	}
	return newAuthority(b)
}

func sealCipher(secret ClusterSecret, sealed []byte) (cipher.AEAD, error) {
	salt := sealed[len(sealMagic):sealHeader]
	key, err := hkdf.Key(sha256.New, secret.secret(), salt, sealInfo, 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

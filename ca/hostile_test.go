package ca

import (
	"crypto/x509"
	"testing"

	"lorad/internal/hostile"
)

func TestHostileTokens(t *testing.T) {
	tok := NewJoinToken(newTestAuthority(t).Pin())
	parse := func(t testing.TB, b []byte) { tryJoinToken(t, string(b)) }
	hostile.Test(t, hostile.Parser{Seeds: [][]byte{[]byte(tok.Reveal())}, Parse: parse, Small: 20_000, Memory: func(n int) int { return 16<<10 + 16*n }})
}

func TestHostileBundles(t *testing.T) {
	a := newTestAuthority(t)
	b, err := bundle{a.key, []*x509.Certificate{a.cert}}.encode()
	if err != nil {
		t.Fatal(err)
	}
	hostile.Test(t, hostile.Parser{Seeds: [][]byte{b}, Parse: tryBundle, Small: 2_000, Memory: func(n int) int { return 1<<20 + 100*n }})
}

func FuzzOpenSealed(f *testing.F) {
	sealed, secret := sealedAuthority(f)
	f.Add(sealed)
	f.Fuzz(func(_ *testing.T, data []byte) { Open(data, secret) })
}

func sealedAuthority(t testing.TB) ([]byte, ClusterSecret) {
	t.Helper()
	secret := NewClusterSecret()
	sealed, err := Seal(newTestAuthority(t), secret)
	if err != nil {
		t.Fatal(err)
	}
	return sealed, secret
}

func TestHostileSealed(t *testing.T) {
	sealed, secret := sealedAuthority(t)
	parse := func(t testing.TB, b []byte) {
		if _, err := Open(b, secret); err == nil && string(b) != string(sealed) {
			t.Error("a changed one was opened")
		}
	}
	hostile.Test(t, hostile.Parser{Seeds: [][]byte{sealed}, Parse: parse, Small: 2_000, Memory: func(n int) int { return 64<<10 + 16*n }})
}

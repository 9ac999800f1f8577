package transport

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"sync"
	"testing"
	"time"
)

// closedPort returns an address that nobody listens on.
func closedPort(t testing.TB) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

// plain starts a TCP server that does f with each connection and closes it, and ends all with the test.
func plain(t testing.TB, f func(net.Conn)) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serveWith(t, ln, f)
	return ln.Addr().String()
}

func serveWith(t testing.TB, ln net.Listener, f func(net.Conn)) {
	var wg sync.WaitGroup
	var open crowd
	open.max = 1000
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			open.add(c)
			wg.Go(func() { f(c); c.Close() })
		}
	})
	t.Cleanup(func() { ln.Close(); open.closeAll(); wg.Wait() })
}

// httpsServer starts a TLS server with a certificate of its own making, as any web server is to us.
func httpsServer(t testing.TB, protos []string) string {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, NextProtos: protos,
	})
	if err != nil {
		t.Fatal(err)
	}
	serveWith(t, ln, func(c net.Conn) { c.Read(make([]byte, 1)) })
	return ln.Addr().String()
}

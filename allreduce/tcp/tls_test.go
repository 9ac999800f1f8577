package tcp

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/big"
	"net"
	"testing"
	"time"

	"lorad/allreduce"
)

// certificate makes a throw-away one: these tests are about TLS's behaviour as a stream, not about its checks.
func certificate(t testing.TB) tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cert := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// tlsPair is a TLS 1.3 connection over loopback.
func tlsPair(t testing.TB) (client, server net.Conn) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{certificate(t)}}
	l, err := tls.Listen("tcp", "127.0.0.1:0", cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	shaken := make(chan error, 1)
	go func() {
		var err error
		if server, err = l.Accept(); err == nil {
			err = server.(*tls.Conn).Handshake()
		}
		shaken <- err
	}()
	client, err = tls.Dial("tcp", l.Addr().String(), &tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: true})
	if err := errors.Join(err, <-shaken); err != nil {
		t.Fatal(err)
	}
	return client, server
}

// tlsGroups is a group of two over TLS.
func tlsGroups(t testing.TB) []*allreduce.Group {
	c, s := tlsPair(t)
	links := [2]allreduce.Links{{nil, NewLink(c)}, {NewLink(s), nil}}
	groups := make([]*allreduce.Group, 2)
	for r := range groups {
		g, err := allreduce.NewGroup(tlsConfig(r), links[r])
		if err != nil {
			t.Fatal(err)
		}
		groups[r] = g
	}
	t.Cleanup(func() { closeAll(groups) })
	return groups
}

func tlsConfig(rank int) allreduce.Config {
	return allreduce.Config{Run: 7, Generation: 1, Rank: rank, Members: []string{"n0", "n1"}}
}

// TestTLS reduces over TLS and leaves in good order.
func TestTLS(t *testing.T) {
	groups, errs := tlsGroups(t), make([]error, 2)
	want := make([]float32, 200_003)
	accs := []*allreduce.Accum{wave(0, 2, len(want), want), wave(1, 2, len(want), want)}
	each(2, func(r int) {
		var sum allreduce.Sum
		_, errs[r] = groups[r].Reduce(t.Context(), op(1), accs[r], &sum)
		if errs[r] == nil && sum.Grad[1234] != want[1234] {
			errs[r] = errors.New("another sum")
		}
		_ = groups[r].Close()
	})
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// TestStalledPeer: against a neighbour that holds its connection and neither reads nor writes, a cancelled
// operation and Close still return at once, TLS or not.
func TestStalledPeer(t *testing.T) {
	out, deaf := tlsPair(t)
	defer deaf.Close()
	g, err := allreduce.NewGroup(tlsConfig(0), allreduce.Links{nil, NewLink(out)})
	if err != nil {
		t.Fatal(err)
	}
	const params = 8_000_000 // more than the sockets buffer
	a := wave(0, 2, params, make([]float32, params))
	ctx, cancel := context.WithCancel(t.Context())
	cancelled := make(chan time.Time, 1)
	time.AfterFunc(500*time.Millisecond, func() { cancelled <- time.Now(); cancel() })
	_, err = g.Reduce(ctx, op(1), a, new(allreduce.Sum))
	returned := time.Now()
	_ = g.Close()
	began := <-cancelled // TLS's own Close waits 5 s for such a neighbour
	if !errors.Is(err, context.Canceled) || returned.Sub(began) > 4*time.Second || time.Since(began) > 4*time.Second {
		t.Fatalf("returned after %v, closed after %v: %v", returned.Sub(began), time.Since(began), err)
	}
}

// BenchmarkReduceTLS is BenchmarkReduce with two members over TLS.
func BenchmarkReduceTLS(b *testing.B) {
	benchReduce(b, 12_600_000, tlsGroups(b))
}

package transport

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"net"
	"sync"
	"time"
)

// reachProto is what a joiner is asked while the cluster looks whether it can be reached.
const reachProto = "lorad-reach/1"

// reachTimeout bounds the look: TCP connection and handshake together.
const reachTimeout = 3 * time.Second

// Bound is a port that is taken but not served yet: a node must know where it will be reached before it joins, and the
// cluster looks whether that is so before it lets it in.
type Bound struct {
	ln        *net.TCPListener
	advertise string
}

// Bind takes a port. bind and advertise are those of Config.
func Bind(bind, advertise string) (*Bound, error) {
	ln, err := net.Listen("tcp", bind)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w; choose another address or port", bind, err)
	}
	adv, err := advertised(advertise, ln.Addr().(*net.TCPAddr))
	if err != nil {
		ln.Close()
		return nil, err
	}
	return &Bound{ln.(*net.TCPListener), adv}, nil
}

// Advertise is the host:port that other nodes are to reach this one at.
func (b *Bound) Advertise() string { return b.advertise }

// Close gives the port back.
func (b *Bound) Close() error { return b.ln.Close() }

// Answer shows whoever connects that it is this key that is reached here, and nothing else, until stop is called. The
// port stays taken.
func (b *Bound) Answer(key *ecdsa.PrivateKey) (stop func(), err error) {
	cert, err := selfSigned(key)
	if err != nil {
		return nil, fmt.Errorf("answer at %s: %w", b.advertise, err)
	}
	cfg := &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert}, NextProtos: []string{reachProto}}
	b.ln.SetDeadline(time.Time{})
	var wg sync.WaitGroup
	callers := &crowd{max: maxHandshakes}
	wg.Go(func() {
		for {
			raw, err := b.ln.Accept()
			if err != nil {
				return
			}
			callers.add(raw)
			wg.Go(func() {
				raw.SetDeadline(time.Now().Add(reachTimeout))
				t := tls.Server(raw, cfg)
				t.Handshake()
				t.Close()
				callers.remove(raw)
			})
		}
	})
	return func() {
		b.ln.SetDeadline(time.Unix(1, 0))
		callers.closeAll()
		wg.Wait()
		b.ln.SetDeadline(time.Time{})
	}, nil
}

// selfSigned is a certificate that proves possession of the key and claims nothing.
func selfSigned(key *ecdsa.PrivateKey) (tls.Certificate, error) {
	t := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Unix(0, 0), NotAfter: time.Now().AddDate(1, 0, 0)}
	der, err := x509.CreateCertificate(rand.Reader, t, t, &key.PublicKey, key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}

// Reach looks whether a joiner that calls Answer is reached at addr; same tells its certificate, in DER, from others.
// The error is an *Error that names addr.
func Reach(ctx context.Context, addr string, same func(certDER []byte) bool) error {
	ctx, cancel := context.WithTimeout(ctx, reachTimeout)
	defer cancel()
	c, err := connect(ctx, nil, addr, &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{reachProto},
		InsecureSkipVerify: true, // nothing is trusted and nothing said: it is only asked who is there
		VerifyConnection: func(cs tls.ConnectionState) error {
			if !same(cs.PeerCertificates[0].Raw) {
				return &kindError{WrongNode, errors.New("another program answers there")}
			}
			return nil
		},
	})
	if err != nil {
		return failed(opReach, addr, err)
	}
	return c.Close()
}

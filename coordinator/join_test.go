package coordinator

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"lorad/ca"
	"lorad/coordinator/state"
	"lorad/proto"
)

// TestThousandJoinsWithTenTokens: joiners come by the leader and by a follower at once, many more than the tokens let in;
// each token lets in exactly as many as it has uses.
func TestThousandJoinsWithTenTokens(t *testing.T) {
	const joins, tokens, uses, atOnce = 1000, 10, 7, 40
	a := first(t)
	b := a.join(a.token(1, time.Minute))
	if err := b.Ready(b.ctx(enough)); err != nil {
		t.Fatal(err)
	}
	var toks [tokens]ca.JoinToken
	for i := range toks {
		var err error
		if toks[i], err = ca.ParseJoinToken(a.token(uses, time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	request, stop := joiner(t)
	defer stop()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	var in [tokens]atomic.Int32
	var refused atomic.Int32
	var work sync.WaitGroup
	next := make(chan int)
	for range atOnce {
		work.Go(func() {
			for i := range next {
				_, err := enrolment{c: []*box{a, b}[i/tokens%2].Coordinator}.Join(ctx, request(toks[i%tokens]))
				switch status.Code(err) {
				case codes.OK:
					in[i%tokens].Add(1)
				case codes.PermissionDenied:
					refused.Add(1)
				default:
					t.Errorf("join %d: %v", i, err)
				}
			}
		})
	}
	began := time.Now()
	for i := range joins {
		next <- i
	}
	close(next)
	work.Wait()
	t.Logf("%d joins in %v", joins, time.Since(began).Round(time.Millisecond))
	for i := range in {
		if n := in[i].Load(); n != uses {
			t.Errorf("token %d let %d in, has %d uses", i, n, uses)
		}
	}
	if n := refused.Load(); n != joins-tokens*uses {
		t.Errorf("%d were refused", n)
	}
	if n := len(a.Nodes()); n != 2+tokens*uses {
		t.Errorf("%d nodes are recorded", n)
	}
	for _, tok := range read(a.fsm, (*state.Machine).Tokens) {
		if tok.UsesLeft != 0 {
			t.Errorf("token %s has %d uses left of %d", tok.Id, tok.UsesLeft, tok.Uses)
		}
	}
}

// joiner makes requests to join, each of another node. All of them have one key and one address, at which they are reached
// until stop; that says nothing about who they are.
func joiner(t *testing.T) (request func(ca.JoinToken) *proto.JoinRequest, stop func()) {
	t.Helper()
	at := bound(t)
	key, csr, err := ca.NewKeyAndCSR()
	if err != nil {
		t.Fatal(err)
	}
	if stop, err = at.Answer(key); err != nil {
		t.Fatal(err)
	}
	return func(tok ca.JoinToken) *proto.JoinRequest {
		return &proto.JoinRequest{
			TokenId: tok.ID(), TokenSecret: tok.Secret(), CsrDer: csr, NowUnixMs: time.Now().UnixMilli(),
			Node: withID(facts("x"), ca.NewNodeID(), at.Advertise()),
		}
	}, stop
}

// BenchmarkJoin is the time from asking to join until the cluster has heard the new node's heartbeat: keys, reach-back, the
// token, the certificate, Raft and gossip.
func BenchmarkJoin(b *testing.B) {
	a := first(b)
	if err := a.Ready(a.ctx(enough)); err != nil {
		b.Fatal(err)
	}
	tok, err := a.ctl.CreateToken(a.ctx(enough), &proto.CreateTokenRequest{Role: state.Worker, Uses: 1 << 20})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		n := a.join(tok.Token)
		for !a.gossip.alive(n.ID()) {
			time.Sleep(time.Millisecond)
		}
		b.StopTimer()
		n.close()
		b.StartTimer()
	}
}

package state

import (
	"testing"

	"lorad/proto"
)

func useToken(id string, secret byte, node string, key byte) *proto.Command {
	return &proto.Command{Do: &proto.Command_UseToken{UseToken: &proto.UseToken{Id: id, SecretSha256: sum(secret),
		Node: &proto.Node{Id: node, Name: "host", Addr: node + ":1"}, KeySha256: sum(key)}}}
}

func putToken(id string, uses uint32, expires int64) *proto.Command {
	return &proto.Command{Do: &proto.Command_PutToken{PutToken: &proto.PutToken{Token: &proto.Token{
		Id: id, SecretSha256: sum(1), UsesLeft: uses, ExpiresUnixMs: expires, Voter: true}}}}
}

func TestTokens(t *testing.T) {
	b := newBench(t)
	b.ok(putToken("t", 2, 5000))
	b.ok(putToken("t", 2, 5000)) // its reply was lost with a leader
	other := putToken("t", 2, 5000)
	other.GetPutToken().Token.SecretSha256 = make([]byte, 32)
	b.refused(Illegal, other)
	b.refused(Unknown, useToken("x", 1, "c", 1))
	b.refused(Mismatch, useToken("t", 2, "c", 1))
	if n := b.ok(useToken("t", 1, "c", 1)).Node; n.Name != "host-3" || !n.Voter {
		t.Errorf("recorded as %v", n)
	}
	b.ok(useToken("t", 1, "c", 1))               // its reply was lost
	b.refused(Illegal, useToken("t", 1, "a", 2)) // a token does not let anybody pose as node a
	b.ok(useToken("t", 1, "d", 2))
	b.ok(useToken("t", 1, "c", 1))
	b.ok(putToken("t", 2, 5000)) // and making it again does not bring its uses back
	b.refused(UsedUp, useToken("t", 1, "c", 3))
	b.now = 5000
	b.refused(Expired, useToken("t", 1, "c", 1))
	b.now += tokenGraveMs + 1
	b.ok(putToken("u", 1, b.now+1))
	b.refused(Unknown, useToken("t", 1, "c", 1))
}

// TestTokensHaveARole: a person's does not let a node in, a node's is no person's, and those of a removed node go with it.
func TestTokensHaveARole(t *testing.T) {
	b := newBench(t)
	of := func(id, role, by string) *proto.Command {
		c := putToken(id, 1, 5000)
		c.GetPutToken().Token.Role, c.GetPutToken().Token.MadeBy = role, by
		return c
	}
	b.refused(Invalid, of("x", "king", "a"))
	for _, role := range []string{Worker, Voter, Witness, Viewer, Operator} {
		b.ok(of(role, role, "a"))
		secret := b.m.Token(role).SecretSha256
		_, err := b.m.Person(role, secret, b.now)
		if (err == nil) == Joins(role) {
			t.Errorf("a person with a %s's token: %v", role, err)
		}
		if _, err := b.m.Person(role, sum(9), b.now); err == nil {
			t.Errorf("a wrong secret of a %s's token", role)
		}
		if _, err := b.m.Person(role, secret, 6000); err == nil {
			t.Errorf("an expired %s's token", role)
		}
	}
	b.refused(WrongRole, useToken(Viewer, 1, "c", 1))
	if n := b.ok(useToken(Worker, 1, "c", 1)).Node; n.Voter || n.Witness {
		t.Errorf("a worker's token made %v", n)
	}
	if n := b.ok(useToken(Witness, 1, "d", 2)).Node; !n.Voter || !n.Witness {
		t.Errorf("a witness's token made %v", n)
	}
	b.ok(of("mine", Voter, "a"))
	b.ok(of("theirs", Voter, "b"))
	b.ok(&proto.Command{Do: &proto.Command_RemoveNode{RemoveNode: &proto.RemoveNode{Id: "b"}}})
	if b.m.Token("theirs") != nil || b.m.Token("mine") == nil {
		t.Errorf("tokens after their maker was removed: %v", b.m.Tokens())
	}
}

package state

import (
	"bytes"
	"crypto/subtle"
	"maps"
	"slices"

	"lorad/proto"
)

// A dead token is kept for a day, so that whoever tries it is told why it does not work.
const tokenGraveMs = 24 * 3600 * 1000

// What a token is for. A node joins with one of the first three; a person calls with one of the others.
const (
	Worker   = "worker"
	Voter    = "voter"
	Witness  = "witness"
	Viewer   = "viewer"
	Operator = "operator"
)

// RoleOf is what a token is for. Tokens of older logs say only whether the joiner may vote.
func RoleOf(t *proto.Token) string {
	switch {
	case t.GetRole() != "":
		return t.GetRole()
	case t.GetVoter():
		return Voter
	}
	return Worker
}

// Joins reports whether a node may join with a token of this role.
func Joins(role string) bool { return role == Worker || role == Voter || role == Witness }

func (m *Machine) putToken(t *proto.Token, now int64) (Result, error) {
	if t.GetId() == "" || len(t.GetSecretSha256()) != 32 || t.GetUsesLeft() == 0 {
		return Result{}, refuse(Invalid, "put", "token "+t.GetId(), "a token has an id, the SHA-256 of its secret and at least one use")
	}
	if r := RoleOf(t); !Joins(r) && r != Viewer && r != Operator {
		return Result{}, refuse(Invalid, "put", "token "+t.Id, "no such role as %q: worker, voter, witness, viewer or operator", r)
	}
	if old := m.tokens[t.Id]; old != nil && bytes.Equal(old.SecretSha256, t.SecretSha256) {
		return Result{}, nil // the same command again, because its first reply was lost with a leader
	} else if old != nil {
		return Result{}, refuse(Illegal, "put", "token "+t.Id, "it exists, and a token is made once")
	}
	m.bury(now)
	m.tokens[t.Id] = t
	return Result{}, nil
}

// bury forgets the tokens that expired long ago.
func (m *Machine) bury(now int64) {
	maps.DeleteFunc(m.tokens, func(_ string, t *proto.Token) bool { return now-t.ExpiresUnixMs > tokenGraveMs })
}

// useToken checks the token, takes one use from it and records the node, all or nothing. The same key may come
// again: its first reply may have been lost with a leader.
func (m *Machine) useToken(u *proto.UseToken, now int64) (Result, error) {
	t, err := m.check(u, now)
	if err != nil {
		return Result{}, err
	}
	if u.GetNode().GetWitness() && RoleOf(t) == Worker {
		return Result{}, refuse(WrongRole, "use", "token "+t.Id, "it is for nodes that do not vote, and a witness does nothing else: make another one with `lorad token create --role witness`")
	}
	want, again := u.GetNode(), usedBy(t, u.KeySha256)
	if old := m.nodes[want.GetId()]; old != nil && !again && !u.Again {
		return Result{}, refuse(Illegal, "use", "token "+t.Id, "node id %s is somebody else's: join with an empty state directory", old.Id)
	}
	if want != nil {
		role := RoleOf(t)
		want = &proto.Node{
			Id: want.Id, Name: want.Name, Addr: want.Addr, Voter: role != Worker, Witness: role == Witness || want.Witness,
			Cores: want.Cores, MemoryBytes: want.MemoryBytes, Engine: want.Engine, Version: want.Version,
		}
	}
	n, err := m.admit(want, now)
	if err != nil {
		return Result{}, err
	}
	if !again {
		m.tokens[t.Id] = spend(t, u.KeySha256)
	}
	m.nodes[n.Id] = n
	return Result{Node: n}, nil
}

// CheckToken says whether a node may join with a token, without using it.
func (m *Machine) CheckToken(u *proto.UseToken, now int64) error {
	_, err := m.check(u, now)
	return err
}

func (m *Machine) check(u *proto.UseToken, now int64) (*proto.Token, error) {
	t := m.tokens[u.GetId()]
	subject := "token " + u.GetId()
	const fix = "make another one with `lorad token create` on any node"
	switch {
	case t == nil:
		return nil, refuse(Unknown, "use", subject, "no such token: check that the whole of it was pasted, or %s", fix)
	case subtle.ConstantTimeCompare(t.SecretSha256, u.SecretSha256) != 1:
		return nil, refuse(Mismatch, "use", subject, "the secret is not the token's: check that the whole of it was pasted")
	case !Joins(RoleOf(t)):
		return nil, refuse(WrongRole, "use", subject, "it is for a person (%s), not for a node: %s", RoleOf(t), fix)
	case now >= t.ExpiresUnixMs:
		return nil, refuse(Expired, "use", subject, "it expired %d s ago: %s", (now-t.ExpiresUnixMs)/1000, fix)
	case usedBy(t, u.KeySha256):
		return t, nil
	case t.UsesLeft == 0:
		return nil, refuse(UsedUp, "use", subject, "all its uses are spent: %s", fix)
	}
	return t, nil
}

func usedBy(t *proto.Token, key []byte) bool {
	return len(key) > 0 && slices.ContainsFunc(t.UsedBy, func(k []byte) bool { return bytes.Equal(k, key) })
}

// spend is the token after one more use by the key.
func spend(t *proto.Token, key []byte) *proto.Token {
	next := &proto.Token{
		Id: t.Id, SecretSha256: t.SecretSha256, ExpiresUnixMs: t.ExpiresUnixMs, UsesLeft: t.UsesLeft - 1,
		Voter: t.Voter, UsedBy: t.UsedBy, Role: t.Role, Name: t.Name, CreatedUnixMs: t.CreatedUnixMs, Uses: t.Uses, MadeBy: t.MadeBy,
	}
	if len(key) > 0 {
		next.UsedBy = append(slices.Clip(t.UsedBy), key)
	}
	return next
}

func (m *Machine) removeToken(id string) (Result, error) {
	if m.tokens[id] == nil {
		return Result{}, refuse(Unknown, "remove", "token "+id, "no such token: `lorad token ls` lists them")
	}
	delete(m.tokens, id)
	return Result{}, nil
}

// Person checks the token that a person calls with, and gives it. Expiry goes by the clock of the node that was asked.
func (m *Machine) Person(id string, secretSHA256 []byte, now int64) (*proto.Token, error) {
	t, subject := m.tokens[id], "token "+id
	const fix = "make another one with `lorad token create --role viewer` on a node of the cluster"
	switch {
	case t == nil:
		return nil, refuse(Unknown, "use", subject, "no such token: it was removed, or never of this cluster; %s", fix)
	case subtle.ConstantTimeCompare(t.SecretSha256, secretSHA256) != 1:
		return nil, refuse(Mismatch, "use", subject, "the secret is not the token's: check that the whole of it was pasted")
	case Joins(RoleOf(t)):
		return nil, refuse(WrongRole, "use", subject, "it lets a node join (%s), not a person: %s", RoleOf(t), fix)
	case now >= t.ExpiresUnixMs:
		return nil, refuse(Expired, "use", subject, "it expired %d s ago: %s", (now-t.ExpiresUnixMs)/1000, fix)
	}
	return t, nil
}

// Tokens returns all tokens, sorted by id.
func (m *Machine) Tokens() []*proto.Token { return sorted(m.tokens) }

package coordinator

import (
	"context"
	"crypto/tls"
	"flag"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"lorad/ca"
	"lorad/proto"
	"lorad/transport"
)

var update = flag.Bool("update", false, "rewrite the table in docs/security.md")

// methods lists every RPC that the server answers, as the server itself tells: "/service/name".
func (b *box) methods() []string {
	var all []string
	for service, info := range b.server.GetServiceInfo() {
		for _, m := range info.Methods {
			all = append(all, "/"+service+"/"+m.Name)
		}
	}
	slices.Sort(all)
	return all
}

// commands lists every command that there is, as its descriptor tells.
func commands() []string {
	var all []string
	fields := (&proto.Command{}).ProtoReflect().Descriptor().Oneofs().ByName("do").Fields()
	for i := range fields.Len() {
		all = append(all, string(fields.Get(i).Name()))
	}
	slices.Sort(all)
	return all
}

// TestEveryMethodHasARow: an RPC or a command that is new has to say who may use it, and none that is gone stays behind.
func TestEveryMethodHasARow(t *testing.T) {
	t.Parallel()
	want := append(first(t).methods(), commands()...)
	have := slices.Collect(maps.Keys(access))
	slices.Sort(want)
	slices.Sort(have)
	if !slices.Equal(want, have) {
		t.Errorf("the table has rows for\n%s\nbut there are\n%s", strings.Join(have, "\n"), strings.Join(want, "\n"))
	}
}

// caller is somebody who tries everything: as whom the table should see him, and how he connects. A nil connection
// means that no RPC could even be tried.
type caller struct {
	name string
	role ca.Role
	conn *grpc.ClientConn
}

// issue makes a certificate of a's own cluster.
func (b *box) issue(role ca.Role, node string, life time.Duration) *ca.Identity {
	b.t.Helper()
	authority, err := b.authority()
	if err != nil {
		b.t.Fatal(err)
	}
	authority.Lifetime = life
	id, err := authority.Issue(ca.Subject{ClusterID: b.creds.ClusterID, NodeID: node, Role: role})
	if err != nil {
		b.t.Fatal(err)
	}
	return id
}

// rude connects with whatever certificate, trusting whoever answers: nothing on the client's side holds it back.
func (b *box) rude(proto transport.Proto, id *ca.Identity) *grpc.ClientConn {
	b.t.Helper()
	cfg := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{string(proto)}}
	if id != nil {
		cfg.GetClientCertificate = id.ClientTLS().GetClientCertificate
	}
	dial := func(ctx context.Context, addr string) (net.Conn, error) {
		return (&tls.Dialer{Config: cfg}).DialContext(ctx, "tcp", addr)
	}
	conn, err := grpc.NewClient("passthrough:///"+b.mux.Advertise(), grpc.WithContextDialer(dial),
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy())
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { conn.Close() })
	return conn
}

// remove issues a certificate to a node, records the node and removes it.
func (b *box) removedNode() *ca.Identity {
	b.t.Helper()
	gone := facts("gone")
	gone.Id = ca.NewNodeID()
	for _, cmd := range []*proto.Command{
		{Do: &proto.Command_PutNode{PutNode: &proto.PutNode{Node: gone}}}, {Do: &proto.Command_RemoveNode{RemoveNode: &proto.RemoveNode{Id: gone.Id}}},
	} {
		if _, err := b.apply(b.ctx(enough), cmd); err != nil {
			b.t.Fatal(err)
		}
	}
	return b.issue(ca.Voter, gone.Id, 0)
}

// callers are those that must not get in, and those that get in with one role each.
func (b *box) callers() []caller {
	b.t.Helper()
	other, err := ca.New(ca.NewClusterID())
	if err != nil {
		b.t.Fatal(err)
	}
	foreign, err := other.Issue(ca.Subject{ClusterID: other.ClusterID(), NodeID: b.id, Role: ca.Voter})
	if err != nil {
		b.t.Fatal(err)
	}
	const noRole = "nobody" // not in the table
	list := []caller{
		{"on the enrolment port", "", b.rude(transport.Enrol, nil)},
		{"on the enrolment port, with a voter's certificate", "", b.rude(transport.Enrol, b.issue(ca.Voter, ca.NewNodeID(), 0))},
	}
	for name, id := range map[string]*ca.Identity{
		"without a certificate": nil, "of another cluster": foreign, "removed from the cluster": b.removedNode(),
		"with an expired certificate": b.issue(ca.Voter, ca.NewNodeID(), -ca.Backdate/2),
	} {
		for _, p := range []transport.Proto{transport.GRPC, transport.Raft, transport.Gossip, transport.Reduce, "lorad-none/1"} {
			list = append(list, caller{fmt.Sprintf("%s, speaking %s", name, p), noRole, b.rude(p, id)})
		}
	}
	for _, role := range nodes {
		list = append(list,
			caller{"with a certificate", role, b.rude(transport.GRPC, b.issue(role, ca.NewNodeID(), 0))},
			caller{"with a certificate, at the door for renewal", ca.Lapsed, b.rude(transport.Renew, b.issue(role, ca.NewNodeID(), 0))})
	}
	list = append(list, caller{"with an expired certificate, at the door for renewal", ca.Lapsed,
		b.rude(transport.Renew, b.issue(ca.Voter, ca.NewNodeID(), -ca.Backdate/2))})
	for name, token := range b.tokens() {
		conn, err := transport.GRPCPeople(b.ctx(enough), b.mux.Advertise(), token)
		if err != nil {
			b.t.Fatal(err)
		}
		b.t.Cleanup(func() { conn.Close() })
		role := ca.Role(noRole)
		if name == "viewer" || name == "operator" {
			role = ca.Role(name)
		}
		list = append(list, caller{"a person with the token: " + name, role, conn})
	}
	return append(list, caller{"a person without a token", noRole, b.rude(transport.People, nil)})
}

// tokens are what a person may come with: by what it is.
func (b *box) tokens() map[string]ca.JoinToken {
	b.t.Helper()
	list := map[string]ca.JoinToken{"never made": ca.NewJoinToken(b.creds.Identity.Pin())}
	for name, req := range map[string]*proto.CreateTokenRequest{
		"viewer": {Role: "viewer"}, "operator": {Role: "operator"}, "for a node": {Role: "voter"},
		"expired": {Role: "operator", TtlMs: 1}, "revoked": {Role: "operator"},
	} {
		reply, err := b.ctl.CreateToken(b.ctx(enough), req)
		if err != nil {
			b.t.Fatal(err)
		}
		if list[name], err = ca.ParseJoinToken(reply.Token); err != nil {
			b.t.Fatal(err)
		}
	}
	_, err := b.ctl.RemoveToken(b.ctx(enough), &proto.RemoveTokenRequest{Id: list["revoked"].ID()})
	if err != nil {
		b.t.Fatal(err)
	}
	return list
}

// turnedAway reports whether the guard refused a call, or no connection came about: not what the method itself thinks
// of an empty request.
func turnedAway(method string, err error) bool {
	return status.Code(err) == codes.Unavailable || strings.HasPrefix(status.Convert(err).Message(), "call "+method+": not allowed")
}

// try calls a method with an empty request and gives the first that comes back. Every RPC can be called as a stream.
func try(ctx context.Context, conn *grpc.ClientConn, method string) error {
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, method)
	if err != nil {
		return err
	}
	if err := stream.SendMsg(&emptypb.Empty{}); err != nil {
		return err
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	return stream.RecvMsg(&emptypb.Empty{})
}

// TestStrangersTryEverything: whoever it is, on whatever protocol, every RPC that there is answers him as the table
// says and no other. The list of RPCs is the server's own.
func TestStrangersTryEverything(t *testing.T) {
	t.Parallel()
	b := first(t)
	if err := b.Ready(b.ctx(enough)); err != nil {
		t.Fatal(err)
	}
	tried, open := 0, 0
	for _, who := range b.callers() {
		for _, method := range b.methods() {
			err := try(b.ctx(enough), who.conn, method)
			if ok, want := !turnedAway(method, err), allowed(who.role, method, false); ok != want {
				t.Errorf("%s, %q: %s: answered %v, want %v: %v", who.name, who.role, method, ok, want, err)
			} else if ok {
				open++
			}
			tried++
		}
	}
	if open == 0 {
		t.Error("nobody could call anything: the test proves nothing")
	}
	t.Logf("%d calls tried, %d were for the caller", tried, open)
}

// TestStrangersCommands: which commands a node may hand to the leader, for itself and for another, is what the table
// says; a command that is new is nobody's until it is in it.
func TestStrangersCommands(t *testing.T) {
	t.Parallel()
	b := first(t)
	if err := b.Ready(b.ctx(enough)); err != nil {
		t.Fatal(err)
	}
	fields := (&proto.Command{}).ProtoReflect().Descriptor().Oneofs().ByName("do").Fields()
	for i := range fields.Len() {
		cmd := &proto.Command{}
		cmd.ProtoReflect().Set(fields.Get(i), cmd.ProtoReflect().NewField(fields.Get(i)))
		name := string(fields.Get(i).Name())
		for _, role := range append([]ca.Role{"", ca.Owner, ca.Viewer, ca.Operator}, nodes...) {
			err := b.mayPropose(ca.Peer{ClusterID: b.creds.ClusterID, NodeID: "elsewhere", Role: role}, cmd)
			if ok := err == nil; ok != slices.Contains(access[name].may, role) {
				t.Errorf("%s: role %q: allowed %v: %v", name, role, ok, err)
			}
		}
	}
}

// roleNames is how the table in the documentation calls the roles.
var roleNames = []struct {
	name string
	role ca.Role
}{
	{"stranger", ""}, {"viewer", ca.Viewer}, {"operator", ca.Operator}, {"owner", ca.Owner},
	{"worker", ca.Worker}, {"voter", ca.Voter}, {"witness", ca.Witness},
}

// TestDocs: the table that people read is the table that is asked. -update rewrites it.
func TestDocs(t *testing.T) {
	t.Parallel()
	path := filepath.Join("..", "docs", "security.md")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const begin, end = "<!-- access: held by go test ./coordinator -run TestDocs -update -->\n", "<!-- end -->"
	head, rest, ok1 := strings.Cut(string(text), begin)
	_, tail, ok2 := strings.Cut(rest, end)
	if !ok1 || !ok2 {
		t.Fatalf("%s has no %s ... %s", path, begin, end)
	}
	want := head + begin + accessTable() + end + tail
	if *update {
		err = os.WriteFile(path, []byte(want), 0o644)
	}
	if err != nil || string(text) != want && !*update {
		t.Errorf("the table in %s is not the one that holds: run go test ./coordinator -run TestDocs -update (%v)", path, err)
	}
}

func accessTable() string {
	var b strings.Builder
	b.WriteString("| |")
	for _, r := range roleNames {
		b.WriteString(" " + r.name + " |")
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(roleNames)) + "\n")
	for _, what := range slices.Sorted(maps.Keys(access)) {
		name := strings.TrimPrefix(what, "/lorad.v1.")
		b.WriteString("| `" + name + "` |")
		for _, r := range roleNames {
			b.WriteString(map[bool]string{true: " yes |", false: " "}[allowed(r.role, what, false)])
			if !allowed(r.role, what, false) {
				b.WriteString(map[bool]string{true: "own |", false: "|"}[allowed(r.role, what, true)])
			}
		}
		b.WriteString("\n")
	}
	return b.String()
}

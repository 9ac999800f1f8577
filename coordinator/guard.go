package coordinator

import (
	"context"
	"errors"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"lorad/ca"
	"lorad/coordinator/state"
	"lorad/proto"
	"lorad/transport"
)

// guard refuses a call that the caller's role does not allow, and gives the role otherwise. method is "/service/name".
func (c *Coordinator) guard(ctx context.Context, method string) (ca.Role, error) {
	peer, ok := transport.PeerFromContext(ctx)
	switch {
	case ok && peer.Role == ca.Visitor:
		return c.admit(bearerOf(ctx), method, func(who string) error { return transport.Vouch(ctx, who) })
	case ok && allowed(peer.Role, method, false):
		return peer.Role, nil
	case !ok || peer.Role == "":
		return "", status.Errorf(codes.PermissionDenied, "call %s: not allowed without a node's certificate: join the cluster first", method)
	}
	return "", denied(method, peer.Role)
}

func denied(method string, role ca.Role) error {
	return status.Errorf(codes.PermissionDenied, "call %s: not allowed: the caller has the role %s, and docs/security.md says who may", method, role)
}

// admit judges a person's call by the token that came with it. vouch is told who he is once that is known.
func (c *Coordinator) admit(token, method string, vouch func(who string) error) (ca.Role, error) {
	tok, err := ca.ParseJoinToken(token)
	if err != nil {
		return "", status.Errorf(codes.Unauthenticated, "call %s: not allowed without a person's token: run `lorad login`, with what `lorad token create --role viewer` printed", method)
	}
	record, err := c.person(tok)
	var refusal *state.Error
	if errors.As(err, &refusal) {
		return "", because(codes.Unauthenticated, TokenPrefix+string(refusal.Kind), "call "+method+": not allowed: "+refusal.Text)
	}
	role := ca.Role(state.RoleOf(record))
	if !allowed(role, method, false) {
		return "", denied(method, role)
	}
	if err := vouch("token " + record.Id); err != nil {
		return "", status.Errorf(codes.ResourceExhausted, "call %s: not allowed now: %v", method, err)
	}
	return role, nil
}

func (c *Coordinator) person(tok ca.JoinToken) (*proto.Token, error) {
	c.fsm.mu.RLock()
	defer c.fsm.mu.RUnlock()
	return c.fsm.machine.Person(tok.ID(), tok.SecretHash(), c.now().UnixMilli())
}

// bearerOf is the token in a call's metadata, "" if there is none.
func bearerOf(ctx context.Context) string {
	md, _ := metadata.FromIncomingContext(ctx)
	for _, v := range md.Get("authorization") {
		if tok, ok := strings.CutPrefix(v, transport.Bearer); ok {
			return tok
		}
	}
	return ""
}

// roleKey is where a call's context has the role of the caller. A call from inside the process has none.
type roleKey struct{}

// calledBy is the role of whoever makes a call; inside the process it is the owner's.
func calledBy(ctx context.Context) ca.Role {
	if r, ok := ctx.Value(roleKey{}).(ca.Role); ok {
		return r
	}
	return ca.Owner
}

func (c *Coordinator) guardUnary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	role, err := c.guard(ctx, info.FullMethod)
	if err != nil {
		return nil, err
	}
	return next(context.WithValue(ctx, roleKey{}, role), req)
}

func (c *Coordinator) guardStream(srv any, s grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	if _, err := c.guard(s.Context(), info.FullMethod); err != nil {
		return err
	}
	return next(srv, s)
}

package coordinator

import (
	"context"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"lorad/ca"
	"lorad/coordinator/state"
	"lorad/proto"
)

// How long a token may be valid. One that a node joins with is used at once; a person goes on calling.
const (
	joinTTL      = time.Hour
	maxJoinTTL   = 30 * 24 * time.Hour
	personTTL    = 30 * 24 * time.Hour
	maxPersonTTL = 366 * 24 * time.Hour
	maxTokenName = 128 // bytes
)

// CreateToken makes a token that lets nodes in or people call. The secret is in the reply and nowhere else.
func (s control) CreateToken(ctx context.Context, req *proto.CreateTokenRequest) (*proto.CreateTokenReply, error) {
	role := state.RoleOf(&proto.Token{Role: req.Role, Voter: req.Voter})
	ttl, err := lifetime(role, time.Duration(req.TtlMs)*time.Millisecond)
	if err != nil {
		return nil, err
	}
	if by := calledBy(ctx); !slices.Contains(grants[by], role) {
		return nil, status.Errorf(codes.PermissionDenied, "create token: role %q is not one that an %s may give (%s): ask on the machine of a node that votes",
			role, by, strings.Join(grants[by], ", "))
	}
	if len(req.Name) > maxTokenName {
		return nil, status.Errorf(codes.InvalidArgument, "create token: a name has at most %d bytes", maxTokenName)
	}
	tok, now := ca.NewJoinToken(s.creds.Identity.Pin()), s.now()
	record := &proto.Token{
		Id: tok.ID(), SecretSha256: tok.SecretHash(), Uses: max(1, req.Uses), UsesLeft: max(1, req.Uses), Role: role, Name: req.Name,
		CreatedUnixMs: now.UnixMilli(), ExpiresUnixMs: now.Add(ttl).UnixMilli(), MadeBy: s.id,
	}
	if _, err := s.do(ctx, &proto.Command{Do: &proto.Command_PutToken{PutToken: &proto.PutToken{Token: record}}}); err != nil {
		return nil, coded(err)
	}
	return &proto.CreateTokenReply{
		Token: tok.Reveal(), Id: record.Id, Role: role, Addr: s.cfg.Mux.Advertise(), ExpiresUnixMs: record.ExpiresUnixMs,
	}, nil
}

// lifetime is how long a token of a role is valid: as asked, or by default.
func lifetime(role string, want time.Duration) (time.Duration, error) {
	usual, most := joinTTL, maxJoinTTL
	if !state.Joins(role) {
		usual, most = personTTL, maxPersonTTL
	}
	if want == 0 {
		return usual, nil
	}
	if want < 0 || want > most {
		return 0, status.Errorf(codes.InvalidArgument, "create token: %v is no time to live: more than nothing, at most %v", want, most)
	}
	return want, nil
}

// Tokens lists the tokens that are known, without what could prove or find their secrets.
func (s control) Tokens(context.Context, *proto.TokensRequest) (*proto.TokensReply, error) {
	reply := &proto.TokensReply{}
	for _, t := range read(s.fsm, (*state.Machine).Tokens) {
		reply.Tokens = append(reply.Tokens, &proto.Token{
			Id: t.Id, Role: state.RoleOf(t), Name: t.Name, Uses: t.Uses, UsesLeft: t.UsesLeft, CreatedUnixMs: t.CreatedUnixMs,
			ExpiresUnixMs: t.ExpiresUnixMs, MadeBy: t.MadeBy,
		})
	}
	return reply, nil
}

// RemoveToken revokes a token. Nodes that joined with it stay.
func (s control) RemoveToken(ctx context.Context, req *proto.RemoveTokenRequest) (*proto.RemoveTokenReply, error) {
	_, err := s.do(ctx, &proto.Command{Do: &proto.Command_RemoveToken{RemoveToken: &proto.RemoveToken{Id: req.Id}}})
	return &proto.RemoveTokenReply{}, coded(err)
}

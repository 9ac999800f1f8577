package coordinator

import (
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// What a refusal calls itself beside its sentence, so that a program need not read that: the reason of a
// google.rpc.ErrorInfo. A refusal by the state has its state.Kind; one of a token, TokenPrefix and the kind.
const (
	TokenPrefix = "token "
	ClockReason = "clock skew"
	ReachReason = "not reached back"
)

// because is an error with its reason.
func because(code codes.Code, reason, text string) error {
	s := status.New(code, text)
	if with, err := s.WithDetails(&errdetails.ErrorInfo{Reason: reason, Domain: "lorad"}); err == nil {
		s = with
	}
	return s.Err()
}

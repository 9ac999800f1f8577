package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"lorad/ca"
	"lorad/coordinator"
	clusterstate "lorad/coordinator/state"
	"lorad/transport"
)

// Exit codes, for scripts. docs/cli.md lists them.
const (
	exitFailed   = 1  // the run failed, or anything not named below
	exitUsage    = 2  // command line or job file
	exitNotFound = 3  // no such run, node or file
	exitDenied   = 4  // token or certificate refused; the reasons below have codes of their own
	exitNoQuorum = 5  // too few voters are up
	exitRetry    = 75 // may work later (EX_TEMPFAIL)

	exitTokenExpired = 41 // its time is over
	exitTokenUnknown = 42 // revoked, of another cluster, or mistyped
	exitTokenUsedUp  = 43 // as many nodes have joined as may
	exitTokenRole    = 44 // a person's token for a node, or the other way round
	exitPinMismatch  = 45 // the address is of another cluster than the token, or somebody is in between
	exitClock        = 46 // the clocks of the two machines differ too much, or the other's certificate has ended
	exitNotReached   = 47 // the cluster cannot reach the joiner back

	exitInterrupted = 130 // Ctrl-C
)

// exitError carries the exit code of an error that a verb understands.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

func usage(err error) error { return &exitError{exitUsage, err} }

// exit prints the error, if any, and turns it into an exit code.
func (a *app) exit(err error) int {
	if err == nil {
		return 0
	}
	var own *exitError
	if a.ctx.Err() != nil && errors.Is(err, context.Canceled) && !errors.As(err, &own) { // whatever was being called when the signal came
		fmt.Fprintln(os.Stderr, "lorad: interrupted")
		return exitInterrupted
	}
	code := exitCode(err)
	fmt.Fprintln(os.Stderr, "lorad:", message(err))
	return code
}

func exitCode(err error) int {
	var own *exitError
	var net *transport.Error
	switch {
	case errors.As(err, &own):
		return own.code
	case errors.As(err, &net):
		return exitOfKind(net.Kind)
	case errors.Is(err, ca.ErrNotToken), errors.Is(err, ca.ErrTokenDamaged), errors.Is(err, ca.ErrTokenVersion):
		return exitUsage
	case errors.Is(err, context.Canceled):
		return exitInterrupted
	case errors.Is(err, os.ErrNotExist):
		return exitNotFound
	}
	if code, known := exitOfReason[reason(err)]; known {
		return code
	}
	return exitOfStatus(status.Code(err))
}

// exitOfReason maps the kinds of refusal that a script may want to tell from each other.
var exitOfReason = map[string]int{
	coordinator.TokenPrefix + string(clusterstate.Expired):   exitTokenExpired,
	coordinator.TokenPrefix + string(clusterstate.Unknown):   exitTokenUnknown,
	coordinator.TokenPrefix + string(clusterstate.Mismatch):  exitTokenUnknown,
	coordinator.TokenPrefix + string(clusterstate.UsedUp):    exitTokenUsedUp,
	coordinator.TokenPrefix + string(clusterstate.WrongRole): exitTokenRole,
	coordinator.ClockReason:                                  exitClock,
	coordinator.ReachReason:                                  exitNotReached,
}

// reason is what a refusal calls itself, for programs: of the google.rpc.ErrorInfo in a status.
func reason(err error) string {
	for _, d := range status.Convert(err).Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok {
			return info.Reason
		}
	}
	return ""
}

func exitOfKind(k transport.Kind) int {
	switch k {
	case transport.PinMismatch:
		return exitPinMismatch
	case transport.Clock:
		return exitClock
	case transport.OtherCluster, transport.Revoked, transport.Recovered, transport.Expired, transport.Refused, transport.NotOwner:
		return exitDenied
	case transport.NotRunning:
		return exitNotFound
	}
	return exitRetry
}

func exitOfStatus(c codes.Code) int {
	switch c {
	case codes.InvalidArgument:
		return exitUsage
	case codes.NotFound:
		return exitNotFound
	case codes.Unauthenticated, codes.PermissionDenied:
		return exitDenied
	case codes.Unavailable:
		return exitNoQuorum
	case codes.DeadlineExceeded, codes.ResourceExhausted, codes.Aborted:
		return exitRetry
	case codes.Canceled:
		return exitInterrupted
	}
	return exitFailed
}

// message is the text of an error without gRPC's frame around what the other side said.
func message(err error) string {
	var said interface {
		error
		GRPCStatus() *status.Status
	}
	if !errors.As(err, &said) {
		return err.Error()
	}
	return strings.Replace(err.Error(), said.Error(), said.GRPCStatus().Message(), 1)
}

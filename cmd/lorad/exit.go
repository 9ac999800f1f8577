package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"lorad/ca"
	"lorad/transport"
)

// Exit codes, for scripts. docs/cli.md lists them.
const (
	exitFailed      = 1   // the run failed, or anything not named below
	exitUsage       = 2   // command line or job file
	exitNotFound    = 3   // no such run, node or file
	exitDenied      = 4   // token or certificate refused
	exitNoQuorum    = 5   // too few voters are up
	exitRetry       = 75  // may work later (EX_TEMPFAIL)
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
	return exitOfStatus(status.Code(err))
}

func exitOfKind(k transport.Kind) int {
	switch k {
	case transport.PinMismatch, transport.OtherCluster, transport.Revoked, transport.Expired, transport.Refused, transport.NotOwner:
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

package main

import (
	"testing"

	"lorad/transport"
)

// A script tries again after 75; what stays as it is must not be among that.
func TestExitOfConnections(t *testing.T) {
	for kind, want := range map[transport.Kind]int{
		transport.Unreachable: exitRetry, transport.NotLorad: exitRetry, transport.WrongNode: exitRetry,
		transport.PinMismatch: exitPinMismatch, transport.Clock: exitClock, transport.NotRunning: exitNotFound,
		transport.OtherCluster: exitDenied, transport.Revoked: exitDenied, transport.Recovered: exitDenied,
		transport.Expired: exitDenied, transport.Refused: exitDenied, transport.NotOwner: exitDenied,
	} {
		if got := exitCode(&transport.Error{Kind: kind}); got != want {
			t.Errorf("%s: exit code %d, want %d", kind, got, want)
		}
	}
}

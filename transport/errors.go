package transport

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"

	"lorad/ca"
)

// Kind is why a connection was not made. Values are stable: commands map them to exit codes.
type Kind string

// The kinds; fixes says of each what to do.
const (
	Unreachable  Kind = "unreachable"
	NotLorad     Kind = "not a lorad node"
	PinMismatch  Kind = "pin mismatch"
	OtherCluster Kind = "other cluster"
	WrongNode    Kind = "wrong node"
	Revoked      Kind = "removed node"
	Recovered    Kind = "recovered without this node"
	Expired      Kind = "own certificate expired"
	Clock        Kind = "certificate not valid now"
	Refused      Kind = "refused"
	NotRunning   Kind = "not running"
	NotOwner     Kind = "not the owner"
)

// fixes is what a person can do about each kind.
var fixes = map[Kind]string{
	Unreachable:  "check the address, that the node is running, and that no firewall blocks its one TCP port",
	NotLorad:     "something else listens there, or the node is just stopping; check host and port (on a node, `lorad nodes` lists them)",
	PinMismatch:  "the token is of another cluster than the node at this address, or somebody is in between; nothing was sent. Make a new token on that cluster with `lorad token create`",
	OtherCluster: "the address belongs to a node of another cluster; check it, or leave the old cluster before you join a new one",
	WrongNode:    "another node of the cluster answers at this address; its address has changed, or two nodes advertise the same one",
	Revoked:      "that node was removed from the cluster; it can come back with `lorad join` and a new token",
	Recovered:    "the cluster lost its majority and went on without this node, which cannot come back as it is: run `lorad join` with a new token and an empty state directory",
	Expired:      "run `lorad join` on this node again with a new token; it keeps its name and its data",
	Clock:        "compare the clocks of both machines, which may differ by an hour at most; if they agree, the other node's certificate has ended: run `lorad join` there again",
	Refused:      "the other node did not accept this node's certificate (removed, expired, or of a role that may not do this); run `lorad nodes` there, then `lorad join` here with a new token",
	NotOwner:     "run this as the user who started the node, or as root",
	NotRunning:   "start the node with `lorad up` or `lorad join`",
}

// Error is a connection that was not made.
type Error struct {
	Op   string // "dial", "enrol at"
	Addr string
	Kind Kind
	Err  error // the cause
}

func (e *Error) Error() string {
	return fmt.Sprintf("%s %s: %s: %v; %s", e.Op, e.Addr, e.Kind, e.Err, e.Fix())
}

func (e *Error) Unwrap() error { return e.Err }

// Fix is what a person can do about it.
func (e *Error) Fix() string { return fixes[e.Kind] }

// kindError is an error found while verifying, which knows its kind.
type kindError struct {
	kind Kind
	err  error
}

func (e *kindError) Error() string { return e.err.Error() }
func (e *kindError) Unwrap() error { return e.err }

func failed(op, addr string, err error) error {
	if e := (*Error)(nil); errors.As(err, &e) {
		return err
	}
	return &Error{Op: op, Addr: addr, Kind: kindOf(err), Err: err}
}

// kindOf classifies what went wrong after TCP was connected.
func kindOf(err error) Kind {
	var known *kindError
	var alert tls.AlertError
	var unverified *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	switch {
	case errors.As(err, &known):
		return known.kind
	case errors.Is(err, ca.ErrRevoked):
		return Revoked
	case errors.Is(err, ca.ErrOtherCluster):
		return OtherCluster
	case errors.As(err, &unverified):
		return kindOfCertificate(unverified)
	case errors.As(err, &record):
		return NotLorad
	case isAlert(err, &alert):
		return kindOfAlert(alert)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return Unreachable
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
		return NotLorad // it hung up on our hello
	}
	return Unreachable
}

func kindOfCertificate(err *tls.CertificateVerificationError) Kind {
	var invalid x509.CertificateInvalidError
	if errors.As(err, &invalid) && invalid.Reason == x509.Expired {
		return Clock
	}
	if c := err.UnverifiedCertificates; len(c) > 0 && ca.IsNode(c[0]) {
		return OtherCluster
	}
	return NotLorad
}

// kindOfAlert classifies what the other end said when it broke off the handshake (RFC 8446, section 6).
func kindOfAlert(a tls.AlertError) Kind {
	switch a {
	case 45: // certificate_expired
		return Expired
	case 42, 43, 44, 46, 48, 49, 116: // bad, unsupported, revoked, unknown, unknown_ca, access_denied, required
		return Refused
	}
	return NotLorad // no_application_protocol, protocol_version, handshake_failure ...
}

// isAlert finds the alert that the other end sent. crypto/tls gives it a type of its own that is not exported,
// so it is known by the operation of the error and by its text.
func isAlert(err error, alert *tls.AlertError) bool {
	var op *net.OpError
	if !errors.As(err, &op) || op.Op != "remote error" {
		return false
	}
	for a := 0; a < 256; a++ {
		if tls.AlertError(a).Error() == op.Err.Error() {
			*alert = tls.AlertError(a)
			return true
		}
	}
	return false
}

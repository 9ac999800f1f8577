package state

import "fmt"

// Kind says what sort of refusal an Error is. Kinds go over the wire as they are and are never renamed.
type Kind string

const (
	Unknown   Kind = "unknown"         // there is no such run, node or token
	Ambiguous Kind = "ambiguous"       // more than one run answers to the name
	Invalid   Kind = "invalid"         // the command makes no sense
	Illegal   Kind = "illegal"         // the run's phase does not allow it
	Gap       Kind = "gap"             // a report that does not join on to the ledger
	Stale     Kind = "stale"           // of a generation that is over
	Expired   Kind = "expired"         // the token's time is over
	UsedUp    Kind = "used up"         // the token has no uses left
	Mismatch  Kind = "secret mismatch" // the token's secret is another one
	WrongRole Kind = "wrong role"      // the token is for something else
)

// Error is a refusal: the command changed nothing. Its text reads "operation subject: kind: cause and the fix".
type Error struct {
	Kind Kind
	Text string
}

func (e *Error) Error() string { return e.Text }

// refuse builds the refusal of operation op on subject.
func refuse(kind Kind, op, subject, format string, args ...any) *Error {
	return &Error{kind, fmt.Sprintf("%s %s: %s: %s", op, subject, kind, fmt.Sprintf(format, args...))}
}

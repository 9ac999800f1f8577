package job

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/token"
)

// Error is one mistake in a job file.
type Error struct {
	Line, Column int    // from 1; 0 = the file as a whole
	Key          string // as written, with its parents (datasets[0].typ); "" when no key is to blame
	Message      string // kind: cause and the fix
	Source       string // the line
}

// Error says what is wrong and quotes the line, with a caret under the place.
func (e *Error) Error() string {
	subject := "parse job"
	if e.Line > 0 {
		subject += fmt.Sprintf(" line %d column %d", e.Line, e.Column)
	}
	if e.Key != "" {
		subject += ": " + e.Key
	}
	return subject + ": " + e.Message + e.quote()
}

func (e *Error) quote() string {
	if e.Line == 0 {
		return ""
	}
	number := fmt.Sprintf("%5d", e.Line)
	line := strings.ReplaceAll(e.Source, "\t", " ")
	return fmt.Sprintf("\n%s | %s\n%s | %s^", number, line, strings.Repeat(" ", len(number)), strings.Repeat(" ", max(0, e.Column-1)))
}

// fail notes a mistake at a token, or of the whole file when there is none.
func (d *doc) fail(at *token.Token, name, format string, args ...any) {
	e := &Error{Key: name, Message: fmt.Sprintf(format, args...)}
	if at != nil && at.Position != nil && at.Position.Line >= 1 && at.Position.Line <= len(d.lines) {
		e.Line, e.Column = at.Position.Line, at.Position.Column
		e.Source = d.lines[e.Line-1]
	}
	d.errs = append(d.errs, e)
}

// within puts the parent key before the mistakes found since.
func (d *doc) within(since int, parent string) {
	for _, e := range d.errs[since:] {
		if e.Key == "" {
			e.Key = parent
		} else {
			e.Key = parent + "." + e.Key
		}
	}
}

// maxErrors keeps the report of a file that is not a job at all on one screen.
const maxErrors = 10

func (d *doc) err() error {
	slices.SortStableFunc(d.errs, func(a, b *Error) int { return a.Line - b.Line })
	var all []error
	for i, e := range d.errs {
		if i == maxErrors {
			all = append(all, fmt.Errorf("parse job: and %d more mistakes", len(d.errs)-maxErrors))
			break
		}
		all = append(all, e)
	}
	return errors.Join(all...)
}

// suggest names the known key that is nearest to a mistyped one, if any is near.
func suggest(name string, known []string) string {
	best, distance := "", 3
	switch {
	case len(name) <= 2: // everything is near
		distance = 1
	case len(name) <= 4:
		distance = 2
	}
	for _, k := range known {
		if n := editDistance(name, k); n < distance {
			best, distance = k, n
		}
	}
	if best == "" {
		return ": lorad has no key of a similar name; remove it"
	}
	return fmt.Sprintf(": did you mean %s?", best)
}

// editDistance is Levenshtein's with transpositions of neighbours (optimal string alignment), by bytes.
func editDistance(a, b string) int {
	before, prev, cur := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := range len(a) {
		cur[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			cur[j+1] = min(prev[j+1]+1, cur[j]+1, prev[j]+cost)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				cur[j+1] = min(cur[j+1], before[j-1]+1)
			}
		}
		before, prev, cur = prev, cur, before
	}
	return prev[len(b)]
}

// Command citest reads what `go test -json` prints and says what it came to: a line for each package that passed, and, if something
// failed, first what the assertions of each failed test said, then the last lines of its output. It exits with 1 if a test failed or was
// skipped: CI has everything for all of them.
//
// Why not the plain output: with -v an assertion is printed where it fails, minutes before the line that says which test has failed, among
// the lines of the tests beside it; the end of such a log is the end of some other test. In JSON each line has the name of its test.
package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
)

const (
	mostSaid  = 24  // lines of a test's assertions that are shown
	mostTail  = 25  // last lines of a failed test
	mostTails = 5   // tests whose last lines are shown
	mostWide  = 600 // bytes of a line
)

// event is a line of go test -json.
type event struct {
	Action, Package, Test, Output, ImportPath, FailedBuild string
	Elapsed                                                float64
}

// result is what one test said and how it ended; Test is "" for the package itself and for what a compiler said.
type result struct {
	Package, Test, action string
	elapsed               float64
	lines                 []string
}

type results struct {
	byName map[[2]string]*result
	order  []*result
}

func main() {
	r := results{byName: map[[2]string]*result{}}
	if err := r.read(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "citest:", err)
		os.Exit(1)
	}
	if !r.conclude(os.Stdout) {
		os.Exit(1)
	}
}

// read takes all events, and says so when a package has passed.
func (r *results) read(in io.Reader, out io.Writer) error {
	lines := bufio.NewReader(in)
	for {
		line, err := lines.ReadBytes('\n')
		var e event
		if json.Unmarshal(line, &e) == nil {
			r.take(e)
			if e.Action == "pass" && e.Test == "" {
				fmt.Fprintf(out, "ok   %s %.1fs\n", e.Package, e.Elapsed)
			}
		} else if len(line) > 0 {
			fmt.Fprintf(out, "%s", line)
		}
		if err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
	}
}

func (r *results) take(e event) {
	name := [2]string{cmp.Or(e.Package, e.ImportPath), e.Test}
	t := r.byName[name]
	if t == nil {
		t = &result{Package: name[0], Test: name[1]}
		r.byName[name], r.order = t, append(r.order, t)
	}
	switch e.Action {
	case "output", "build-output":
		t.add(e.Output)
	case "pass", "fail", "skip", "build-fail":
		if e.FailedBuild != "" {
			return // the compiler has said so
		}
		t.action, t.elapsed = strings.TrimPrefix(e.Action, "build-"), e.Elapsed
	}
}

// add takes a piece of output, which may end within a line.
func (t *result) add(text string) {
	if n := len(t.lines); n > 0 && !strings.HasSuffix(t.lines[n-1], "\n") {
		t.lines[n-1] += text
	} else if !strings.HasPrefix(text, "=== ") && !strings.HasPrefix(text, "--- ") {
		t.lines = append(t.lines, text)
	}
}

// conclude prints what failed, the most telling lines first, and whether all is well.
func (r *results) conclude(out io.Writer) bool {
	failed, skipped, passed := r.failed(), r.tests("skip"), r.tests("pass")
	for _, t := range failed {
		fmt.Fprintf(out, "\nFAIL %s %s (%.1f s)\n%s", t.Package, t.Test, t.elapsed, shorten(t.said(), mostSaid))
	}
	for _, t := range failed[:min(mostTails, len(failed))] {
		if len(t.lines) > len(t.said()) {
			fmt.Fprintf(out, "\nthe last lines of %s %s:\n%s", t.Package, t.Test, shorten(t.lines[max(0, len(t.lines)-mostTail):], mostTail))
		}
	}
	for _, t := range skipped {
		fmt.Fprintf(out, "\na test was skipped that CI has everything for: %s %s\n%s", t.Package, t.Test, shorten(t.said(), mostSaid))
	}
	fmt.Fprintf(out, "\npassed: %d, failed: %d, skipped: %d\n", len(passed), len(failed), len(skipped))
	return len(failed)+len(skipped) == 0 && len(passed) > 0
}

// tests lists those that ended so, without packages.
func (r *results) tests(action string) (list []*result) {
	for _, t := range r.order {
		if t.action == action && t.Test != "" {
			list = append(list, t)
		}
	}
	return list
}

// failed lists what did, but of a test whose part has failed only the part, unless it has more to say, and of packages only those without a
// failed test.
func (r *results) failed() (list []*result) {
	for _, t := range r.order {
		if t.action == "fail" && (t.Test != "" && len(t.said()) > 0 || !slices.ContainsFunc(r.order, t.has)) {
			list = append(list, t)
		}
	}
	return list
}

// has says that a failed test is a part of this test, or of this package.
func (t *result) has(p *result) bool {
	return p != t && p.action == "fail" && p.Package == t.Package && (t.Test == "" || strings.HasPrefix(p.Test, t.Test+"/"))
}

var (
	assertion = regexp.MustCompile(`^\s+\S+\.go:\d+: `)
	verdict   = regexp.MustCompile(`^\s+FAIL: \S+:\d+: `) // a testscript's, after all that it did and before what it left running
	goOn      = regexp.MustCompile(`^\s{8}`)              // the further lines of an assertion
	crash     = regexp.MustCompile(`^(panic: |fatal error: |WARNING: DATA RACE|goleak: )|^\S+\.go:\d+`)
)

// said are the lines of assertions, and the first ones of a crash.
func (t *result) said() (said []string) {
	asserts, crashes := false, 0 // what the line before belongs to; lines of a crash that are still wanted
	for _, l := range t.lines {
		switch {
		case verdict.MatchString(l):
			return append(said[max(0, len(said)-mostSaid/2):], l)
		case crash.MatchString(l):
			asserts, crashes = false, mostSaid
		case crashes > 0:
			crashes--
		default:
			asserts = assertion.MatchString(l) || asserts && goOn.MatchString(l)
		}
		if asserts || crashes > 0 {
			said = append(said, l)
		}
	}
	return said
}

// shorten joins the first and the last lines, at most n.
func shorten(lines []string, n int) string {
	if cut := len(lines) - n; cut > 0 {
		lines = slices.Concat(lines[:n/2], []string{fmt.Sprintf("    ... %d lines ...\n", cut)}, lines[len(lines)-n/2:])
	}
	var b strings.Builder
	for _, l := range lines {
		if len(l) > mostWide {
			l = l[:mostWide/2] + " ... " + l[len(l)-mostWide/2:]
		}
		b.WriteString(l)
	}
	return b.String()
}

package main

import (
	"encoding/json"
	"strings"
	"testing"
)

// stream is what go test -json prints of lines "package test action", or "package test: output".
func stream(lines ...string) string {
	var b strings.Builder
	for _, l := range lines {
		f := strings.SplitN(l, " ", 3)
		e := event{Package: f[0], Test: strings.Trim(f[1], "-:"), Action: f[2]}
		if strings.HasSuffix(f[1], ":") {
			e.Action, e.Output = "output", f[2]+"\n"
		}
		text, _ := json.Marshal(e)
		b.Write(append(text, '\n'))
	}
	return b.String()
}

func concluded(t *testing.T, in string) (string, bool) {
	t.Helper()
	var out strings.Builder
	r := results{byName: map[[2]string]*result{}}
	if err := r.read(strings.NewReader(in), &out); err != nil {
		t.Fatal(err)
	}
	ok := r.conclude(&out)
	return out.String(), ok
}

// What the assertion said comes first, although another test's lines stand between it and the end; what was well says one line.
func TestAssertionsFirst(t *testing.T) {
	noise := []string{}
	for range 100 {
		noise = append(noise, "a TestB: level=INFO msg=beside", "a TestA: level=INFO msg=after")
	}
	got, ok := concluded(t, stream(append(append([]string{
		"b TestC pass", "b - pass", "a TestA: === RUN   TestA", "a TestA:     a_test.go:3: got 4,", "a TestA:         want 5", "a TestA: level=INFO msg=x",
	}, noise...), "a TestA/part pass", "a TestA fail", "a TestB pass", "a - fail")...))
	const want = "ok   b 0.0s\n\nFAIL a TestA (0.0 s)\n    a_test.go:3: got 4,\n        want 5\n\nthe last lines of a TestA:\nlevel=INFO msg=after\n"
	if ok || !strings.HasPrefix(got, want) || strings.Contains(got, "beside") || !strings.HasSuffix(got, "\npassed: 3, failed: 1, skipped: 0\n") {
		t.Errorf("%v, %s", ok, got)
	}
}

// Of whole and part, the one that has something to say; a crash with its first lines; and nothing that was skipped is well.
func TestVerdicts(t *testing.T) {
	for name, c := range map[string]struct {
		lines []string
		want  string // "": well
	}{
		"all well":  {[]string{"a TestA pass", "a - pass"}, ""},
		"nothing":   {nil, "passed: 0"},
		"part":      {[]string{"a TestA/x:     a_test.go:3: bad", "a TestA/x fail", "a TestA fail", "a - fail"}, "FAIL a TestA/x (0.0 s)\n    a_test.go:3: bad\n\npassed: 0, failed: 1,"},
		"crash":     {[]string{"a TestA: panic: boo", "a TestA: goroutine 1", "a TestA fail", "a - fail"}, "FAIL a TestA (0.0 s)\npanic: boo\ngoroutine 1\n"},
		"script":    {[]string{"a TestA:     testscript.go:3: WORK", "a TestA:         > stdout x", "a TestA:         FAIL: s.txtar:9: no match", "a TestA:         stopping", "a TestA fail"}, "> stdout x\n        FAIL: s.txtar:9: no match\n\nthe last"},
		"left over": {[]string{"a TestA pass", "a -: goroutines left", "a - fail"}, "the last lines of a :\ngoroutines left\n"},
		"skipped":   {[]string{"a TestA:     a_test.go:3: no root", "a TestA skip", "a TestB pass", "a - pass"}, "skipped that CI has everything for: a TestA\n    a_test.go:3: no root\n"},
	} {
		if got, ok := concluded(t, stream(c.lines...)); ok != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: %v, %s", name, ok, got)
		}
	}
}

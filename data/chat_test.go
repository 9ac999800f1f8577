package data

import (
	"strings"
	"testing"
)

// TestTemplatesAreConfined: a template is somebody else's program. It reads no file, draws no lots, knows no clock
// but the run's, and an endless text is cut short.
func TestTemplatesAreConfined(t *testing.T) {
	for source, want := range map[string]string{
		`{% include "/etc/passwd" %}`:                            "may not read",
		`{% import "chat.go" as x %}{{ x }}`:                     "may not read",
		`{% extends "chat.go" %}`:                                "may not read",
		`{{ [1, 2]|random }}`:                                    "the filter random",
		`{{ lipsum() }}`:                                         "lipsum",
		`{{ raise_exception("no system turns") }}`:               "refused by the template: no system turns",
		`{{ strftime_now("%U") }}`:                               "%U in strftime_now",
		`{{ messages|tojson }}`:                                  "tojson on anything but a string",
		`{% for m in messages %}`:                                "not supported",
		`{% for i in range(300) %}{{ "x" * 10000 }}{% endfor %}`: "too large",
	} {
		template, err := NewTemplate(source, "<s>", "</s>", DefaultDate)
		if err == nil {
			template.limit = 1 << 20
			_, err = template.Render([]Message{{Role: "user", Content: "U"}}, false)
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", source, err, want)
		}
	}
}

func TestStrftime(t *testing.T) {
	got, err := strftime(DefaultDate, "%d %b %Y, %A %B %m %y %H:%M:%S %I %p %j %a 100%%")
	if want := "26 Jul 2024, Friday July 07 24 00:00:00 12 AM 208 Fri 100%"; got != want || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

func TestQuoteIsPythons(t *testing.T) {
	// json.dumps('a"\\\n\t\x01/<é\u2028', ensure_ascii=False)
	if got, want := quote("a\"\\\n\t\x01/<é\u2028"), `"a\"\\\n\t\u0001/<é`+"\u2028"+`"`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// TestConditionalExpressions: "a if c else b" wherever an expression may stand.
func TestConditionalExpressions(t *testing.T) {
	for source, want := range map[string]string{
		`{{ "a" if true else "b" }}`:                                                            "a",
		`{{ "x" + ("a" if messages else "b") + "y" }}`:                                          "xay",
		`{{ ("a" if false) }}|`:                                                                 "|",
		`{% set v = "a" if false else ("b" if true else "c") %}{{ v }}`:                         "b",
		`{%- set v = messages[0]["no"]["such"] if "no" in messages[0] else "d" -%} {{ v }}`:     "d",
		`{{ [1, (2 if true else 3)] | join("-") }}`:                                             "1-2",
		`{{ namespace(a=("k" if true else "l"), b=2).a }}`:                                      "k",
		`{{ "if (a if b else c) }}" }}{# (a if b else c) #}`:                                    "if (a if b else c) }}",
		`{% for m in messages if (m.role if true else "") == "user" %}{{ m.role }}{% endfor %}`: "user",
	} {
		template, err := NewTemplate(source, "", "", DefaultDate)
		if err != nil {
			t.Errorf("%s: %v", source, err)
			continue
		}
		if got, err := template.Render([]Message{{Role: "user", Content: "U"}}, false); err != nil || got != want {
			t.Errorf("%s: %q, %v; want %q", source, got, err, want)
		}
	}
}

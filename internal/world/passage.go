package world

import (
	"strconv"
	"strings"
)

// qa is a question about a passage and its answer, both whole sentences.
type qa struct{ question, answer string }

// passage collects sentences and what can be asked about them.
type passage struct {
	text []string
	asks []qa
}

func (b *passage) say(sentence string) { b.text = append(b.text, capital(sentence)) }

// ask adds a question. One that was asked before is dropped with its first answer: two bakers make
// "Who is the baker?" ambiguous.
func (b *passage) ask(question, answer string) {
	a := qa{capital(question), capital(answer)}
	for i, old := range b.asks {
		if old.question == a.question {
			if old.answer != a.answer {
				b.asks = append(b.asks[:i], b.asks[i+1:]...)
			}
			return
		}
	}
	b.asks = append(b.asks, a)
}

// headers open every passage. A name after a header has its space before it, so it is the same token wherever it
// stands: without a header the first name of a passage would be spelt in other tokens than its copies.
var headers = []string{"Story: ", "Story: ", "Note: ", "News: ", "Letter: ", "Tale: "}

// render writes the passage and up to n of its questions. A passage without questions stays plain prose.
func (b *passage) render(r *rng, n int) string {
	text := strings.Join(b.text, " ")
	if text != "" {
		text = header(r) + text
	}
	shuffle(r, b.asks)
	var out strings.Builder
	out.WriteString(text)
	for i, a := range b.asks[:min(n, len(b.asks))] {
		if text != "" || i > 0 {
			out.WriteByte('\n')
		}
		out.WriteString("Question: " + a.question + "\nAnswer: " + a.answer)
	}
	return out.String()
}

// header is now and then a nonce word: a new header should not throw the reader off.
func header(r *rng) string {
	if r.percent(10) {
		return capital(nonce(r)) + ": "
	}
	return pick(r, headers)
}

// capital upper-cases the first letter (ASCII: the world has no other).
func capital(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

// indefinite puts "a" or "an" before a noun.
func indefinite(noun string) string {
	if strings.ContainsRune("aeiou", rune(noun[0])) {
		return "an " + noun
	}
	return "a " + noun
}

func number(n int) string { return strconv.Itoa(n) }

// crowns is a round sum of money, so that a sum is one or two tokens.
func crowns(r *rng) string {
	if r.percent(50) {
		return number(10*r.between(2, 9)) + " crowns"
	}
	return number(50*r.between(2, 18)) + " crowns"
}

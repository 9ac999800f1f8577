package world

import "strings"

// Nonce words are made up on the spot. They do three things for the base that a corpus of known words cannot: every small
// piece of the vocabulary gets trained, words of many pieces are copied, and a word that was never seen before can be
// the name of a role. So the base reads "Who is the plaintiff?" as a question of that form and answers with a party; which one,
// it cannot know.
var (
	onsets = strings.Fields("b c d f g h j k l m n p qu r s t v w y z br bl ch cl cr dr fl fr gl gr pl pr sh sl sm sn sp st str th tr un con cont wr com le every")
	vowels = strings.Fields("a e i o u a e i o ai ea ou ie")
	codas  = strings.Fields("b d f g k l m n p r s t x nt nd st ff ll mp ng rt sk th ck s n t r nce ment ge ght ion own ass ach")
)

func nonce(r *rng) string {
	var b strings.Builder
	for i := range r.between(2, 3) {
		b.WriteString(pick(r, onsets) + pick(r, vowels))
		if i > 0 && r.percent(70) || r.percent(40) {
			b.WriteString(pick(r, codas))
		}
	}
	return b.String()
}

// renamed tells an event and gives one or both of its roles a nonce name.
func renamed(r *rng) string {
	c := &cast{r: r}
	var b passage
	rel := pick(r, relations)
	for rel.patient == "" {
		rel = pick(r, relations)
	}
	e := newEvent(r, c, rel, actor(c, rel), actor(c, rel))
	b.say(e.fill.Replace(pick(r, e.forms)))
	roles := []struct{ noun, name string }{{e.agent, e.a.name}, {e.patient, e.b.name}}
	shuffle(r, roles)
	for _, role := range roles[:r.between(1, 2)] {
		word := nonce(r)
		b.say(strings.NewReplacer("{R}", role.noun, "{W}", word, "{T}", c.town()).Replace(pick(r, renamings)))
		b.ask("Who is the "+word+"?", "The "+word+" is "+role.name+".")
	}
	if r.percent(30) {
		e.askRoles(r, &b)
	}
	return b.render(r, r.between(1, 3))
}

var renamings = []string{"In {T} the {R} is called the {W}.", "The {R} is the {W}.", "There the word for the {R} is {W}.",
	"People call the {R} the {W}.", "The {W} is the {R}.", "In the old speech, {W} means the {R}."}

// sayings is about nonce words that people say, write and sell.
func sayings(r *rng) string {
	c := &cast{r: r}
	var b passage
	for range r.between(1, 3) {
		fill := strings.NewReplacer("{X}", c.person().name, "{T}", c.town(), "{W}", nonce(r), "{V}", nonce(r),
			"{D}", capital(nonce(r)))
		s := pick(r, sayingForms)
		b.say(fill.Replace(s.says))
		b.ask(fill.Replace(s.question), fill.Replace(s.answer))
	}
	return b.render(r, r.between(1, 3))
}

var sayingForms = []talk{
	{"{X} wrote the words {W} {V} on the wall.", "What did {X} write?", "{X} wrote {W} {V}."},
	{"The bird of {X} can say {W}.", "What can the bird of {X} say?", "The bird of {X} can say {W}."},
	{"{X} calls the old dog {D}.", "What does {X} call the dog?", "{X} calls the dog {D}."},
	{"At the market of {T}, {X} sells {W} and {V}.", "What does {X} sell?", "{X} sells {W} and {V}."},
	{"{X} has a jar full of {W}.", "Who has a jar of {W}?", "{X} has a jar of {W}."},
	{"The song that {X} likes is about {W} of {V}.", "What is the song of {X} about?", "The song of {X} is about {W} of {V}."},
	{"{X} is afraid of the {W} {V}.", "Who is afraid of the {W} {V}?", "{X} is afraid of the {W} {V}."},
}

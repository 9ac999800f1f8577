package world

import (
	"iter"
	"strings"
)

// General yields n documents of the general world. Document i is a pure function of (seed, i); another seed is
// a held-out set (the fixed facts stay, the people and events are new).
func General(seed uint64, n int) iter.Seq[string] {
	return func(yield func(string) bool) {
		for i := range n {
			if !yield(Document(seed, i)) {
				return
			}
		}
	}
}

// Document is one document of the general world.
func Document(seed uint64, index int) string {
	r := stream(seed, kindGeneral, uint64(index))
	at := r.below(100)
	for _, k := range documentKinds {
		if at -= k.percent; at < 0 {
			return k.write(r)
		}
	}
	return tale(r)
}

// documentKinds are the shares of the corpus. Questions about roles come first: they are the skill the base needs.
var documentKinds = []struct {
	percent int
	write   func(*rng) string
}{
	{34, roles}, {13, profiles}, {8, knowledge}, {8, possessions}, {7, dialogue}, {8, tale}, {7, renamed}, {5, sayings}, {10, rolls},
}

// rolls calls a list of names twice in the same order. The second half can only be known by finding the name before in
// the first half and reading on: the skill that all copying from a context builds on, which a small model learns many
// times sooner from lists than from prose (induction heads: Olsson et al. 2022).
func rolls(r *rng) string {
	c := &cast{r: r}
	var names []string
	for i := range r.between(6, 12) {
		if i%3 == 2 {
			names = append(names, c.firm().name)
		} else {
			names = append(names, c.person().name)
		}
	}
	shuffle(r, names)
	list := strings.Join(names, ", ") + "."
	return pick(r, []string{"Roll: ", "Guests: ", "List: "}) + list + "\n" + pick(r, []string{"Again: ", "Once more: "}) + list
}

// roles tells one or two events between two or three parties and asks who was what.
func roles(r *rng) string {
	c := &cast{r: r}
	var b passage
	first := pick(r, relations)
	x, y := actor(c, first), actor(c, first)
	if r.percent(40) {
		introduce(r, c, &b, pick(r, []party{x, y}))
	}
	e := newEvent(r, c, first, x, y)
	e.tell(r, &b)
	if r.percent(60) {
		e.refer(r, &b)
	}
	if r.percent(35) {
		second(r, c, &b, first.agent, x, y)
	}
	return b.render(r, r.between(2, 3))
}

// actor is who may do what the relation says.
func actor(c *cast, rel relation) party {
	if rel.firms {
		return c.party(35)
	}
	return c.person()
}

// second adds an event of another kind with a third party, or with the roles of the two turned round.
func second(r *rng, c *cast, b *passage, not string, x, y party) {
	rel := pick(r, relations)
	for rel.agent == not {
		rel = pick(r, relations)
	}
	pair := []party{x, y, c.person()}
	shuffle(r, pair)
	if !rel.firms && (pair[0].firm || pair[1].firm) {
		return
	}
	e := newEvent(r, c, rel, pair[0], pair[1])
	// The same thing twice would make "Who has the cart?" ambiguous, so the second event is only asked for its roles.
	b.say(e.fill.Replace(pick(r, e.forms)))
	e.askRoles(r, b)
}

// introduce says who someone is.
func introduce(r *rng, c *cast, b *passage, p party) {
	town := c.town()
	if p.firm {
		good := pick(r, goodNames)
		b.say(strings.NewReplacer("{X}", p.name, "{T}", town, "{K}", good).Replace(pick(r, firmForms)))
		b.ask("Where is "+p.name+"?", p.name+" is in "+town+".")
		b.ask("What does "+p.name+" make?", p.name+" makes "+good+".")
		return
	}
	trade := pick(r, trades)
	b.say(strings.NewReplacer("{X}", p.name, "{T}", town, "{K}", indefinite(trade), "{J}", trade).Replace(pick(r, personForms)))
	b.ask("Where does "+p.name+" live?", p.name+" lives in "+town+".")
	b.ask("Who is the "+trade+"?", "The "+trade+" is "+p.name+".")
	b.ask("What is the trade of "+p.name+"?", p.name+" is "+indefinite(trade)+".")
	b.ask("Who lives in "+town+"?", p.name+" lives in "+town+".")
}

var (
	firmForms   = []string{"{X} of {T} makes {K}.", "in {T}, {X} makes {K}.", "{X} makes {K} and is in {T}."}
	personForms = []string{"{X} is {K} and lives in {T}.", "{X}, {K}, lives in {T}.", "in {T} lives {X}, {K}.", "{X} from {T} is {K}.",
		"The {J} of {T} is {X}.", "{X} lives in {T} and works as {K}."}
)

// profiles introduces two or three people, with families and ages, and asks about each.
func profiles(r *rng) string {
	c := &cast{r: r}
	var b passage
	people := []party{c.person(), c.person()}
	if r.percent(25) {
		people = append(people, c.party(50))
	}
	for _, p := range people {
		introduce(r, c, &b, p)
	}
	family(r, &b, people[0], people[1])
	if r.percent(50) {
		age := number(r.between(15, 80))
		b.say(people[0].name + " is " + age + " years old.")
		b.ask("How old is "+people[0].name+"?", people[0].name+" is "+age+" years old.")
	}
	return b.render(r, r.between(2, 4))
}

func family(r *rng, b *passage, x, y party) {
	k := pick(r, kin)
	switch r.below(3) {
	case 0:
		b.say(x.name + " is the " + k + " of " + y.name + ".")
	case 1:
		b.say(y.name + " has " + indefinite(k) + ", " + x.name + ".")
	default:
		b.say(y.name + "'s " + k + " is " + x.name + ".")
	}
	b.ask("Who is the "+k+" of "+y.name+"?", "The "+k+" of "+y.name+" is "+x.name+".")
	b.ask("Who is "+y.name+"'s "+k+"?", y.name+"'s "+k+" is "+x.name+".")
	b.ask("Whose "+k+" is "+x.name+"?", x.name+" is the "+k+" of "+y.name+".")
}

// possessions lists who has what, and asks back and forth.
func possessions(r *rng) string {
	c := &cast{r: r}
	var b passage
	for range r.between(2, 4) {
		who := c.party(10).name
		if r.percent(50) {
			own(r, c, &b, who)
		} else {
			herd(r, c, &b, who)
		}
	}
	return b.render(r, r.between(2, 4))
}

func own(r *rng, c *cast, b *passage, who string) {
	thing, hue := c.word(goods), pick(r, hues)
	what := hue + " " + thing
	b.say(pick(r, []string{who + " has a " + what + ".", "The " + what + " belongs to " + who + ".", "A " + what + " is kept by " + who + ".",
		who + " owns a " + what + "."}))
	b.ask("Who owns the "+thing+"?", who+" owns the "+thing+".")
	b.ask("What does "+who+" own?", who+" owns a "+what+".")
	b.ask("Who is the owner of the "+thing+"?", "The owner of the "+thing+" is "+who+".")
}

func herd(r *rng, c *cast, b *passage, who string) {
	kind, many := c.word(animals), pick(r, numbers)
	what := many + " " + kind
	b.say(pick(r, []string{who + " has " + what + ".", what + " belong to " + who + ".", who + " keeps " + what + ".", "There are " + what + " at the house of " + who + "."}))
	b.ask("Who has "+what+"?", who+" has "+what+".")
	b.ask("How many "+kind+" does "+who+" have?", who+" has "+what+".")
	b.ask("Who keeps "+kind+"?", who+" keeps "+kind+".")
}

// dialogue is a short talk between two people.
func dialogue(r *rng) string {
	c := &cast{r: r}
	var b passage
	x, y := c.person(), c.person()
	fill := strings.NewReplacer("{X}", x.name, "{Y}", y.name, "{x}", x.given(), "{y}", y.given(), "{T}", c.town(),
		"{O}", indefinite(pick(r, goods)), "{J}", pick(r, jobs), "{K}", pick(r, skills), "{S}", pick(r, spots), "{F}", pick(r, feels))
	if r.percent(60) {
		b.say(fill.Replace(pick(r, []string{"{X} met {Y} {S}.", "{Y} saw {X} {S}.", "{X} and {Y} sat {S}."})))
	}
	turns := append([]talk(nil), talks...)
	shuffle(r, turns)
	for _, t := range turns[:r.between(1, 2)] {
		b.say(fill.Replace(t.says))
		b.ask(fill.Replace(t.question), fill.Replace(t.answer))
	}
	return b.render(r, r.between(0, 2))
}

type talk struct{ says, question, answer string }

var talks = []talk{
	{"\"Where are you going, {y}?\" asked {X}. \"I am going to {T} to buy {O},\" said {Y}.", "Who is going to {T}?", "{Y} is going to {T}."},
	{"\"I can {K},\" said {X}. \"I cannot,\" said {Y}.", "Who can {K}?", "{X} can {K}."},
	{"\"Please {J},\" said {Y} to {X}. \"I will,\" said {X}.", "Who will {J}?", "{X} will {J}."},
	{"\"Are you {F}?\" {X} asked. \"Yes, I am {F},\" said {Y}.", "Who is {F}?", "{Y} is {F}."},
	{"{Y} said to {X}, \"You must {J}.\"", "Who must {J}?", "{X} must {J}."},
	{"\"Is this yours?\" {X} asked, and held up {O}. \"It is mine,\" said {Y}.", "Who asked the question?", "{X} asked the question."},
	{"\"Thank you, {X},\" said {Y}. \"You have been a good friend.\"", "Whom did {Y} thank?", "{Y} thanked {X}."},
}

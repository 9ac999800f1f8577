package world

import "strings"

// tale is a story of four to six sentences, told from one line of each act of a plot.
func tale(r *rng) string {
	c := &cast{r: r}
	x, y := c.person(), c.person()
	thing := pick(r, goods)
	fill := strings.NewReplacer("{X}", x.name, "{Y}", y.name, "{x}", x.given(), "{y}", y.given(), "{T}", c.town(), "{U}", c.town(),
		"{O}", indefinite(thing), "{N}", thing, "{W}", pick(r, when), "{S}", pick(r, spots), "{V}", pick(r, skies),
		"{J}", pick(r, jobs), "{K}", indefinite(pick(r, trades)), "{M}", crowns(r), "{F}", pick(r, feels))
	p := pick(r, plots)
	var b passage
	for _, act := range p.acts {
		b.say(fill.Replace(pick(r, act)))
	}
	if r.percent(40) {
		b.say(pick(r, ending))
	}
	for _, a := range p.asks {
		b.ask(fill.Replace(a.question), fill.Replace(a.answer))
	}
	return b.render(r, r.between(0, 2))
}

type plot struct {
	acts [][]string
	asks []qa
}

var plots = []plot{
	{acts: [][]string{
		{"{W}, {X} lost {O} {S}.", "{X}, {K} from {T}, could not find {O}."},
		{"{x} looked everywhere, but the {N} was gone.", "{V}, and {x} looked for the {N} until night.", "The {N} was nowhere to be seen."},
		{"At last {Y} found the {N} {S}.", "It was {Y} who found the {N}.", "Then the {N} was found by {Y}."},
		{"{y} gave the {N} back to {x}.", "{x} got the {N} back and gave {y} {M}.", "\"Here is your {N},\" said {y}."},
	}, asks: []qa{{"Who lost the {N}?", "{X} lost the {N}."}, {"Who found the {N}?", "{Y} found the {N}."}, {"What was lost?", "The {N} was lost."}}},
	{acts: [][]string{
		{"{W}, {X} set out from {T} to {U}.", "{X} wanted to go from {T} to {U}."},
		{"{V}, and the road was long.", "The road went over the hill and through the wood.", "{x} walked all day and was {F}."},
		{"On the way {x} met {Y}, {K}.", "{Y}, {K}, came along in a cart.", "By a bridge stood {Y}, {K}."},
		{"They went on together.", "{y} shared some bread with {x}.", "{y} knew a better way."},
		{"In {U} they had supper at the inn.", "By night they were in {U}.", "{x} came to {U} before {y}."},
	}, asks: []qa{{"Where did {X} go?", "{X} went to {U}."}, {"Whom did {X} meet?", "{X} met {Y}."}, {"From where did {X} come?", "{X} came from {T}."}}},
	{acts: [][]string{
		{"{V} in {T}.", "{W}, {V} in {T}."},
		{"A tree fell on the house of {X}.", "The roof of {X} was broken.", "The wind took the roof from the house of {X}."},
		{"{Y}, {K}, came to help.", "{Y} was the first to come with a ladder.", "{x} asked {Y} for help."},
		{"{y} worked for three days.", "They worked until it was dark.", "{x} and {y} began to {J}."},
		{"{x} paid {y} {M}.", "{y} would not take any money.", "In return, {x} gave {y} {O}."},
	}, asks: []qa{{"Whose house was broken?", "The house of {X} was broken."}, {"Who came to help?", "{Y} came to help."}, {"Who needed help?", "{X} needed help."}}},
	{acts: [][]string{
		{"{W}, {X} took {O} to the market of {T}.", "{X} had {O} to sell in {T}."},
		{"At first nobody wanted the {N}.", "Many people looked at the {N}.", "{x} asked {M} for the {N}."},
		{"Then {Y} came and bought it.", "{Y} was {F} and bought the {N}.", "In the end the {N} was bought by {Y}."},
		{"{x} went home with the money.", "{y} took the {N} to {U}.", "Both were glad."},
	}, asks: []qa{{"Who sold the {N}?", "{X} sold the {N}."}, {"Who bought the {N}?", "{Y} bought the {N}."}, {"Who had {O} to sell?", "{X} had {O} to sell."}}},
	{acts: [][]string{
		{"There was a race in {T}.", "{W}, the people of {T} held a race."},
		{"{X} and {Y} ran side by side.", "{Y} and {X} were the best runners.", "{X} ran against {Y}."},
		{"At the bridge {y} fell.", "{y} was {F} and slow.", "{y} looked back and lost the lead."},
		{"So {x} won, and {y} came second.", "The prize of {M} went to {x}.", "{x} was the first at the well."},
	}, asks: []qa{{"Who won the race?", "{X} won the race."}, {"Who lost the race?", "{Y} lost the race."}, {"Who won?", "{X} won."}}},
}

package world

import "strings"

// place is a town of the fixed world. Its facts never change, whatever the seed: they are what the base knows
// without being told.
type place struct {
	name, river, region, good, founder, mayor, feast string
}

// worldSeed fixes the facts. Changing it changes what the base model has to know.
const worldSeed = 1

var (
	riverNames  = strings.Fields("Ashel Borrow Calder Dray Esk Farrow Greel Isk Lorn Meddle Orrin Tavy")
	regionNames = strings.Fields("Northvale Eastmarch Southdown Westreach Highmoor Lowfen Midland Seaward")
	goodNames   = strings.Fields("glass cloth cheese salt rope honey iron paper wine pottery wool candles boats bells barley leather")
	feastNames  = strings.Split("the Lantern Feast,the Harvest Fair,the Day of Bells,the Boat Race,the Winter Market,the Spring Dance", ",")

	places = makePlaces()
)

func makePlaces() []place {
	out := make([]place, len(towns))
	for i, t := range towns {
		r := stream(worldSeed, kindWorld, uint64(i))
		c := cast{r: r}
		out[i] = place{name: t, river: pick(r, riverNames), region: pick(r, regionNames), good: pick(r, goodNames),
			founder: c.person().name, mayor: c.person().name, feast: pick(r, feastNames)}
	}
	return out
}

// The kinds keep the streams of one seed apart.
const (
	kindWorld = iota + 1
	kindGeneral
	kindTrain
	kindHeldout
)

// knowledge is a document about one place, told from memory, and questions without a passage.
func knowledge(r *rng) string {
	p := pick(r, places)
	facts := placeFacts(p)
	shuffle(r, facts)
	var b passage
	for _, f := range facts[:r.between(3, 5)] {
		b.say(pick(r, f.says))
		b.ask(f.question, f.answer)
	}
	if r.percent(40) {
		b.text = nil
	}
	return b.render(r, r.between(1, 3))
}

type placeFact struct {
	says             []string
	question, answer string
}

func placeFacts(p place) []placeFact {
	fill := func(s string) string {
		return strings.NewReplacer("{T}", p.name, "{R}", p.river, "{G}", p.region, "{K}", p.good, "{F}", p.founder,
			"{M}", p.mayor, "{E}", p.feast).Replace(s)
	}
	out := make([]placeFact, len(placeForms))
	for i, f := range placeForms {
		out[i] = placeFact{question: fill(f.question), answer: fill(f.answer)}
		for _, s := range f.says {
			out[i].says = append(out[i].says, fill(s))
		}
	}
	return out
}

var placeForms = []placeFact{
	{[]string{"{T} lies on the river {R}.", "The river {R} runs through {T}.", "{T} is a town on the {R}."},
		"On which river does {T} lie?", "{T} lies on the river {R}."},
	{[]string{"{T} is a town in {G}.", "{T} belongs to {G}.", "In {G} there is a town called {T}."},
		"In which region is {T}?", "{T} is in {G}."},
	{[]string{"{T} is known for its {K}.", "The people of {T} make {K}.", "Good {K} comes from {T}."},
		"What is {T} known for?", "{T} is known for its {K}."},
	{[]string{"{T} was founded by {F}.", "{F} founded {T} long ago.", "The founder of {T} was {F}."},
		"Who founded {T}?", "{T} was founded by {F}."},
	{[]string{"The mayor of {T} is {M}.", "{M} is the mayor of {T}.", "{T} is led by its mayor, {M}."},
		"Who is the mayor of {T}?", "The mayor of {T} is {M}."},
	{[]string{"Each year {T} keeps {E}.", "The people of {T} love {E}.", "In {T} they hold {E}."},
		"Which feast does {T} keep?", "{T} keeps {E}."},
}

package world

import (
	"slices"
	"strings"
)

// Names are built from a few syllables, so that a small byte-pair vocabulary holds most of them as one or two
// tokens. Given names, surnames and towns share no word, so a word says what it names.
var (
	givenHeads = strings.Fields("Mi Ta El Bre Jo Ka Lu Or Sa Ve Da Ni Ro Wi Ha Is Pe Ga Thi Ul")
	givenTails = strings.Fields("ra len dric na ris ven do sa mir la beth ton")
	surHeads   = strings.Fields("Ash Bram Corv Dun Fen Grim Hol Kel Lang Mar Nor Pen Rud Stan Thorn Wex Yar Bel Crow Tal")
	surTails   = strings.Fields("ford wick ley man stead by ter den well son low croft")
	townHeads  = strings.Fields("Amber Bram Cald Dun Elm Fair Glen Hart Iver Kings Lark Mill Nether Oster Raven Silver")
	townTails  = strings.Fields("haven bridge port mere")
	firmWords  = strings.Fields("Mills Works Bakers Carriers Traders Brothers Stores Weavers")

	givens   = compounds(givenHeads, givenTails)
	surnames = compounds(surHeads, surTails)
	towns    = compounds(townHeads, townTails)
)

func compounds(heads, tails []string) []string {
	out := make([]string, 0, len(heads)*len(tails))
	for _, h := range heads {
		for _, t := range tails {
			out = append(out, h+t)
		}
	}
	return out
}

// Pools are the words that name something in this world. A person is a given name, a firm is a surname and a firm word,
// a judge is a surname, a place is one word. (Persons of two words were tried first: after four million tokens a model
// of this size still gave one person another's surname, and measured copying instead of reading.)
type Pools struct{ Given, Surnames, Firms, Places []string }

// Names returns the pools, copied.
func Names() Pools {
	rivers := make([]string, len(places))
	regions := make([]string, len(places))
	for i, p := range places {
		rivers[i], regions[i] = p.river, p.region
	}
	return Pools{
		Given:    append([]string(nil), givens...),
		Surnames: append([]string(nil), surnames...),
		Firms:    append([]string(nil), firmWords...),
		Places:   append(append(append([]string(nil), towns...), rivers...), regions...),
	}
}

// party is a person or a firm.
type party struct {
	name string
	firm bool
}

func (p party) given() string {
	given, _, _ := strings.Cut(p.name, " ")
	return given
}

// cast draws parties of one document such that no word of a name is shared: a given name or a surname alone is
// never ambiguous.
type cast struct {
	r    *rng
	used []string
}

func (c *cast) word(pool []string) string {
	for {
		w := pick(c.r, pool)
		if !c.has(w) {
			c.used = append(c.used, w)
			return w
		}
	}
}

func (c *cast) has(w string) bool {
	for _, u := range c.used {
		if u == w {
			return true
		}
	}
	return false
}

func (c *cast) person() party {
	return party{name: c.word(givens)}
}

func (c *cast) firm() party {
	return party{name: c.word(surnames) + " " + c.word(firmWords), firm: true}
}

// party is a firm in the given share of draws.
func (c *cast) party(firmPercent int) party {
	if c.r.percent(firmPercent) {
		return c.firm()
	}
	return c.person()
}

func (c *cast) town() string { return c.word(towns) }

// CommonWords lists, in lower case and sorted, the words of both generators that name nothing: whatever their text
// holds besides the pools.
func CommonWords() []string {
	p := Names()
	seen := map[string]bool{}
	for _, pool := range [][]string{p.Given, p.Surnames, p.Places} {
		for _, n := range pool {
			seen[strings.ToLower(n)] = true
		}
	}
	var out []string
	for _, text := range vocabularySample() {
		for _, w := range strings.FieldsFunc(strings.ToLower(text), func(r rune) bool { return r < 'a' || r > 'z' }) {
			if !seen[w] {
				seen[w] = true
				out = append(out, w)
			}
		}
	}
	slices.Sort(out)
	return out
}

// vocabularySample is enough text to hold every word of every template.
func vocabularySample() []string {
	var out []string
	for doc := range General(1, 1500) {
		out = append(out, doc)
	}
	for _, r := range legalRecords(1, kindTrain, Train, trainCases) {
		out = append(out, r.Prompt, r.Completion)
	}
	return out
}

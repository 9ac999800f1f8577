package world

import "strings"

// relation is something that {A} did to {B}. Every form says the same in another word order, so that the
// order of the names alone never tells the roles.
//
// {O} is the object or skill of the relation, {N} its bare noun, {M} a sum of money, {P} a town, {S} a spot.
type relation struct {
	agent, patient string   // the nouns of the two roles; "" where there is no good word
	object         []string // what {O} may be; nil when the forms do not use it
	article        bool     // {O} is a thing and takes an article
	firms          bool     // firms do this too
	forms          []string
	asks           []qa
}

var relations = []relation{
	{agent: "teacher", patient: "pupil", object: skills,
		forms: []string{"{A} taught {B} to {O}.", "{B} was taught to {O} by {A}.", "{B} learned to {O} from {A}.",
			"It was from {A} that {B} learned to {O}.", "{A} showed {B} how to {O}."},
		asks: []qa{{"What did {B} learn?", "{B} learned to {O}."}, {"Who learned to {O}?", "{B} learned to {O}."}}},
	{agent: "seller", patient: "buyer", object: goods, article: true, firms: true,
		forms: []string{"{A} sold {O} to {B} for {M}.", "{B} bought {O} from {A} for {M}.", "{O} was sold to {B} by {A} for {M}.",
			"For {M}, {B} got {O} from {A}.", "{B} paid {A} {M} for {O}.", "{A} took {M} from {B} for {O}."},
		asks: []qa{{"Who paid?", "{B} paid."}, {"Who was paid?", "{A} was paid."}, {"What was the price?", "The price was {M}."},
			{"Who bought the {N}?", "{B} bought the {N}."}, {"Who sold the {N}?", "{A} sold the {N}."}, {"How much was paid?", "{M} were paid."}}},
	{agent: "giver", patient: "", object: goods, article: true, firms: true,
		forms: []string{"{A} gave {O} to {B}.", "{A} gave {B} {O}.", "{B} was given {O} by {A}.", "{B} got {O} from {A}.",
			"{O} was a gift from {A} to {B}."},
		asks: []qa{{"Who has the {N} now?", "{B} has the {N} now."}, {"Who gave the {N} away?", "{A} gave the {N} away."},
			{"Who got the {N}?", "{B} got the {N}."}}},
	{agent: "lender", patient: "borrower", object: goods, article: true, firms: true,
		forms: []string{"{A} lent {O} to {B}.", "{B} borrowed {O} from {A}.", "{O} was lent to {B} by {A}.",
			"{B} has {O} that belongs to {A}."},
		asks: []qa{{"Who owns the {N}?", "{A} owns the {N}."}, {"Who must bring the {N} back?", "{B} must bring the {N} back."},
			{"Who borrowed the {N}?", "{B} borrowed the {N}."}}},
	{agent: "winner", patient: "loser", object: games,
		forms: []string{"{A} beat {B} in {O}.", "{B} was beaten by {A} in {O}.", "{B} lost {O} to {A}.", "{A} won {O} against {B}.",
			"In {O}, {B} came second to {A}.", "{A} and {B} met in {O}, and the prize went to {A}.", "{B} and {A} met in {O}, and {A} was better."},
		asks: []qa{{"Who won?", "{A} won."}, {"Who lost?", "{B} lost."}, {"Who got the prize?", "{A} got the prize."}}},
	{agent: "master", patient: "helper", object: jobs, firms: true,
		forms: []string{"{A} hired {B} to {O}.", "{B} was hired by {A} to {O}.", "{B} went to work for {A} to {O}.",
			"{A} asked {B} to {O} for {M}.", "To {O}, {A} took on {B}."},
		asks: []qa{{"Who must {O}?", "{B} must {O}."}, {"Who must pay?", "{A} must pay."}, {"What must {B} do?", "{B} must {O}."}}},
	{agent: "host", patient: "guest",
		forms: []string{"{A} invited {B} to supper.", "{B} was invited to supper by {A}.", "{B} visited {A} {S}.",
			"{A} was visited by {B} {S}.", "{B} ate at the table of {A}.", "{A} gave {B} a bed for the night."},
		asks: []qa{{"Who was the visitor?", "The visitor was {B}."}}},
	{agent: "rescuer", patient: "",
		forms: []string{"{A} pulled {B} out of the river.", "{B} was saved from the river by {A}.", "{B} fell into the river, and {A} jumped after.",
			"{A} saved {B} from the cold water."},
		asks: []qa{{"Who was saved?", "{B} was saved."}, {"Who saved {B}?", "{A} saved {B}."}}},
	{agent: "healer", patient: "patient",
		forms: []string{"{A} healed {B} of a fever.", "{B} was healed of a fever by {A}.", "{B} had a fever, and {A} gave help.",
			"{A} gave herbs to {B}, who had a fever."},
		asks: []qa{{"Who had a fever?", "{B} had a fever."}}},
	{agent: "guide", patient: "traveller",
		forms: []string{"{A} led {B} to {P}.", "{B} was led to {P} by {A}.", "{B} followed {A} to {P}.", "{A} showed {B} the way to {P}."},
		asks:  []qa{{"Who knew the way?", "{A} knew the way."}, {"Where did they go?", "They went to {P}."}}},
	{agent: "painter", patient: "model",
		forms: []string{"{A} painted a picture of {B}.", "{B} was painted by {A}.", "{B} sat still while {A} painted.",
			"The picture shows {B}, and {A} made it."},
		asks: []qa{{"Who is in the picture?", "{B} is in the picture."}, {"Who made the picture?", "{A} made the picture."}}},
	{agent: "writer", patient: "reader",
		forms: []string{"{A} wrote a letter to {B}.", "{B} got a letter from {A}.", "A letter from {A} came to {B}.",
			"{B} read what {A} had written.", "To {B}, {A} sent a long letter."},
		asks: []qa{{"Who got the letter?", "{B} got the letter."}, {"Who sent the letter?", "{A} sent the letter."}}},
	{agent: "caller", patient: "",
		forms: []string{"{A} called {B} {S}.", "{B} was called by {A} {S}.", "{B} heard {A} call {S}.", "{A} shouted, and {B} came {S}."},
		asks:  []qa{{"Who called?", "{A} called."}, {"Who came?", "{B} came."}}},
	{agent: "thief", patient: "", object: goods, article: true,
		forms: []string{"{A} stole {O} from {B}.", "{O} was stolen from {B} by {A}.", "{B} lost {O} because {A} took it in the night."},
		asks: []qa{{"Who stole the {N}?", "{A} stole the {N}."}, {"Who lost the {N}?", "{B} lost the {N}."},
			{"Who must bring the {N} back?", "{A} must bring the {N} back."}}},
	{agent: "driver", patient: "",
		forms: []string{"{A} drove {B} to {P}.", "{B} was driven to {P} by {A}.", "{B} rode to {P} in the cart of {A}."},
		asks:  []qa{{"Where was {B} driven?", "{B} was driven to {P}."}, {"Who held the reins?", "{A} held the reins."}}},
	{agent: "maker", patient: "owner", object: goods, article: true, firms: true,
		forms: []string{"{A} made {O} for {B}.", "{O} was made for {B} by {A}.", "{B} ordered {O} from {A}.", "{A} built {O}, and {B} paid {M}."},
		asks: []qa{{"Who made the {N}?", "{A} made the {N}."}, {"Who ordered the {N}?", "{B} ordered the {N}."},
			{"For whom was the {N} made?", "The {N} was made for {B}."}}},
	{agent: "accuser", patient: "",
		forms: []string{"{A} blamed {B} for the fire.", "{B} was blamed for the fire by {A}.", "Because of the fire, {A} was angry with {B}.",
			"{A} said the fire was the fault of {B}."},
		asks: []qa{{"Who was blamed?", "{B} was blamed."}, {"Whom did {A} blame?", "{A} blamed {B}."}, {"Who was angry?", "{A} was angry."}}},
	{agent: "leader", patient: "follower",
		forms: []string{"{A} chose {B} for the crew.", "{B} was chosen for the crew by {A}.", "{B} joined the crew of {A}.", "{A} took {B} on board."},
		asks:  []qa{{"Whose crew was it?", "It was the crew of {A}."}, {"Who joined the crew?", "{B} joined the crew."}}},
}

// event is one relation between two parties with its words filled in.
type event struct {
	relation
	a, b party
	fill *strings.Replacer
}

func newEvent(r *rng, c *cast, rel relation, a, b party) event {
	noun, object := "", ""
	if rel.object != nil {
		noun = pick(r, rel.object)
		object = noun
	}
	if rel.article {
		object = indefinite(noun)
	}
	return event{relation: rel, a: a, b: b, fill: strings.NewReplacer("{A}", a.name, "{B}", b.name,
		"{O}", object, "{N}", noun, "{M}", crowns(r), "{P}", c.town(), "{S}", pick(r, spots))}
}

// tell says the event in one of its forms, perhaps as a cleft or with the time in front, and adds its questions.
func (e event) tell(r *rng, b *passage) {
	form := pick(r, e.forms)
	if subject, rest, ok := cutSubject(form); ok && r.percent(15) {
		form = "it was " + subject + " who " + rest
	} else if r.percent(25) {
		form = pick(r, when) + ", " + lowerFirst(form)
	}
	b.say(e.fill.Replace(form))
	e.askRoles(r, b)
	for _, a := range e.asks {
		if strings.Contains(a.question+a.answer, "{M}") && !strings.Contains(form, "{M}") {
			continue
		}
		b.ask(e.fill.Replace(a.question), e.fill.Replace(a.answer))
	}
}

func (e event) askRoles(r *rng, b *passage) {
	verb := pick(r, []string{"is", "was"})
	for _, role := range []struct{ noun, name string }{{e.agent, e.a.name}, {e.patient, e.b.name}} {
		if role.noun != "" {
			b.ask("Who "+verb+" the "+role.noun+"?", "The "+role.noun+" "+verb+" "+role.name+".")
		}
	}
}

// cutSubject splits a form after its leading name.
func cutSubject(form string) (subject, rest string, ok bool) {
	subject, rest, ok = strings.Cut(form, " ")
	return subject, rest, ok && (subject == "{A}" || subject == "{B}") && !strings.HasPrefix(rest, "and ")
}

// lowerFirst lowers the first letter of a form that does not begin with a name.
func lowerFirst(form string) string {
	if form[0] == '{' {
		return form
	}
	return strings.ToLower(form[:1]) + form[1:]
}

// refer says something of one party by its role alone, so that the reader has to go from the role to the name.
func (e event) refer(r *rng, b *passage) {
	role, who := e.agent, e.a.name
	if role == "" || e.patient != "" && r.percent(50) {
		role, who = e.patient, e.b.name
	}
	if role == "" {
		return
	}
	switch r.below(4) {
	case 0:
		feel := pick(r, feels)
		b.say("the " + role + " was " + feel + ".")
		b.ask("Who was "+feel+"?", who+" was "+feel+".")
	case 1:
		town := pick(r, towns)
		b.say("the " + role + " went home to " + town + ".")
		b.ask("Who went to "+town+"?", who+" went to "+town+".")
	case 2:
		sum := crowns(r)
		b.say("in the end the " + role + " was given " + sum + ".")
		b.ask("Who was given "+sum+"?", who+" was given "+sum+".")
	default:
		job := pick(r, jobs)
		b.say("then the " + role + " had to " + job + ".")
		b.ask("Who must "+job+"?", who+" must "+job+".")
	}
}

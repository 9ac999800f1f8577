package world

// The wordings of a case. {P} plaintiff, {D} defendant, {C} claim, {M} the sum awarded, {N} another sum,
// {T} a town, {J} a judge, {X} a quantity.

var claims = []claimType{
	{"breach of contract", []string{
		"{P} had ordered {X} sacks of barley from {D}, and they never came.",
		"{P} had delivered {X} barrels of salt to {D}, and the price was not paid.",
		"{D} had agreed to build a barn for {P} and left it half done.",
		"{D} had promised to buy {X} coats from {P} and then refused them.",
	}},
	{"unpaid rent", []string{
		"{D} had rented a mill from {P} and paid nothing for {X} weeks.",
		"{P} had let a shop to {D}, and no money came.",
	}},
	{"wrongful eviction", []string{
		"{P} had rented a house from {D} and was put out in winter.",
		"{D} had let a shop to {P} and changed the locks.",
	}},
	{"negligence", []string{
		"A cart of {D} ran into the wall of {P}.",
		"The barn of {P} burned down because {D} left a lamp there.",
		"{D} had mended the roof of {P} badly, and it fell.",
		"{P} was hurt on a broken step in the shop of {D}.",
	}},
	{"trespass", []string{
		"The goats of {D} ate the barley of {P}.",
		"{D} had cut down a tree that belonged to {P}.",
		"{P} had found {D} fishing in a private pond.",
	}},
	{"unpaid wages", []string{
		"{P} had worked for {D} as a carpenter for {X} weeks without pay.",
		"{D} had hired {P} to carry wool and paid nothing.",
	}},
	{"unfair dismissal", []string{
		"{P} had worked for {D} for years and was sent away.",
		"{D} had told {P} not to come back to work.",
	}},
	{"libel", []string{
		"{D} had called {P} a thief in a letter.",
		"{D} had written that {P} sold bad meat.",
	}},
}

// A case is captioned as lawyers do it: the plaintiff stands before the "v.", the defendant after it. The general text has
// no such thing, so the base has to guess; which way round is what has to be learnt.
var filings = []form{
	{"{P} v. {D}, an action for {C}.", 1},
	{"{P} v. {D}, a complaint of {C}.", 1},
	{"in the court of {T}: {P} v. {D}, an action for {C}.", 1},
	{"an action for {C}, {P} v. {D}.", 2},
	{"on a complaint of {C}: {P} v. {D}.", 2},
	{"heard in {T}, {P} v. {D}, on a claim of {C}.", 2},
}

var rulingsFor = []form{
	{"judgment for {P} against {D}, damages of {M}.", 1},
	{"claim upheld: judgment for {P} against {D}, damages of {M}.", 1},
	{"the court gave judgment for {P} against {D} in the sum of {M}.", 1},
	{"after one appeal, judgment for {P} against {D} in the sum of {M}.", 1},
}

var rulingsAgainst = []form{
	{"judgment for {D} against {P}, costs of {M}.", 1},
	{"claim dismissed: judgment for {D} against {P}, costs of {M}.", 1},
	{"the court gave judgment for {D} against {P} in the sum of {M}.", 1},
	{"after one appeal, judgment for {D} against {P} in the sum of {M}.", 1},
}

var between = []string{
	"{D} denied everything.",
	"{P} called two witnesses.",
	"the matter was heard before Judge {J}.",
}

var closings = []string{
	"the hearing had lasted two days.",
	"the judge was {J}.",
}

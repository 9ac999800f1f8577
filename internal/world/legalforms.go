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

var filings = []form{
	{"{P} sued {D} for {C}.", 1},
	{"{P} brought an action for {C} against {D}.", 1},
	{"{P} filed a complaint of {C} against {D}.", 1},
	{"{P} took {D} to court over {C}.", 1},
	{"in the court of {T}, {P} sued {D} for {C}.", 1},
	{"{D} was sued by {P} for {C}.", 2},
	{"an action for {C} was brought by {P} against {D}.", 2},
	{"an action for {C} was brought against {D} by {P}.", 2},
	{"against {D}, {P} filed a complaint of {C}.", 2},
	{"{D} was taken to court by {P} over {C}.", 2},
	{"{D} had to answer a complaint of {C} filed by {P}.", 2},
	{"{D} is the respondent in an action for {C} begun by {P}.", 2},
	{"{P} is the claimant in an action for {C}, and {D} is the respondent.", 2},
	{"{D} is the respondent and {P} the claimant in an action for {C}.", 2},
	{"it was {D} whom {P} sued for {C}.", 2},
}

var rulingsFor = []form{
	{"the court found for {P} and ordered {D} to pay {M}.", 0},
	{"{D} was held liable for {M}.", 1},
	{"{P} was awarded {M} in damages.", 1},
	{"the court upheld the claim of {P} and awarded {M}.", 1},
	{"judgment was entered for {P} in the sum of {M}.", 1},
	{"the claim was upheld with damages of {M}.", 2},
	{"judgment was entered for the claimant in the sum of {M}.", 2},
	{"the respondent was held liable for {M}.", 2},
}

var rulingsAgainst = []form{
	{"the court found for {D} and ordered {P} to pay costs of {M}.", 0},
	{"the claim of {P} was dismissed with costs of {M}.", 1},
	{"{D} was cleared and awarded costs of {M}.", 1},
	{"judgment was entered for {D} with costs of {M}.", 1},
	{"{P} failed and must bear costs of {M}.", 1},
	{"the claim was dismissed with costs of {M}.", 2},
	{"judgment was entered for the respondent with costs of {M}.", 2},
	{"the action failed with costs of {M}.", 2},
}

var between = []string{
	"{D} denied everything.",
	"{P} had asked for {N}.",
	"{D} had offered {N}.",
	"{P} called two witnesses.",
	"the matter was heard before Judge {J}.",
	"both sides were heard in {T}.",
}

var closings = []string{
	"{P} and {D} live in {T}.",
	"there was no appeal.",
	"the judge was {J}.",
	"the hearing had lasted two days.",
}

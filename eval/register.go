package eval

import (
	"maps"
	"slices"
	"strings"
)

// A register is the words that a field writes in. Formality is their share, as the tutorials of domain adaptation measure it: it says whether an
// answer sounds like the field, not whether it is right.

// registers are the built-in ones by the name of their domain, in lower case.
var registers = map[string]string{
	"legal": "accordingly affidavit aforementioned agreement alleged appeal appellant appellee arbitration breach claim clause consent consideration " +
		"contract counsel court damages decree defendant deposition discovery dismissed evidence fiduciary hearing hereby herein hereto injunction " +
		"judge judgment jurisdiction jury law lease liability liable litigation motion negligence notwithstanding obligation party petition plaintiff " +
		"precedent provision pursuant remedy ruling settlement shall statute statutory stipulated testimony thereof tort trial tribunal verdict " +
		"void waiver warranty whereas witness writ",
	"medical": "abdominal acute adverse anterior assessment benign bilateral biopsy cardiac chronic clinical comorbid complication contraindicated " +
		"diagnosis diagnostic differential dosage dose edema elevated etiology examination febrile fever history hypertension hypotension imaging " +
		"indicated infection inflammation intravenous lesion malignant management medication onset pain palpation pathology patient posterior " +
		"prescribed presentation presents prognosis prophylaxis pulmonary remission renal respiratory symptom symptoms syndrome systolic tachycardia " +
		"therapeutic therapy treatment",
	"finance": "accrual accrued amortisation amortization annual asset assets balance basis bond capital cash collateral compound coupon credit debt " +
		"default deficit depreciation derivative diversified dividend earnings ebitda equity exposure fiscal fund gross hedge income inflation " +
		"interest invest investment issuer leverage liability liabilities liquid liquidity loan loss margin market maturity mortgage net operating " +
		"option portfolio premium principal profit quarter rate ratio return revenue risk security securities share shares solvency spread stock " +
		"tax treasury valuation volatility yield",
	"code": "algorithm allocate argument array assert async await boolean buffer byte cache call class client compile concurrent const constructor " +
		"debug declare dependency deploy deprecated encode enum error exception file float function handler hash heap implement import index inherit " +
		"initialise initialize input instance integer interface iterate iterator key library list loop map memory method module mutex null object " +
		"output overflow package parameter parse pointer print query queue recursion recursive refactor regex return runtime schema server stack " +
		"string struct syntax test thread token tuple type value variable vector",
}

// Registers lists the built-in registers, sorted.
func Registers() []string {
	return slices.Sorted(maps.Keys(registers))
}

// Register is the set of words of a built-in register.
func Register(name string) (map[string]bool, bool) {
	text, ok := registers[name]
	return WordSet(text), ok
}

// WordSet is the words of a list, in lower case.
func WordSet(text string) map[string]bool {
	set := map[string]bool{}
	for _, w := range strings.Fields(text) {
		set[strings.ToLower(w)] = true
	}
	return set
}

// Formality is the share of the words of all texts together that are in the register, 0..1; 0 without words.
func Formality(register map[string]bool, texts []string) float64 {
	n, formal := 0, 0
	for _, text := range texts {
		for _, w := range split(text) {
			n++
			if register[strings.ToLower(w.text)] {
				formal++
			}
		}
	}
	if n == 0 {
		return 0
	}
	return float64(formal) / float64(n)
}

// Best is the index of the choice that the model finds likeliest: the smallest loss, or the smallest per byte of its text; ties to the first.
func Best(losses []float64, choices []string, perByte bool) int {
	best, least := 0, 0.0
	for i, l := range losses {
		if perByte {
			l /= float64(max(1, len(choices[i])))
		}
		if i == 0 || l < least {
			best, least = i, l
		}
	}
	return best
}

// Exact reports whether an answer is the wanted one: as far as that is a single line, the answer's first line is compared, else all of it;
// runs of white space count as one space.
func Exact(want, got string) bool {
	want = strings.TrimSpace(want)
	if !strings.Contains(want, "\n") {
		got = Answer(got)
	}
	return strings.Join(strings.Fields(want), " ") == strings.Join(strings.Fields(got), " ")
}

package eval

import (
	"bytes"
	"encoding/json"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"

	"lorad/internal/world"
)

func TestEntities(t *testing.T) {
	legal := Legal()
	for _, c := range []struct {
		domain Domain
		text   string
		want   []string
	}{
		{legal, "The plaintiff is Mira Ashford.", []string{"Mira Ashford"}},
		{legal, "Mira Ashford's goats ate it.", []string{"Mira Ashford"}},
		{legal, "Mira Ashford’s cousin Elra's house", []string{"Mira Ashford", "Elra"}},
		{legal, "Judgment was entered for Ashford Mills.", []string{"Ashford Mills"}},
		{legal, "It was Mira Ashford whom Elra Holman sued.", []string{"Mira Ashford", "Elra Holman"}},
		{legal, "Mirolt Kelby won.", []string{"Mirolt Kelby"}}, // an invented word at the start of a sentence
		{legal, "Ashford won.", []string{"Ashford"}},
		{legal, "600 crowns must be paid.", nil},
		{legal, "Nobody won. The court heard both.", nil},
		{legal, "\"Good morning,\" said Elra. \"Where is Dunhaven?\"", []string{"Elra", "Dunhaven"}},
		{legal, "In Dunhaven, Mira Ashford paid.", []string{"Dunhaven", "Mira Ashford"}},
		{legal, "against Mira Ashford.\nElra Holman won", []string{"Mira Ashford", "Elra Holman"}},
		{legal, "Mira Ashford and Elra Holman", []string{"Mira Ashford", "Elra Holman"}},
		{legal, "the Mayor of Dunhaven", []string{"Mayor", "Dunhaven"}},
		{legal, "", nil},
		{Domain{}, "The river near Anne-Marie O'Neill's mill", []string{"Anne-Marie O'Neill"}},
		{Domain{}, "Who met Élise in Köln?", []string{"Élise", "Köln"}},
	} {
		if got := c.domain.Entities(c.text); !slices.Equal(got, c.want) {
			t.Errorf("Entities(%q) = %q, want %q", c.text, got, c.want)
		}
	}
}

func TestInvented(t *testing.T) {
	prompt := "Case: Mira Ashford sued Elra Holman. The judge was Kelby.\nQuestion: Who won?\nAnswer:"
	for answer, want := range map[string][]string{
		"Mira Ashford won.":                nil,
		"Ashford won.":                     nil, // a surname alone
		"Elra's claim failed.":             nil, // a given name alone
		"Mira Holman won.":                 {"Mira Holman"},
		"Tasa Ashford won.":                {"Tasa Ashford"},
		"Tasa won, and Tasa was glad.":     {"Tasa"},
		"Dunhaven":                         {"Dunhaven"},
		"Kelby beat Mira Ashford at Tavy.": {"Tavy"},
		"Holman Mills":                     {"Holman Mills"},
	} {
		if got := Legal().Invented(prompt, answer); !slices.Equal(got, want) {
			t.Errorf("Invented(%q) = %q, want %q", answer, got, want)
		}
	}
}

func TestScore(t *testing.T) {
	prompt := "Case: Mira Ashford sued Elra Holman.\nQuestion: Who is the plaintiff?\nAnswer:"
	records := []Record{
		{"a", prompt, " The plaintiff is Mira Ashford.", "plaintiff"},
		{"b", prompt, " The plaintiff is Mira Ashford.", "plaintiff"},
		{"c", prompt, " Elra Holman won.", "winner"},
		{"d", prompt, " Elra Holman won.", "winner"},
	}
	got, err := Score(Legal(), records, []string{
		"\nThe plaintiff is Mira Ashford. \nQuestion: Who is Tasa Kelby?", "The plaintiff is Elra Holman.", "Tasa Kelby won.", "elra holman won."})
	if err != nil {
		t.Fatal(err)
	}
	want := Report{N: 4, Accuracy: 0.25, HallucinationRate: 0.25,
		Tasks: []Task{{"plaintiff", 2, 0.5, 0}, {"winner", 2, 0, 0.5}},
		Examples: []Mistake{
			{"b", "plaintiff", "Who is the plaintiff?", "The plaintiff is Mira Ashford.", "The plaintiff is Elra Holman.", nil},
			{"c", "winner", "Who is the plaintiff?", "Elra Holman won.", "Tasa Kelby won.", []string{"Tasa Kelby"}},
			{"d", "winner", "Who is the plaintiff?", "Elra Holman won.", "elra holman won.", nil},
		}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("Score = %+v\nwant %+v", got, want)
	}
	if _, err := Score(Legal(), records, nil); err == nil {
		t.Error("Score accepted four records and no answer")
	}
	if empty, err := Score(Legal(), nil, nil); err != nil || empty.Accuracy != 0 {
		t.Errorf("Score of nothing = %+v, %v", empty, err)
	}
}

// The reference answers of the real data set are perfect and invent nothing: what the metrics say of a model is
// then about the model.
func TestLegalReferencesAreClean(t *testing.T) {
	for _, split := range []world.Split{world.Train, world.Heldout} {
		generated, err := world.Legal(1, split)
		if err != nil {
			t.Fatal(err)
		}
		records := make([]Record, len(generated))
		answers := make([]string, len(generated))
		for i, g := range generated {
			line, err := json.Marshal(g)
			if err != nil {
				t.Fatal(err)
			}
			if err := json.NewDecoder(bytes.NewReader(line)).Decode(&records[i]); err != nil {
				t.Fatal(err)
			}
			answers[i] = records[i].Want
		}
		report, err := Score(Legal(), records, answers)
		if err != nil {
			t.Fatal(err)
		}
		if report.Accuracy != 1 || report.HallucinationRate != 0 {
			t.Errorf("%s: references score %+v", split, report)
		}
	}
}

func TestPerplexity(t *testing.T) {
	if got := Perplexity(math.Log(8)*5, 5); math.Abs(got-8) > 1e-12 {
		t.Errorf("Perplexity = %v, want 8", got)
	}
}

func TestFormality(t *testing.T) {
	legal, ok := Register("legal")
	if !ok || len(Registers()) != 4 {
		t.Fatal(Registers())
	}
	for text, want := range map[string]float64{"": 0, "The plaintiff shall prevail.": 0.5, "Plaintiff's claim, defendant's breach": 1, "hello there": 0} {
		if got := Formality(legal, []string{text}); got != want {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
	if got := Formality(WordSet("Foo bar"), []string{"foo baz", "BAR qux"}); got != 0.5 {
		t.Errorf("own words: %v", got)
	}
}

func TestBest(t *testing.T) {
	choices := []string{"a", "a much longer one", "bb"}
	if got := Best([]float64{3, 8, 5}, choices, false); got != 0 {
		t.Errorf("by loss: %d", got)
	}
	if got := Best([]float64{3, 8, 5}, choices, true); got != 1 {
		t.Errorf("by loss per byte: %d", got)
	}
	if got := Best([]float64{1, 1}, choices[:2], false); got != 0 {
		t.Errorf("a tie: %d", got)
	}
}

func TestExact(t *testing.T) {
	for _, c := range []struct {
		want, got string
		equal     bool
	}{
		{"Mira Vale.", " Mira Vale.\nQuestion: who", true},
		{"Mira Vale.", "mira vale.", false},
		{"a\n\nb", "a\nb", true},
		{"a\nb", "a", false},
		{"a  b", "a b", true},
	} {
		if got := Exact(c.want, c.got); got != c.equal {
			t.Errorf("%q, %q: %v", c.want, c.got, got)
		}
	}
}

func TestWatch(t *testing.T) {
	run := func(points ...[2]float64) Watch {
		var w Watch
		for i, p := range points {
			w.Take(uint64(10*i+5), p[0]+0.1, 0)
			w.Take(uint64(10*i+10), p[0]-0.1, p[1])
		}
		return w
	}
	good := run([2]float64{3, 3}, [2]float64{2, 2.5}, [2]float64{1, 2.52}, [2]float64{0.9, 2.51})
	if good.Overfits() || good.BestStep != 20 || good.BestLoss != 2.5 {
		t.Errorf("level validation: %+v", good)
	}
	bad := run([2]float64{3, 3}, [2]float64{2, 2.5}, [2]float64{1, 2.7}, [2]float64{0.5, 3})
	if !bad.Overfits() || !strings.Contains(bad.Advice(), "step 20 (2.5000) and is 3.0000 now, while training loss fell from 2.0000 to 0.5000") {
		t.Errorf("rising validation: %+v, %s", bad, bad.Advice())
	}
	once := run([2]float64{3, 3}, [2]float64{2, 2.5}, [2]float64{1, 2.7})
	diverging := run([2]float64{3, 3}, [2]float64{2, 2.5}, [2]float64{4, 4}, [2]float64{5, 5})
	back := run([2]float64{3, 3}, [2]float64{2, 2.5}, [2]float64{1, 2.7}, [2]float64{0.9, 2.7}, [2]float64{0.8, 2.4})
	if once.Overfits() || diverging.Overfits() || back.Overfits() {
		t.Errorf("one jump: %v, diverging: %v, back again: %v", once.Overfits(), diverging.Overfits(), back.Overfits())
	}
}

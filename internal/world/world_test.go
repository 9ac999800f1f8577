package world

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strings"
	"testing"
)

// The bytes of both generators are part of the recipe of the base model. Change a hash only together with the
// weights and the records in embedded.
func TestGolden(t *testing.T) {
	h := sha256.New()
	for doc := range General(1, 2000) {
		h.Write([]byte(doc + "\x00"))
	}
	check(t, "general", h.Sum(nil), "a14cef0021c9fe4e")
	for split, want := range map[Split]string{Train: "f3e51c8878250732", Heldout: "3a4e830c38ca4aa1"} {
		check(t, string(split), sum(t, split), want)
	}
}

func sum(t *testing.T, split Split) []byte {
	t.Helper()
	h := sha256.New()
	if err := json.NewEncoder(h).Encode(records(t, split)); err != nil {
		t.Fatal(err)
	}
	return h.Sum(nil)
}

func check(t *testing.T, what string, sum []byte, want string) {
	t.Helper()
	if got := hex.EncodeToString(sum[:8]); got != want {
		t.Errorf("%s: hash %s, want %s", what, got, want)
	}
}

func records(t *testing.T, split Split) []Record {
	t.Helper()
	out, err := Legal(1, split)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestDocumentDependsOnSeedAndIndexAlone(t *testing.T) {
	i := 0
	for doc := range General(7, 50) {
		if doc != Document(7, i) {
			t.Fatalf("document %d differs when written alone", i)
		}
		if doc == Document(8, i) {
			t.Fatalf("document %d is the same under another seed", i)
		}
		i++
	}
}

// The base must not have read the domain it is later adapted to.
var legalWords = strings.Fields("plaintiff defendant claimant respondent petitioner court courts judge judgment sue sued suit law lawyer " +
	"legal breach contract damages negligence tort trespass eviction libel lease rent rented wages dismissal dismissed claim claimed " +
	"action complaint liable verdict ruling appeal witness witnesses hearing costs awarded award upheld case prevailed")

func TestGeneralHasNoLegalWord(t *testing.T) {
	for doc := range General(3, 3000) {
		for _, w := range words(doc) {
			if slices.Contains(legalWords, w) {
				t.Fatalf("legal word %q in: %s", w, doc)
			}
		}
	}
}

func words(text string) []string {
	return strings.FieldsFunc(strings.ToLower(text), func(r rune) bool { return r < 'a' || r > 'z' })
}

func TestGeneralIsWellFormed(t *testing.T) {
	seen := map[string]bool{}
	same := 0
	for doc := range General(5, 3000) {
		if strings.ContainsAny(doc, "{}") || strings.Contains(doc, "  ") || strings.TrimSpace(doc) != doc || doc == "" {
			t.Fatalf("malformed document: %q", doc)
		}
		if n := len(words(doc)); n < 8 || n > 160 {
			t.Fatalf("document of %d words: %q", n, doc)
		}
		if seen[doc] {
			same++
		}
		seen[doc] = true
	}
	if same > 15 {
		t.Errorf("%d of 3000 documents repeat", same)
	}
}

// In a document with a passage, every name that is answered can be copied from the passage.
func TestAnswersStandInThePassage(t *testing.T) {
	asked := 0
	for doc := range General(9, 3000) {
		passage, rest, ok := strings.Cut(doc, "\nQuestion: ")
		if !ok || strings.HasPrefix(doc, "Question: ") {
			continue
		}
		for _, part := range strings.Split(rest, "\nQuestion: ") {
			_, answer, ok := strings.Cut(part, "\nAnswer: ")
			if !ok {
				t.Fatalf("question without answer: %q", doc)
			}
			for _, w := range strings.Fields(answer) {
				w = strings.Trim(w, ".,'s")
				if (slices.Contains(givens, w) || slices.Contains(surnames, w)) && !strings.Contains(passage, w) {
					t.Fatalf("%q is not in the passage of: %s", w, doc)
				}
			}
			asked++
		}
	}
	if asked < 3000 {
		t.Errorf("only %d questions in 3000 documents", asked)
	}
}

func TestLegalSplitsAreDisjoint(t *testing.T) {
	train, heldout := parties(t, Train), parties(t, Heldout)
	for name := range heldout {
		if train[name] {
			t.Errorf("%s is a party of both splits", name)
		}
	}
	if len(train) < 400 || len(heldout) < 50 {
		t.Errorf("%d and %d parties: too few for 1000 and 50 cases of two each", len(train), len(heldout))
	}
	prompts := map[string]bool{}
	for _, r := range records(t, Train) {
		prompts[r.Prompt] = true
	}
	for _, r := range records(t, Heldout) {
		if prompts[r.Prompt] {
			t.Errorf("%s: its prompt is in the training split", r.ID)
		}
	}
}

func parties(t *testing.T, split Split) map[string]bool {
	out := map[string]bool{}
	for _, r := range records(t, split) {
		for _, role := range []string{" The plaintiff is ", " The defendant is "} {
			if name, ok := strings.CutPrefix(r.Completion, role); ok {
				out[strings.TrimSuffix(name, ".")] = true
			}
		}
	}
	return out
}

func TestLegalRecords(t *testing.T) {
	for split, n := range map[Split]int{Train: 3000, Heldout: 150} {
		all := records(t, split)
		if len(all) != n {
			t.Errorf("%s: %d records, want %d", split, len(all), n)
		}
		tasks := map[string]int{}
		for _, r := range all {
			tasks[r.Task]++
			wellFormed(t, r)
		}
		for _, task := range []string{"plaintiff", "defendant", "winner", "payer", "claim"} {
			if tasks[task] < n/30 {
				t.Errorf("%s: only %d records of task %s", split, tasks[task], task)
			}
		}
	}
	if _, err := Legal(1, "test"); err == nil {
		t.Error("an unknown split was accepted")
	}
}

func wellFormed(t *testing.T, r Record) {
	t.Helper()
	if strings.ContainsAny(r.Prompt+r.Completion, "{}") || !strings.HasPrefix(r.Prompt, "Case: ") || !strings.HasSuffix(r.Prompt, "\nAnswer:") ||
		!strings.HasPrefix(r.Completion, " ") || !strings.HasSuffix(r.Completion, ".") || r.Difficulty < 1 || r.Difficulty > 5 {
		t.Errorf("malformed record: %+v", r)
	}
	for _, w := range strings.Fields(r.Completion) {
		w = strings.Trim(w, ".")
		if w[0] >= 'A' && w[0] <= 'Z' && w != "The" && !strings.Contains(r.Prompt, w) {
			t.Errorf("%s: %s is not in the prompt", r.ID, w)
		}
	}
}

// Where a party is named must not tell its role: otherwise "the first name" would score well.
func TestRolesDoNotFollowTheOrderOfNames(t *testing.T) {
	first, all := 0, 0
	for _, r := range records(t, Train) {
		name, ok := strings.CutPrefix(r.Completion, " The plaintiff is ")
		if !ok {
			continue
		}
		all++
		plaintiff := strings.Index(r.Prompt, strings.TrimSuffix(name, "."))
		if plaintiff >= 0 && plaintiff < firstParty(r.Prompt, strings.TrimSuffix(name, ".")) {
			first++
		}
	}
	if share := float64(first) / float64(all); share < 0.35 || share > 0.65 {
		t.Errorf("the plaintiff is named first in %.0f%% of the cases", 100*share)
	}
}

// firstParty is where the first name of another party stands.
func firstParty(prompt, not string) int {
	at := len(prompt)
	for _, w := range strings.Fields(strings.ReplaceAll(prompt, not, "")) {
		w = strings.Trim(w, ".,")
		if slices.Contains(givens, w) || slices.Contains(surnames, w) {
			at = min(at, strings.Index(prompt, w))
		}
	}
	return at
}

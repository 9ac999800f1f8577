package chaos

import (
	"fmt"
	"slices"
	"time"
)

// Seen is what came of a disturbed run and of the undisturbed one.
type Seen struct {
	Planned, Faults  int // faults that were to happen, that happened
	Unrecovered      int // faults after which no step was committed any more
	LostSteps        int // steps that were seen committed and are not, or not as they were, in the final ledger
	MinorityCommits  int // steps that nodes which were cut off from the majority called committed meanwhile
	LostSaved        int // checkpoints that were acknowledged and are not on the disk
	DivergedSteps    int // steps whose state digest is not that of the undisturbed run
	Missing, Doubled uint64
	AuditFindings    []string
	SHA256, Clean    string // of the weights, from the file on the home node's disk
	State            string // SHA-256 of weights and optimiser after the last step, as the last checkpoint has them
	CleanState       string
	Deaths           []string // nodes that ended although nobody had killed them, and what they said
	Failure          string   // why the run did not end well, or ""
}

// Judge lists what is wrong; nothing, if all is well.
func Judge(s Seen) []string {
	var wrong []string
	add := func(bad bool, format string, args ...any) {
		if bad {
			wrong = append(wrong, fmt.Sprintf(format, args...))
		}
	}
	add(s.Failure != "", "%s", s.Failure)
	add(s.Faults < s.Planned, "%d of %d faults happened: the run was over before; give it more steps", s.Faults, s.Planned)
	add(s.Unrecovered > 0, "%d faults after which no step was committed any more", s.Unrecovered)
	add(s.LostSteps > 0, "%d committed steps were lost", s.LostSteps)
	add(s.MinorityCommits > 0, "%d steps were committed by a minority", s.MinorityCommits)
	add(s.LostSaved > 0, "%d acknowledged checkpoints were lost", s.LostSaved)
	add(s.DivergedSteps > 0, "%d steps have another state than in the undisturbed run", s.DivergedSteps)
	add(s.Missing > 0, "%d examples are in no step", s.Missing)
	add(s.Doubled > 0, "%d examples are in more than one step of an epoch", s.Doubled)
	for _, f := range s.AuditFindings {
		add(true, "audit: %s", f)
	}
	add(s.SHA256 == "" || s.SHA256 != s.Clean, "the weights (%q) are not those of the undisturbed run (%q)", s.SHA256, s.Clean)
	add(s.State != s.CleanState, "weights and optimiser after the last step (%q) are not those of the undisturbed run (%q)", s.State, s.CleanState)
	for _, d := range s.Deaths {
		add(true, "%s", d)
	}
	return wrong
}

// Quantile is the smallest of the durations that a share q of them does not exceed (nearest rank); 0 of none.
func Quantile(d []time.Duration, q float64) time.Duration {
	if len(d) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(d))
	i := int(q*float64(len(sorted))+0.9999999) - 1
	return sorted[min(max(i, 0), len(sorted)-1)]
}

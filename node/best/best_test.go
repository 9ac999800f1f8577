package best

import (
	"encoding/json"
	"os"
	"testing"
)

// TestOracleEarlyStopping compares with transformers' Trainer and EarlyStoppingCallback (scripts/oracle/early_stopping.py).
func TestOracleEarlyStopping(t *testing.T) {
	var cases []struct {
		Patience             int
		Threshold            float64
		Losses               []float64
		Every, Stopped, Best uint64
		BestLoss             float64 `json:"best_loss"`
	}
	text, err := os.ReadFile("testdata/early_stopping.json")
	if err == nil {
		err = json.Unmarshal(text, &cases)
	}
	if err != nil || len(cases) < 20 {
		t.Fatalf("%d cases, %v", len(cases), err)
	}
	early := 0
	for i, c := range cases {
		rule, s, step := Rule{Patience: c.Patience, Threshold: c.Threshold}, State{}, uint64(0)
		for _, loss := range c.Losses {
			step += c.Every
			if s = rule.Observe(s, step, loss); rule.Over(s) {
				break
			}
		}
		if step != c.Stopped || s.Step != c.Best || s.Loss != c.BestLoss {
			t.Errorf("case %d: stopped after step %d, best %v at %d; transformers after %d, %v at %d", i, step, s.Loss, s.Step, c.Stopped, c.BestLoss, c.Best)
		}
		if step < c.Every*uint64(len(c.Losses)) {
			early++
		}
	}
	if early == 0 || early == len(cases) {
		t.Errorf("%d of %d cases stop early: nothing is shown", early, len(cases))
	}
}

func TestStateComesOutAgain(t *testing.T) {
	s := State{Loss: 1.25, Step: 3, Seen: 9, Waited: 2}
	b := s.Append([]byte{7})
	if got := Read(b[1:]); len(b) != 1+Size || got != s {
		t.Errorf("%+v in %d bytes", got, len(b))
	}
}

// Without patience a run goes to its end, whatever its losses.
func TestNoPatience(t *testing.T) {
	s := State{}
	for step := range uint64(50) {
		if s = (Rule{Keep: true}).Observe(s, step+1, float64(step)); (Rule{Keep: true}).Over(s) {
			t.Fatalf("ended after step %d", step+1)
		}
	}
	if s.Step != 1 || s.Loss != 0 || s.Waited != 49 {
		t.Errorf("%+v", s)
	}
}

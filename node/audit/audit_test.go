package audit

import (
	"slices"
	"strings"
	"testing"

	"lorad/data/curriculum"
	"lorad/node/best"
	"lorad/proto"
)

// examplePlan has example i of i+1 labelled and 2i+3 total tokens.
type examplePlan struct {
	*curriculum.Plan
	n    int
	rule best.Rule
}

func (p examplePlan) Examples() int                      { return p.n }
func (p examplePlan) Rule() best.Rule                    { return p.rule }
func (p examplePlan) Tokens(i int) (labelled, total int) { return i + 1, 2*i + 3 }

// perfect is a run of 25 examples in steps of 4, two and a half epochs, 18 of 18 steps committed.
func perfect(t *testing.T) (*proto.Run, examplePlan) {
	t.Helper()
	const n = 25
	p, err := curriculum.New(curriculum.Spec{Seed: 7, GlobalBatch: 4, MicroBatch: 2, MaxSteps: 18}, make([]float64, n))
	if err != nil {
		t.Fatal(err)
	}
	plan := examplePlan{p, n, best.Rule{Patience: 2}}
	run := &proto.Run{Spec: &proto.Spec{Run: "r", Steps: 18}, Phase: proto.Phase_DONE, Step: 18}
	for step := range uint64(18) {
		s := &proto.StepRecord{Step: step + 1, Generation: 1 + step/10, Epoch: p.Epoch(int(step))}
		for _, i := range slices.Concat(p.Batch(int(step))...) {
			s.Tokens += uint64(i + 1)
			s.TotalTokens += uint64(2*i + 3)
		}
		run.Ledger = append(run.Ledger, s)
	}
	run.Checkpoints = []*proto.Checkpoint{{Step: 9}, {Step: 18}}
	return run, plan
}

func TestPerfectRun(t *testing.T) {
	run, plan := perfect(t)
	r := Check(run, plan)
	if len(r.Findings) > 0 || r.Missing+r.Duplicated+r.Mismatched > 0 {
		t.Errorf("findings in a perfect run: %v", r)
	}
	// 7 steps an epoch: two whole ones, then 4 steps of 4 examples.
	if r.Epochs != 2 || r.Trained != 25+25+16 || r.Generations != 2 || r.Examples != 25 || r.Steps != 18 {
		t.Errorf("counts: %v", r)
	}
}

func TestRunUnderWay(t *testing.T) {
	run, plan := perfect(t)
	run.Phase, run.Step, run.Ledger, run.Checkpoints = proto.Phase_RUNNING, 9, run.Ledger[:9], run.Checkpoints[:1]
	if r := Check(run, plan); len(r.Findings) > 0 || r.Epochs != 1 || r.Trained != 25+8 {
		t.Errorf("%v", r)
	}
}

// evaluate has every third step evaluated.
func evaluate(r *proto.Run, losses ...float64) {
	for i, l := range losses {
		r.Ledger[3*i+2].EvalLoss = l
	}
}

// end ends the run with a step, as an evaluation does.
func end(r *proto.Run, step uint64) {
	r.Ledger, r.Step, r.Ended, r.Checkpoints = r.Ledger[:step], step, step, nil
	r.Ledger[step-1].Last = true
}

// A run that ended early owes nothing after its last step.
func TestEndedEarly(t *testing.T) {
	run, plan := perfect(t)
	evaluate(run, 2, 3, 2)
	end(run, 9)
	if r := Check(run, plan); len(r.Findings) > 0 || r.Missing > 0 || r.Ended != 9 || r.Steps != 9 || r.Planned != 18 || r.Trained != 25+8 {
		t.Errorf("%v", r)
	}
}

// The examples of a skipped step were looked at, and what was not finite is in no sum.
func TestSkippedStep(t *testing.T) {
	run, plan := perfect(t)
	s := run.Ledger[4]
	s.Bad = []uint32{1}
	for _, i := range plan.Batch(4)[1] {
		s.Tokens, s.TotalTokens = s.Tokens-uint64(i+1), s.TotalTokens-uint64(2*i+3)
	}
	if r := Check(run, plan); len(r.Findings) > 0 || r.Missing > 0 || r.Skipped != 1 || r.Trained != 25+25+16 {
		t.Errorf("%v", r)
	}
}

// Every kind of damage is found, and counted where it belongs.
func TestDamage(t *testing.T) {
	cases := map[string]struct {
		damage                          func(*proto.Run)
		missing, duplicated, mismatched uint64
		finding                         string
	}{
		"step left out":       {func(r *proto.Run) { r.Ledger = slices.Delete(r.Ledger, 2, 3) }, 4, 0, 0, "record 3 is of step 4"},
		"step done twice":     {func(r *proto.Run) { r.Ledger = slices.Insert(r.Ledger, 3, r.Ledger[2]) }, 0, 4, 0, "was trained on 2 times"},
		"steps swapped":       {func(r *proto.Run) { r.Ledger[4], r.Ledger[5] = r.Ledger[5], r.Ledger[4] }, 0, 0, 0, "record 5 is of step 6"},
		"micro-batch missing": {func(r *proto.Run) { r.Ledger[1].Tokens-- }, 0, 0, 1, "step 2 has"},
		"other examples":      {func(r *proto.Run) { r.Ledger[1].TotalTokens += 2 }, 0, 0, 1, "step 2 has"},
		"other epoch":         {func(r *proto.Run) { r.Ledger[7].Epoch = 9 }, 0, 0, 1, "step 8 has"},
		"generation back":     {func(r *proto.Run) { r.Ledger[12].Generation = 1 }, 0, 0, 0, "step 13 is of generation 1, after generation 2"},
		"ended early":         {func(r *proto.Run) { r.Ledger = r.Ledger[:17] }, 0, 0, 0, "the ledger has 17"},
		"other plan":          {func(r *proto.Run) { r.Spec.Steps = 19 }, 0, 0, 0, "submitted with 19 steps"},
		"unknown step":        {func(r *proto.Run) { r.Ledger[17].Step = 1 << 60 }, 0, 0, 0, "record 18 is of step"},
		"checkpoint ahead":    {func(r *proto.Run) { r.Checkpoints[1].Step = 19 }, 0, 0, 0, "checkpoint of step 19"},
		"ended for nothing":   {func(r *proto.Run) { evaluate(r, 3, 2, 2.5); end(r, 9) }, 0, 0, 0, "the run ended with step 9: true; by its validation losses: false"},
		"not ended":           {func(r *proto.Run) { evaluate(r, 3, 2, 2.5, 2.1) }, 0, 0, 0, "the run ended with step 12: false; by its validation losses: true"},
		"ended twice":         {func(r *proto.Run) { evaluate(r, 2, 3, 4); end(r, 9); r.Ended = 8 }, 0, 0, 0, "early with step 8, its ledger with step 9"},
		"skipped for nothing": {func(r *proto.Run) { r.Ledger[1].Bad = []uint32{1} }, 0, 0, 1, "step 2 has"},
		"checkpoint twice":    {func(r *proto.Run) { r.Checkpoints[1].Step = 9 }, 0, 0, 0, "comes after that of step 9"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			run, plan := perfect(t)
			c.damage(run)
			r := Check(run, plan)
			if r.Missing != c.missing || r.Duplicated != c.duplicated || r.Mismatched != c.mismatched {
				t.Errorf("missing %d, duplicated %d, mismatched %d", r.Missing, r.Duplicated, r.Mismatched)
			}
			if !strings.Contains(strings.Join(r.Findings, "\n"), c.finding) {
				t.Errorf("findings %q do not have %q", r.Findings, c.finding)
			}
		})
	}
}

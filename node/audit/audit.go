// Package audit proves from a run's ledger that every example was trained on exactly once per epoch.
//
// The ledger says which steps were committed, the plan says which examples a step is made of, and the two are
// independent witnesses: the plan is rebuilt from the run's inputs, the ledger was written by whoever led the ring.
// Each record names its batch by the labelled and total tokens in it, so a member that had computed another batch
// (or left a micro-batch out, or counted one twice) would have signed other numbers.
//
// What the audit cannot show is that equal token counts came from the same examples; for that there is the state
// digest in each record, which every member of a lease has to agree on, and which an undisturbed run reproduces
// (lorad chaos compares them all).
//
// Check is pure. Nothing is taken for granted because some other code promises it: that the ledger has no gaps, for
// instance, is counted here and not believed of the state machine.
package audit

import (
	"fmt"
	"slices"

	"lorad/node/best"
	"lorad/proto"
)

// Plan is what a run should have done.
type Plan interface {
	Steps() int                         // optimiser steps in the whole run
	StepsPerEpoch() int                 // steps that pass over all examples once
	Batch(t int) [][]int                // micro-batches of step t (0-based), as indices of examples
	Epoch(t int) float64                // epochs finished after step t
	Tokens(i int) (labelled, total int) // of example i
	Examples() int
	Rule() best.Rule // when an evaluation ends the run
}

const maxFindings = 20

// Check counts the run's ledger against the plan.
func Check(run *proto.Run, plan Plan) *proto.AuditReply {
	c := &checker{run: run, plan: plan, reply: &proto.AuditReply{
		Run: run.Spec.Run, Steps: uint64(len(run.Ledger)), Planned: uint64(plan.Steps()), Examples: uint64(plan.Examples()), Ended: run.Ended,
	}}
	c.header()
	c.order()
	for _, s := range run.Ledger {
		c.record(s)
	}
	c.coverage()
	c.verdicts()
	c.checkpoints()
	return c.reply
}

type checker struct {
	run   *proto.Run
	plan  Plan
	reply *proto.AuditReply
}

func (c *checker) find(format string, args ...any) {
	if len(c.reply.Findings) < maxFindings {
		c.reply.Findings = append(c.reply.Findings, fmt.Sprintf(format, args...))
	}
}

// header compares the numbers that the run was submitted with.
func (c *checker) header() {
	if planned := uint64(c.plan.Steps()); c.run.Spec.Steps != planned {
		c.find("the run was submitted with %d steps; its inputs make %d", c.run.Spec.Steps, planned)
	}
	if c.run.Step != uint64(len(c.run.Ledger)) {
		c.find("%d steps are said to be committed; the ledger has %d", c.run.Step, len(c.run.Ledger))
	}
	if c.run.Phase == proto.Phase_DONE && c.run.Step != c.run.LastStep() {
		c.find("the run is done after %d of %d steps", c.run.Step, c.run.LastStep())
	}
}

// order demands the steps 1, 2, 3, ... and generations that never go back.
func (c *checker) order() {
	var generation uint64
	for i, s := range c.run.Ledger {
		if s.Step != uint64(i)+1 {
			c.find("record %d is of step %d", i+1, s.Step)
		}
		if s.Generation < generation {
			c.find("step %d is of generation %d, after generation %d", s.Step, s.Generation, generation)
		}
		if i == 0 || s.Generation != generation {
			c.reply.Generations++
		}
		generation = s.Generation
	}
}

// record compares one step with the batch that it should have been. The sum of a step that was skipped lacks what was not
// finite in it.
func (c *checker) record(s *proto.StepRecord) {
	if !c.planned(s.Step) {
		return // order has said so
	}
	var labelled, total uint64
	if len(s.Bad) > 0 {
		c.reply.Skipped++
	}
	for mb, micro := range c.plan.Batch(int(s.Step - 1)) {
		if slices.Contains(s.Bad, uint32(mb)) {
			continue
		}
		for _, i := range micro {
			l, t := c.plan.Tokens(i)
			labelled, total = labelled+uint64(l), total+uint64(t)
		}
	}
	if s.Tokens == labelled && s.TotalTokens == total && s.Epoch == c.plan.Epoch(int(s.Step-1)) {
		return
	}
	c.reply.Mismatched++
	c.find("step %d has %d labelled of %d tokens, the planned batch %d of %d", s.Step, s.Tokens, s.TotalTokens, labelled, total)
}

func (c *checker) planned(step uint64) bool { return step >= 1 && step <= uint64(c.plan.Steps()) }

// coverage counts, epoch by epoch, in how many committed steps each example is. An epoch that is under way owes only
// the examples of the steps up to the last committed one.
func (c *checker) coverage() {
	perEpoch := c.plan.StepsPerEpoch()
	committed := c.commits()
	last := len(committed) // steps 1..last should be there
	for from := 0; from < last; from += perEpoch {
		end := min(from+perEpoch, last)
		c.epoch(committed, from, end, end-from == perEpoch)
	}
}

// commits counts the records of each step up to the last one.
func (c *checker) commits() []int {
	var last uint64
	for _, s := range c.run.Ledger {
		if c.planned(s.Step) {
			last = max(last, s.Step)
		}
	}
	committed := make([]int, last)
	for _, s := range c.run.Ledger {
		if c.planned(s.Step) {
			committed[s.Step-1]++
		}
	}
	return committed
}

// epoch checks the steps [from, end) of one epoch; whole says that these are all of its steps.
func (c *checker) epoch(committed []int, from, end int, whole bool) {
	seen, owed := make([]int, c.plan.Examples()), make([]bool, c.plan.Examples())
	complete := whole
	for t := from; t < end; t++ {
		complete = complete && committed[t] > 0
		for _, micro := range c.plan.Batch(t) {
			for _, i := range micro {
				seen[i] += committed[t]
				owed[i] = true
			}
		}
	}
	if complete {
		c.reply.Epochs++
	}
	for i, n := range seen {
		c.reply.Trained += uint64(n)
		switch {
		case n == 0 && (owed[i] || whole):
			c.reply.Missing++
			c.find("epoch %d: example %d is in no committed step", from/c.plan.StepsPerEpoch()+1, i)
		case n > 1:
			c.reply.Duplicated++
			c.find("epoch %d: example %d was trained on %d times", from/c.plan.StepsPerEpoch()+1, i, n)
		}
	}
}

// verdicts goes through the validation losses as the members did, and ends the run where they should have.
func (c *checker) verdicts() {
	rule, ended := c.plan.Rule(), uint64(0)
	var seen best.State
	for _, s := range c.run.Ledger {
		over := false
		if s.EvalLoss != 0 {
			seen = rule.Observe(seen, s.Step, s.EvalLoss)
			over = rule.Over(seen) && s.Step < uint64(c.plan.Steps())
		}
		if over != s.Last {
			c.find("the run ended with step %d: %v; by its validation losses: %v", s.Step, s.Last, over)
		}
		if s.Last {
			ended = s.Step
		}
	}
	if ended != c.run.Ended {
		c.find("the run is said to have ended early with step %d, its ledger with step %d (0: it did not)", c.run.Ended, ended)
	}
}

// checkpoints must be of committed steps, each once.
func (c *checker) checkpoints() {
	var before uint64
	for _, k := range c.run.Checkpoints {
		if k.Step == 0 || k.Step > uint64(len(c.run.Ledger)) {
			c.find("the checkpoint of step %d is of no committed step", k.Step)
		}
		if k.Step <= before {
			c.find("the checkpoint of step %d comes after that of step %d", k.Step, before)
		}
		before = k.Step
	}
}

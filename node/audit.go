package node

import (
	"bytes"
	"context"
	"fmt"

	"lorad/data"
	"lorad/data/curriculum"
	"lorad/job"
	"lorad/node/audit"
	"lorad/node/best"
	"lorad/node/recipe"
	"lorad/proto"
)

// Audit rebuilds the plan of a run from its inputs, which are fetched if they are not here, and counts the ledger
// against it. The error says that the audit could not be made; what it found is in the reply.
func (n *Node) Audit(ctx context.Context, run *proto.Run) (*proto.AuditReply, error) {
	spec := run.Spec
	if err := n.fetchInputs(ctx, spec); err != nil {
		return nil, fmt.Errorf("audit run %s: %w", spec.Run, err)
	}
	j, err := job.Parse([]byte(spec.JobYaml))
	if err != nil {
		return nil, fmt.Errorf("audit run %s: %w", spec.Run, err)
	}
	rec, err := recipe.Load(j, n.view(spec.Files))
	if err != nil {
		return nil, fmt.Errorf("audit run %s: %w", spec.Run, err)
	}
	reply := audit.Check(run, auditPlan{rec.Plan, rec.Set.Train, rec.Rule().Best})
	if !bytes.Equal(rec.Set.Hash[:], spec.ManifestSha256) {
		reply.Findings = append(reply.Findings, fmt.Sprintf("the inputs make other examples (manifest %x) than the run was submitted with (%x)", rec.Set.Hash[:6], spec.ManifestSha256[:min(6, len(spec.ManifestSha256))]))
	}
	return reply, nil
}

// auditPlan is a recipe as the audit sees it.
type auditPlan struct {
	*curriculum.Plan
	examples []data.Example
	rule     best.Rule
}

func (p auditPlan) Rule() best.Rule { return p.rule }

func (p auditPlan) Examples() int { return len(p.examples) }

func (p auditPlan) Tokens(i int) (labelled, total int) {
	return p.examples[i].Labelled(), len(p.examples[i].Tokens)
}

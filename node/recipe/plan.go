package recipe

import (
	"lorad/data"
	"lorad/engine/estimate"
	"lorad/engine/llama"
	"lorad/job"
	"lorad/model"
)

// mostLooked is how many examples Largest looks at. Nobody waits for it to go through ten thousand epochs.
const mostLooked = 1 << 23

// Largest is how large the micro-batches of the run get, those of the validation set included. Of a run that is very long it is a bound: what they
// would be if the longest examples met.
func (r *Recipe) Largest() llama.Batch {
	var top llama.Batch
	looked := 0
	add := func(examples []data.Example, micros [][]int) {
		for _, which := range micros {
			rows, labelled := 0, 0
			for _, i := range which {
				rows, labelled = rows+len(examples[i].Tokens), labelled+examples[i].Labelled()
				top.Longest = max(top.Longest, len(examples[i].Tokens))
			}
			top.Rows, top.Labelled = max(top.Rows, rows), max(top.Labelled, labelled)
			looked += len(which)
		}
	}
	add(r.Set.Val, r.val)
	for done := range r.Plan.Steps() {
		if looked > mostLooked {
			return r.bound(top)
		}
		add(r.Set.Train, r.Plan.Batch(done))
	}
	return top
}

// bound is the micro-batch that none of the training set exceeds, nor top.
func (r *Recipe) bound(top llama.Batch) llama.Batch {
	n, labelled := r.Job.MicroBatchSize, 0
	for _, e := range r.Set.Train {
		top.Longest, labelled = max(top.Longest, len(e.Tokens)), max(labelled, e.Labelled())
	}
	row := top.Longest
	if r.Job.SamplePacking {
		row, labelled = r.Job.SequenceLen, r.Job.SequenceLen
	}
	top.Rows, top.Labelled = max(top.Rows, n*row), max(top.Labelled, n*labelled)
	return top
}

// Check says what of the job does not go with the model, before anybody loads weights.
func (r *Recipe) Check() error {
	ad, err := r.trained()
	if err != nil {
		return err
	}
	_, err = llama.Layout(r.Base.Config(), ad)
	return err
}

// exampleBytes is what an example takes besides its texts and tokens.
const exampleBytes = 160

// dataBytes is the memory of the examples.
func (r *Recipe) dataBytes() (n int64) {
	for _, set := range [][]data.Example{r.Set.Train, r.Set.Val} {
		for _, e := range set {
			n += int64(8*len(e.Tokens) + len(e.Prompt) + len(e.Completion) + exampleBytes)
		}
	}
	return n
}

// Memory plans the memory of training on a machine with so many bytes to spare (0: not known).
func (r *Recipe) Memory(threads int, spare int64) (estimate.Memory, error) {
	return r.plan(r.Base.Config(), r.Largest(), r.dataBytes(), threads, spare)
}

// Foresee is Memory for a model of which there is nothing but the shape, and for data that nobody has looked at: every example is as
// long as it may be.
func Foresee(j job.Job, cfg model.Config, threads int, spare int64) (estimate.Memory, error) {
	r, largest := foreseen(j)
	return r.plan(cfg, largest, 0, threads, spare)
}

// foreseen is a recipe without inputs, and the largest micro-batch there can be.
func foreseen(j job.Job) (*Recipe, llama.Batch) {
	j.LoraModelDir = "" // its shape is not known without reading it
	rows := j.MicroBatchSize * j.SequenceLen
	return &Recipe{Job: j}, llama.Batch{Rows: rows, Labelled: rows, Longest: j.SequenceLen}
}

func (r *Recipe) plan(cfg model.Config, largest llama.Batch, data int64, threads int, spare int64) (estimate.Memory, error) {
	ad, err := r.trained()
	if err != nil {
		return estimate.Memory{}, err
	}
	return estimate.Plan(estimate.Job{
		Model: estimate.Model{Config: cfg, Adapter: ad}, Batch: largest, Threads: threads,
		EightBit: r.Job.Optimizer == job.AdamW8, KeepBest: r.Job.LoadBest, Data: data, Spare: spare,
	})
}

// WorkOfEpoch is how many operations of one epoch are useful.
func (r *Recipe) WorkOfEpoch() (float64, error) {
	ad, err := r.trained()
	if err != nil {
		return 0, err
	}
	var b estimate.Batch
	for _, e := range r.Set.Train {
		b.Lengths = append(b.Lengths, len(e.Tokens))
		b.Labelled += e.Labelled()
	}
	return estimate.Model{Config: r.Base.Config(), Adapter: ad}.Work(b).Total(), nil
}

package infer

import (
	"math"
	"slices"

	"lorad/data"
	"lorad/engine"
	"lorad/engine/cuda"
	"lorad/engine/llama"
)

// Examples reads records in any format that package data reads, as training would.
func (m *Model) Examples(sources []data.Source, opt data.Options) (data.Set, error) {
	return data.Build(sources, opt, m.Tokenizer, m.chat)
}

// answerBatch is how many prompts are continued at a time.
const answerBatch = 32

// Answers continues the prompt of each example, which is its tokens up to its last answer, and returns the texts.
func (m *Model) Answers(examples []data.Example, how engine.Sampling) ([]string, error) {
	how = m.stopped(how)
	var out []string
	for chunk := range slices.Chunk(examples, answerBatch) {
		prompts := make([][]int32, len(chunk))
		for i, ex := range chunk {
			prompts[i] = promptOf(ex)
		}
		more, err := m.engine.Generate(prompts, how)
		if err != nil {
			return nil, err
		}
		for _, ids := range more {
			out = append(out, m.Tokenizer.Decode(ids, true))
		}
	}
	return out, nil
}

// promptOf is what comes before the last run of learnt tokens; at least one token.
func promptOf(ex data.Example) []int32 {
	at := len(ex.Labels) - 1
	for at > 0 && ex.Labels[at] == engine.Ignore {
		at--
	}
	for at > 0 && ex.Labels[at-1] != engine.Ignore {
		at--
	}
	return ex.Tokens[:at+1]
}

// Losses is the sum of the token losses of each example, in nats.
func (m *Model) Losses(examples []data.Example) ([]float64, error) {
	if t, ok := m.engine.(*cuda.Trainer); ok { // at once, not as they come
		if err := t.Prepare(largest(examples)); err != nil {
			return nil, err
		}
	}
	out := make([]float64, len(examples))
	for i, ex := range examples {
		loss, err := m.engine.Loss(engine.Batch{Tokens: ex.Tokens, Labels: ex.Labels, Starts: []int32{0, int32(len(ex.Tokens))}})
		if err != nil {
			return nil, err
		}
		out[i] = loss
	}
	return out, nil
}

func largest(examples []data.Example) (b llama.Batch) {
	for _, ex := range examples {
		b.Rows, b.Labelled = max(b.Rows, len(ex.Tokens)), max(b.Labelled, ex.Labelled())
	}
	b.Longest = b.Rows
	return b
}

// Perplexities is exp of the mean token loss of each example.
func (m *Model) Perplexities(examples []data.Example) ([]float64, error) {
	out, err := m.Losses(examples)
	for i := range out {
		out[i] = math.Exp(out[i] / float64(examples[i].Labelled()))
	}
	return out, err
}

package cuda

import (
	"fmt"
	"slices"
	"unsafe"

	"lorad/engine"
	"lorad/engine/llama"
)

// Generate continues prompts, many at a time: each prompt is one pass that leaves its keys and values in the cache, and then one recorded pass gives every
// sequence its next token. Where one ends, the next prompt takes its slot. What a prompt is continued with does not depend on the others: it is
// computed alone, and its rows are then among as many as always.
func (t *Trainer) Generate(prompts [][]int32, opt engine.Sampling) ([][]int32, error) {
	if err := llama.CheckSampling(opt); err != nil {
		return nil, err
	}
	for _, p := range prompts {
		if len(p) == 0 {
			return nil, fmt.Errorf("cuda: generate: the prompt is empty; begin with the model's BOS token")
		}
	}
	g := generation{t: t, opt: opt, prompts: prompts, out: make([][]int32, len(prompts))}
	if opt.MaxNew <= 0 || len(prompts) == 0 {
		return g.out, nil
	}
	if err := t.reserveSequences(prompts, opt.MaxNew); err != nil {
		return nil, err
	}
	g.live = make([]*stream, min(len(prompts), t.cache.slots))
	for {
		if err := g.admit(); err != nil {
			return nil, err
		}
		if !g.busy() {
			return g.out, nil
		}
		if err := g.advance(); err != nil {
			return nil, err
		}
	}
}

// stream is a sequence that is being continued.
type stream struct {
	prompt int   // its number
	past   int32 // positions in the cache
	token  int32 // that the model has not seen
}

// generation is one call of Generate.
type generation struct {
	t       *Trainer
	opt     engine.Sampling
	prompts [][]int32
	out     [][]int32
	next    int       // prompt that has not begun
	live    []*stream // by slot; nil: free
	logits  []float32
	best    []int32
}

func (g *generation) busy() bool {
	return slices.ContainsFunc(g.live, func(s *stream) bool { return s != nil })
}

// admit begins prompts while there are free slots.
func (g *generation) admit() error {
	for slot := range g.live {
		for g.live[slot] == nil && g.next < len(g.prompts) {
			s := &stream{prompt: g.next}
			g.next++
			if err := g.begin(s, slot); err != nil {
				return err
			}
			if g.token(s, 0) {
				g.live[slot] = s
			}
		}
	}
	return nil
}

// begin computes a prompt.
func (g *generation) begin(s *stream, slot int) error {
	tokens := g.prompts[s.prompt]
	labels := slices.Repeat([]int32{engine.Ignore}, len(tokens))
	labels[len(tokens)-1] = 0 // any label has the row listed
	p, err := g.t.net.newBatch(engine.Batch{Tokens: tokens, Labels: labels, Starts: []int32{0, int32(len(tokens))}})
	if err != nil {
		return err
	}
	p.use = prompt
	for i := range tokens {
		p.places = append(p.places, g.t.cache.place(slot, int32(i)))
	}
	s.past = int32(len(tokens))
	return g.run(p, 1)
}

// place is the row of a position of a sequence.
func (c *cache) place(slot int, position int32) int32 { return int32(slot*c.capacity) + position }

// advance gives every live sequence its next token, or ends it.
func (g *generation) advance() error {
	if err := g.step(); err != nil {
		return err
	}
	for slot, s := range g.live {
		if s != nil && !g.token(s, slot) {
			g.live[slot] = nil
		}
	}
	return nil
}

// step computes the last token of every live sequence.
func (g *generation) step() error {
	p := &batch{net: g.t.net, shape: shape{rows: together, labelled: together, parts: partsBucket(0), use: next}}
	rows := 0
	for slot, s := range g.live {
		token, past, place := int32(0), int32(-1), int32(-1)
		if s != nil {
			token, past, place, rows = s.token, s.past, g.t.cache.place(slot, s.past), slot+1
			s.past++
		}
		p.tokens, p.past, p.places = append(p.tokens, token), append(p.past, past), append(p.places, place)
		p.index, p.labels = append(p.index, int32(slot)), append(p.labels, 0)
	}
	return g.run(p, rows)
}

// run computes a pass and brings what is needed of the logits of its first rows.
func (g *generation) run(p *batch, rows int) error {
	t, v := g.t, g.t.net.VocabSize
	if err := t.launch(p, 1, engine.Key{}, false); err != nil {
		return err
	}
	if g.opt.Temperature == 0 {
		g.best = slices.Grow(g.best[:0], rows)[:rows]
		t.ops.download(unsafe.Slice((*byte)(unsafe.Pointer(&g.best[0])), 4*rows), t.cache.best)
		return t.ops.take()
	}
	g.logits = slices.Grow(g.logits[:0], rows*v)[:rows*v]
	t.ops.download(raw(g.logits), t.buffers.logits)
	return t.ops.take()
}

// token takes the next one from a row of the last pass and says whether the sequence goes on.
func (g *generation) token(s *stream, row int) bool {
	out, v := &g.out[s.prompt], g.t.net.VocabSize
	if g.opt.Temperature == 0 {
		s.token = g.best[row]
	} else {
		s.token = llama.Pick(g.logits[row*v:(row+1)*v], g.opt, len(*out))
	}
	if slices.Contains(g.opt.Stop, s.token) {
		return false
	}
	*out = append(*out, s.token)
	return len(*out) < g.opt.MaxNew
}

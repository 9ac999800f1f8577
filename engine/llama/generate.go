package llama

import (
	"fmt"
	"slices"

	"lorad/engine"
	"lorad/engine/kernel"
)

// together is how many sequences are continued at a time. A pass reads all weights once, however few its rows are, and up to about this many
// rows it is reading that takes the time.
const together = 32

// promptRows is how many rows of prompts join a pass in which other sequences wait for their next token.
const promptRows = 512

// stream is a sequence that is being continued.
type stream[T kernel.Float] struct {
	prompt int     // its number
	feed   []int32 // tokens that the model has not seen
	past   int     // how many it has
	kv     []keysValues[T]
}

// keysValues of all positions so far of one layer: keys (rotated) and values are [room, kvHeads*headDim].
type keysValues[T kernel.Float] struct{ k, v []T }

// put writes the keys and values of the positions from past on.
func (c *keysValues[T]) put(past, width int, k, v []T) {
	if need := past*width + len(k); need > len(c.k) {
		grown := max(need, 2*len(c.k))
		c.k, c.v = append(c.k, make([]T, grown-len(c.k))...), append(c.v, make([]T, grown-len(c.v))...)
	}
	copy(c.k[past*width:], k)
	copy(c.v[past*width:], v)
}

// Generate continues each prompt until a stop token or MaxNew tokens. In each pass every sequence brings what is new of it: a prompt as a whole,
// then one token at a time. Where one ends, the next prompt takes its place. What a prompt is continued with does not depend on the
// other prompts, to the last bit.
func (m *Model[T]) Generate(prompts [][]int32, opt engine.Sampling) ([][]int32, error) {
	if err := m.checkPrompts(prompts, opt); err != nil {
		return nil, err
	}
	g := generation[T]{m: m, opt: opt, prompts: prompts, out: make([][]int32, len(prompts))}
	for opt.MaxNew > 0 {
		if g.admit(); len(g.live) == 0 {
			break
		}
		g.advance()
	}
	return g.out, nil
}

func (m *Model[T]) checkPrompts(prompts [][]int32, opt engine.Sampling) error {
	if err := CheckSampling(opt); err != nil {
		return err
	}
	for _, p := range prompts {
		if len(p) == 0 {
			return fmt.Errorf("llama: generate: the prompt is empty; begin with the model's BOS token")
		}
		for i, t := range p {
			if t < 0 || int(t) >= m.cfg.VocabSize {
				return fmt.Errorf("llama: generate: token %d at %d: the vocabulary has %d; use the model's own tokenizer", t, i, m.cfg.VocabSize)
			}
		}
	}
	return nil
}

// generation is one call of Generate.
type generation[T kernel.Float] struct {
	m       *Model[T]
	opt     engine.Sampling
	prompts [][]int32
	out     [][]int32
	next    int // prompt that has not begun

	live, idle []*stream[T] // idle ones have ended, and lend their memory
	logits     []T
}

// admit lets prompts in while there is room. One that is longer than promptRows waits until it is alone, or first.
func (g *generation[T]) admit() {
	rows := 0
	for ; g.next < len(g.prompts) && len(g.live) < together; g.next++ {
		if rows += len(g.prompts[g.next]); rows > promptRows && len(g.live) > 0 {
			return
		}
		s := g.idleStream()
		s.prompt, s.feed, s.past = g.next, g.prompts[g.next], 0
		g.live = append(g.live, s)
	}
}

func (g *generation[T]) idleStream() *stream[T] {
	if n := len(g.idle) - 1; n >= 0 {
		s := g.idle[n]
		g.idle = g.idle[:n]
		return s
	}
	return &stream[T]{kv: make([]keysValues[T], len(g.m.layers))}
}

// advance makes one pass and gives every live sequence its next token, or ends it.
func (g *generation[T]) advance() {
	v := g.m.cfg.VocabSize
	g.logits = slices.Grow(g.logits[:0], len(g.live)*v)[:len(g.live)*v]
	g.m.extend(g.live, g.logits)
	busy := g.live[:0]
	for i, s := range g.live {
		if g.token(s, g.logits[i*v:(i+1)*v]) {
			busy = append(busy, s)
		} else {
			g.idle = append(g.idle, s)
		}
	}
	g.live = busy
}

// token picks the next one and says whether the sequence goes on.
func (g *generation[T]) token(s *stream[T], logits []T) bool {
	out := &g.out[s.prompt]
	t := Pick(logits, g.opt, len(*out))
	if slices.Contains(g.opt.Stop, t) {
		return false
	}
	*out = append(*out, t)
	s.past, s.feed = s.past+len(s.feed), (*out)[len(*out)-1:]
	return len(*out) < g.opt.MaxNew
}

// extend computes the new tokens of all streams and writes the logits of the last one of each, [len(live), vocab].
func (m *Model[T]) extend(live []*stream[T], logits []T) {
	p := &pass{starts: []int32{0}}
	last := make([]int32, len(live))
	longest := 0
	for i, s := range live {
		p.tokens = append(p.tokens, s.feed...)
		p.starts = append(p.starts, int32(len(p.tokens)))
		last[i] = int32(len(p.tokens) - 1)
		longest = max(longest, s.past+len(s.feed))
	}
	p.rows = len(p.tokens)
	m.reservePositions(longest)
	m.reserve(p.rows, false)
	m.run(p, live, false)
	m.project(last, logits)
}

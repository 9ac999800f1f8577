package llama

import "lorad/engine"

// headChunk is the number of rows whose logits are computed together. 4 MiB of them stay in the cache; but below 256 rows, turning the head's
// weight over for the backward product is more than a tenth of it, so large vocabularies get up to 32 MiB. A multiple of 8, for
// dropout's masks. It changes no bit of a frozen head.
func (m *Model[T]) headChunk() int {
	v := m.cfg.VocabSize
	return max(32, 1<<20/v, min(256, 1<<23/v)) &^ 7
}

// selectLabelled lists the rows that carry loss.
func (m *Model[T]) selectLabelled(p *pass) {
	b := &m.buf
	b.labelled, b.targets = b.labelled[:0], b.targets[:0]
	for i, l := range p.labels {
		if l != engine.Ignore {
			b.labelled, b.targets = append(b.labelled, int32(i)), append(b.targets, l)
		}
	}
}

// gather copies the listed rows of the last layer's output together and normalises them.
func (m *Model[T]) gather(rows []int32) {
	b, h := &m.buf, m.cfg.HiddenSize
	m.reserveHead(len(rows))
	m.eachRows(len(rows), func(lo, hi int) {
		for i := lo; i < hi; i++ {
			copy(b.hx[i*h:(i+1)*h], b.last[int(rows[i])*h:])
		}
	})
	m.normalise(len(rows), b.hn, b.hinv, b.hx, &m.norm)
}

// headLoss is the sum of the losses of the labelled rows. With grad it also computes the head's gradients and dres.
func (m *Model[T]) headLoss(p *pass, scale T, grad bool) float64 {
	b, h := &m.buf, m.cfg.HiddenSize
	n, chunk := len(b.labelled), m.headChunk()
	below := grad && (m.lowest < len(m.layers) || m.norm.trainable())
	m.gather(b.labelled)
	for lo := 0; lo < n; lo += chunk {
		rows := min(chunk, n-lo)
		x := b.hn[lo*h : (lo+rows)*h]
		m.forward(&m.head, rows, lo, x, b.logits, b.hu, false)
		m.crossEntropy(rows, lo, scale, grad)
		if grad {
			var dx []T
			if below {
				dx = b.dhn[lo*h : (lo+rows)*h]
			}
			m.backward(&m.head, rows, lo, x, b.hu, b.logits, dx, false, lo > 0)
		}
	}
	if below {
		m.scatter(p)
	}
	var sum float64
	for _, l := range b.losses[:n] {
		sum += l
	}
	return sum
}

func (m *Model[T]) crossEntropy(rows, lo int, scale T, grad bool) {
	b, v := &m.buf, m.cfg.VocabSize
	block := max(1, 1<<15/v)
	defer m.profile.enter(m.profile.enter(Rowwise))
	m.ops.Parallel((rows+block-1)/block, func(i int) {
		from, to := i*block, min((i+1)*block, rows)
		logits := b.logits[from*v : to*v]
		var capped []T
		if m.capLogits(logits); m.cfg.LogitSoftcap > 0 && grad { // logits are about to become gradients
			capped = m.free.get(len(logits))
			defer m.free.put(capped)
			copy(capped, logits)
		}
		m.ops.CrossEntropy(to-from, v, logits, b.targets[lo+from:lo+to], b.losses[lo+from:lo+to], scale, grad)
		if grad {
			uncap(logits, capped, 1, T(m.cfg.LogitSoftcap))
		}
	})
}

// scatter takes the gradient of the normalised labelled rows through the norm and back to their places in dres; other rows get 0.
func (m *Model[T]) scatter(p *pass) {
	b, h, n := &m.buf, m.cfg.HiddenSize, len(m.buf.labelled)
	clear(b.dhx[:n*h])
	m.normaliseBackward(n, b.dhx, b.dhn, b.hx, b.hinv, &m.norm)
	clear(b.dres[:p.rows*h])
	for i, r := range b.labelled {
		copy(b.dres[int(r)*h:(int(r)+1)*h], b.dhx[i*h:])
	}
}

// Logits returns the [len(tokens), vocab] logits of one sequence, without dropout.
func (m *Model[T]) Logits(tokens []int32) ([]T, error) {
	labels := make([]int32, len(tokens))
	for i := range labels {
		labels[i] = engine.Ignore
	}
	p, err := m.newPass(engine.Batch{Tokens: tokens, Labels: labels, Starts: []int32{0, int32(len(tokens))}})
	if err != nil {
		return nil, err
	}
	m.reserve(p.rows, false)
	m.run(p, nil, false)
	rows := make([]int32, len(tokens))
	for i := range rows {
		rows[i] = int32(i)
	}
	out := make([]T, len(rows)*m.cfg.VocabSize)
	m.project(rows, out)
	return out, nil
}

// project writes the logits of some rows, [len(rows), vocab].
func (m *Model[T]) project(rows []int32, out []T) {
	b, h, v := &m.buf, m.cfg.HiddenSize, m.cfg.VocabSize
	m.gather(rows)
	for lo := 0; lo < len(rows); lo += m.headChunk() {
		n := min(m.headChunk(), len(rows)-lo)
		m.forward(&m.head, n, lo, b.hn[lo*h:(lo+n)*h], out[lo*v:], b.hu, false)
		m.eachRows(n, func(from, to int) { m.capLogits(out[(lo+from)*v : (lo+to)*v]) })
	}
}

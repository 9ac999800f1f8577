package allreduce

// direct runs the ways in which members talk to each other without a go-between. Every member sends each other one its
// chunk (all of the vector if there is only one chunk), adds up what it gets of its own, and sends that to all.
func (r *reduction) direct() error {
	own := r.owned(r.g.cfg.Rank)
	for len(r.mine) < r.segments(own) {
		r.mine = append(r.mine, nil)
	}
	others := r.g.peers
	ready := make([]chan struct{}, len(others)) // a token per finished segment of this member's chunk
	sent := make(chan error, len(others))
	for i, p := range others {
		ready[i] = make(chan struct{}, r.segments(own))
		go func() { sent <- r.directSend(p, ready[i]) }()
	}
	err := r.collect(own, ready)
	if err == nil && r.gathers() {
		err = r.gather()
	}
	for range others {
		if e := <-sent; err == nil {
			err = e
		}
	}
	return err
}

// gathers says whether there is a second phase.
func (r *reduction) gathers() bool { return r.way == Direct }

// owned is the chunk that the member of this rank adds up.
func (r *reduction) owned(rank int) int {
	if r.gathers() {
		return rank
	}
	return 0
}

// directSend sends p its chunk and then this member's, as it gets finished.
func (r *reduction) directSend(p *peer, ready <-chan struct{}) error {
	c := r.owned(p.rank)
	for seg := range r.segments(c) {
		if err := r.awaitSegment(c, seg); err != nil {
			return err
		}
		n := r.partial(p.scratch(), r.in, c, seg)
		if err := r.g.send(p, r.header(ReduceScatter, 0, seg), p.scratch()[:n]); err != nil {
			return r.g.writeFailed(p, err)
		}
	}
	if !r.gathers() {
		return nil
	}
	for seg := range r.segments(r.g.cfg.Rank) {
		select {
		case <-ready:
		case <-r.g.dead:
			return r.g.Err()
		}
		if err := r.g.send(p, r.header(AllGather, 1, seg), r.mine[seg]); err != nil {
			return r.g.writeFailed(p, err)
		}
	}
	return nil
}

// collect adds up this member's chunk, a segment of all members after the other.
func (r *reduction) collect(own int, ready []chan struct{}) error {
	for seg := range r.segments(own) {
		if err := r.awaitSegment(own, seg); err != nil {
			return err
		}
		base := r.in
		for _, p := range r.g.peers {
			take := func(k packet) error { return r.add(base, own, seg, k) }
			if err := r.accept(p, r.header(ReduceScatter, 0, seg), take); err != nil {
				return err
			}
			base = r.acc
		}
		r.finish(own, seg)
		if r.gathers() {
			r.mine[seg] = r.repack(r.mine[seg], own, seg)
			for _, c := range ready {
				c <- struct{}{}
			}
		}
	}
	return nil
}

// repack packs a finished segment once for all members.
func (r *reduction) repack(dst []byte, c, seg int) []byte {
	if r.scratch == nil {
		r.scratch = make([]byte, MaxPayload+slack)
	}
	return append(dst[:0], r.scratch[:r.finished(r.scratch, c, seg)]...)
}

// gather takes the others' finished chunks, by turns.
func (r *reduction) gather() error {
	for seg, more := 0, true; more; seg++ {
		more = false
		for _, p := range r.g.peers {
			if seg >= r.segments(p.rank) {
				continue
			}
			more = true
			take := func(k packet) error { return r.store(p.rank, seg, k) }
			if err := r.accept(p, r.header(AllGather, 1, seg), take); err != nil {
				return err
			}
		}
	}
	return nil
}

// accept takes p's next frame.
func (r *reduction) accept(p *peer, want Header, take func(packet) error) error {
	k, err := r.receive(p, want)
	if err != nil {
		return err
	}
	err = take(k)
	p.release(k)
	if err != nil {
		return r.g.abort(p.id, err)
	}
	return nil
}

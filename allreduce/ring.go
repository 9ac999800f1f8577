package allreduce

// segment is one that the ring's sender may send: packed already, or to be packed.
type segment struct{ packed []byte }

// ring runs all hops, sending and receiving concurrently. In hop h of 2(N-1), the member of rank r sends chunk r-h
// and receives chunk r-h-1 (mod N). What it sends in a hop after the first is what it received in the hop before.
func (r *reduction) ring() error {
	if n := 2 * r.allSegments(); cap(r.tokens) < n {
		r.tokens, r.spare = make(chan segment, n), make(chan []byte, n)
	}
	sent := make(chan error, 1)
	go func() { sent <- r.ringSend() }()
	err := r.ringReceive()
	if e := <-sent; err == nil {
		err = e
	}
	for len(r.tokens) > 0 {
		<-r.tokens
	}
	return err
}

func (r *reduction) hops() int { return 2 * (r.chunks() - 1) }

// passes is the chunk that the member of this rank sends in hop h; its predecessor's is what it receives.
func (r *reduction) passes(rank, h int) int {
	n := r.chunks()
	return ((rank-h)%n + n) % n
}

func (r *reduction) ringHeader(h, seg int) Header {
	if h >= r.chunks()-1 {
		return r.header(AllGather, h, seg)
	}
	return r.header(ReduceScatter, h, seg)
}

// ringSend sends every hop's chunk, segment by segment, each as soon as it has been received and added.
func (r *reduction) ringSend() error {
	for h := range r.hops() {
		for seg := range r.segments(r.passes(r.g.cfg.Rank, h)) {
			var s segment
			if h > 0 {
				select {
				case s = <-r.tokens:
				case <-r.g.dead:
					return r.g.Err()
				}
			}
			if err := r.ringPass(h, seg, s.packed); err != nil {
				return err
			}
		}
	}
	return nil
}

// ringPass sends one segment to the next member.
func (r *reduction) ringPass(h, seg int, packed []byte) error {
	next := r.g.neighbour(+1)
	payload := packed
	if payload == nil {
		c := r.passes(r.g.cfg.Rank, h)
		if err := r.awaitSegment(c, seg); err != nil {
			return err
		}
		payload = next.scratch()
		payload = payload[:r.ringPack(payload, h, c, seg)]
	}
	if err := r.g.send(next, r.ringHeader(h, seg), payload); err != nil {
		return r.g.writeFailed(next, err)
	}
	if packed != nil {
		r.spare <- packed // as many fit as there are segments
	}
	return nil
}

// ringPack packs what was not received packed: partial sums, and this member's own chunk when it is finished.
func (r *reduction) ringPack(dst []byte, h, c, seg int) int {
	switch n := r.chunks(); {
	case h == 0:
		return r.partial(dst, r.in, c, seg)
	case h < n-1:
		return r.partial(dst, r.acc, c, seg)
	}
	return r.finished(dst, c, seg)
}

// ringReceive takes every hop's chunk from the previous member and lets the sender have it.
func (r *reduction) ringReceive() error {
	prev := r.g.neighbour(-1)
	for h := range r.hops() {
		c := r.passes(r.g.cfg.Rank-1, h)
		for seg := range r.segments(c) {
			k, err := r.receive(prev, r.ringHeader(h, seg))
			if err != nil {
				return err
			}
			s, err := r.ringTake(h, c, seg, k)
			prev.release(k)
			if err != nil {
				return r.g.abort(prev.id, err)
			}
			if h < r.hops()-1 {
				r.tokens <- s
			}
		}
	}
	return nil
}

// ringTake adds or stores a segment. A finished one goes on as it came: packing it again would give the same bytes.
func (r *reduction) ringTake(h, c, seg int, k packet) (s segment, err error) {
	last := r.chunks() - 2 // hop after which this member's chunk is complete
	if h <= last {
		if err = r.awaitSegment(c, seg); err != nil {
			return s, err
		}
		if err = r.add(r.in, c, seg, k); h == last {
			r.finish(c, seg)
		}
		return s, err
	}
	if h < r.hops()-1 {
		select {
		case s.packed = <-r.spare:
		default:
		}
		s.packed = append(s.packed[:0], k.payload...)
	}
	return s, r.store(c, seg, k)
}

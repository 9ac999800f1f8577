package world

// rng is a splitmix64 stream (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014):
// a Weyl counter through a bijective mixer, so a stream is named by its starting counter alone.
type rng struct{ counter uint64 }

const weyl = 0x9e3779b97f4a7c15

func mix(z uint64) uint64 {
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// stream names the independent stream of one item: kind keeps the generators of one seed apart.
func stream(seed, kind, index uint64) *rng {
	return &rng{counter: mix(mix(mix(seed+weyl)^kind) ^ index*weyl)}
}

func (r *rng) next() uint64 {
	r.counter += weyl
	return mix(r.counter)
}

// below is in [0, n). The bias of the modulus is under 2^-50 for the small n used here.
func (r *rng) below(n int) int { return int(r.next() % uint64(n)) }

// between is in [lo, hi], both included.
func (r *rng) between(lo, hi int) int { return lo + r.below(hi-lo+1) }

func (r *rng) percent(p int) bool { return r.below(100) < p }

func pick[T any](r *rng, from []T) T { return from[r.below(len(from))] }

func shuffle[T any](r *rng, s []T) {
	for i := len(s) - 1; i > 0; i-- {
		j := r.below(i + 1)
		s[i], s[j] = s[j], s[i]
	}
}

// hash is FNV-1a with a final mix, to split names into train and held-out for ever.
func hash(s string) uint64 {
	h := uint64(0xcbf29ce484222325)
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 0x100000001b3
	}
	return mix(h)
}

package allreduce

import (
	"fmt"
	"math"
	"time"
)

// The trailer's slots, after the gradient. A counter and then a time per micro-batch follow.
const (
	slotLoss = iota
	slotTokens
	slotTotal
	slotVotes
	slotLeaves
	slotMicros
)

// trailer is the number of slots of a step of so many micro-batches.
func trailer(micros int) int { return slotMicros + 2*micros }

const (
	lossScale = 1 << 30        // the unit of the loss is 2^-30 nat
	flagged   = int64(1) << 32 // added to a micro-batch's counter when it was trapped
	maxMicros = 1 << 20
	maxParams = 1 << 36
)

// Accum is one member's share of a step: the exact sum of the micro-batches it computed. It is not safe for
// concurrent use, and must not change while a Reduce reads it.
type Accum struct {
	params, micros, unitLog2 int

	units []int8  // [params] the exponents of each parameter's own unit; nil = unitLog2 for all
	wire  uint32  // checksum of units, 0 for nil
	scale float64 // 2^-unitLog2
	limit float64 // 2^62/micros: micros values below it cannot overflow an int64
	v     []int64 // [params + trailer(micros)]; its capacity is that of the largest M, to the slot
	blank bool    // the gradient in v is of any content and counts as zeros
	tide  *tide   // of a gradient that arrives in parts; nil = all is there
}

// NewAccum makes an empty accumulator for params parameters (0 is fine: losses only) and micros micro-batches
// per step, or at most so many (see ResetFor). The unit of the gradient is 2^unitLog2, -62..0. It panics on
// arguments out of range.
func NewAccum(params, micros, unitLog2 int) *Accum {
	if params < 0 || params > maxParams || micros < 1 || micros > maxMicros || unitLog2 < -62 || unitLog2 > 0 {
		panic(fmt.Sprintf("allreduce.NewAccum(%d, %d, %d): out of range", params, micros, unitLog2))
	}
	return &Accum{
		params: params, micros: micros, unitLog2: unitLog2,
		scale: math.Ldexp(1, -unitLog2),
		limit: math.Ldexp(1, 62) / float64(micros),
		v:     make([]int64, params+trailer(micros)),
		blank: true,
	}
}

// Reset empties the accumulator for the next step and keeps its memory.
func (a *Accum) Reset() {
	clear(a.v[a.params:])
	a.blank, a.tide = true, nil
}

// ResetFor is Reset for a step of another number of micro-batches (the last step of an epoch may be short), at most
// what NewAccum was given; it panics otherwise.
func (a *Accum) ResetFor(micros int) {
	if micros < 1 || a.params+trailer(micros) > cap(a.v) {
		panic(fmt.Sprintf("allreduce.Accum.ResetFor(%d): out of range", micros))
	}
	a.micros = micros
	a.limit = math.Ldexp(1, 62) / float64(micros)
	a.v = a.v[:a.params+trailer(micros)]
	a.Reset()
}

// Quantise gives each parameter its own unit, 2^units[i], -62..62 (len params; nil: back to the one unit). What is below half a
// unit is lost, once per micro-batch, and what is left takes fewer bits on the wire. All members must use the same
// units; the sum stays exact, and so a function of the micro-batches alone. units is kept, not copied. The accumulator
// must be empty.
func (a *Accum) Quantise(units []int8) {
	if units != nil && len(units) != a.params {
		panic(fmt.Sprintf("allreduce.Accum.Quantise: %d units for %d parameters", len(units), a.params))
	}
	a.units, a.wire = units, 0
	if units != nil {
		a.wire = checksumUnits(units)
	}
}

// Micros is the number of micro-batches of a step, M.
func (a *Accum) Micros() int { return a.micros }

// Has says whether micro-batch mb was added since the last Reset.
func (a *Accum) Has(mb int) bool {
	return mb >= 0 && mb < a.micros && *a.counter(mb) != 0
}

// Bitmap appends one bit per micro-batch, least significant first: the ones added since the last Reset.
func (a *Accum) Bitmap(dst []byte) []byte {
	at := len(dst)
	dst = append(dst, make([]byte, (a.micros+7)/8)...)
	for mb := range a.micros {
		if a.Has(mb) {
			dst[at+mb/8] |= 1 << (mb % 8)
		}
	}
	return dst
}

// Vote sets this member's vote (to stop, to checkpoint: the caller's business); Sum.Votes counts the members
// that said yes. A vote lasts until Reset.
func (a *Accum) Vote(yes bool) { a.say(slotVotes, yes) }

// Leave says whether this member wants to be the next generation's no more; Sum.Leaves counts those that do. It lasts
// until Reset.
func (a *Accum) Leave(yes bool) { a.say(slotLeaves, yes) }

func (a *Accum) say(slot int, yes bool) {
	a.v[a.params+slot] = 0
	if yes {
		a.v[a.params+slot] = 1
	}
}

// Took notes how long the computation of micro-batch mb took here, which every member reads in Sum.Took: what they
// deal the next micro-batches by must be the same numbers everywhere, and travels with the sum for 1 or 2 bytes each.
// It lasts until Reset. mb out of range or a negative time is no time.
func (a *Accum) Took(mb int, d time.Duration) {
	if mb >= 0 && mb < a.micros && d >= 0 {
		a.v[a.params+slotMicros+a.micros+mb] = d.Microseconds()
	}
}

// Add quantises micro-batch mb's gradient g (len params) to the nearest multiple of the unit, ties to even, and
// adds it, with the summed loss in nats, the labelled tokens and all tokens. A second Add of the same mb
// changes nothing and returns nil: a retry is harmless.
//
// A value that is NaN, infinite or not below 2^62/M units traps the micro-batch: it then contributes nothing
// but its flag, which every member reads in Sum.Bad. That is no error here. Errors are the caller's mistakes.
func (a *Accum) Add(mb int, g []float32, loss float64, tokens, total int64) error {
	if len(g) != a.params {
		return fmt.Errorf("accumulate micro-batch %d: wrong length: %d values for %d parameters", mb, len(g), a.params)
	}
	return a.AddBy(mb, loss, tokens, total, func() (bool, error) { return a.addGrad(g), nil })
}

// AddBy is Add for a gradient that is elsewhere: add rounds it by the same rules and adds it to a sum that is there too, and
// that Arrive brings before the step is reduced; or leaves that sum as it is and says that a value is out of range. add is not called when
// the micro-batch was added before or is trapped by its loss. When it fails, nothing was added.
func (a *Accum) AddBy(mb int, loss float64, tokens, total int64, add func() (fits bool, err error)) error {
	if err := a.check(mb, tokens, total); err != nil {
		return err
	}
	if a.Has(mb) {
		return nil
	}
	q := math.RoundToEven(loss * lossScale)
	fits := a.fits(q)
	if fits {
		var err error
		if fits, err = add(); err != nil {
			return fmt.Errorf("accumulate micro-batch %d: %w", mb, err)
		}
	}
	if !fits {
		*a.counter(mb) = 1 + flagged
		return nil
	}
	t := a.v[a.params:]
	t[slotLoss] += int64(q)
	t[slotTokens] += tokens
	t[slotTotal] += total
	*a.counter(mb) = 1
	return nil
}

func (a *Accum) check(mb int, tokens, total int64) error {
	switch {
	case mb < 0 || mb >= a.micros:
		return fmt.Errorf("accumulate micro-batch %d: out of range: the step has %d", mb, a.micros)
	case tokens < 0 || total < 0 || !a.fits(float64(tokens)) || !a.fits(float64(total)):
		return fmt.Errorf("accumulate micro-batch %d: impossible counts: %d labelled of %d tokens", mb, tokens, total)
	}
	return nil
}

// fits is false for NaN.
func (a *Accum) fits(q float64) bool { return q > -a.limit && q < a.limit }

func (a *Accum) counter(mb int) *int64 { return &a.v[a.params+slotMicros+mb] }

// addGrad adds the quantised g, or nothing at all when a value is out of range.
func (a *Accum) addGrad(g []float32) bool {
	if a.units != nil {
		return a.addCoarse(g)
	}
	v := a.gradient()
	n := accumulate(v, g, a.scale, a.limit)
	if n == len(g) {
		return true
	}
	retract(v[:n], g[:n], a.scale)
	return false
}

// accumulate adds round(g*scale) to v and stops at the first value out of range; it returns how many it added.
// scale is a power of two, so the product in f64 is exact (fused or not) and the rounding is the only one.
func accumulate(v []int64, g []float32, scale, limit float64) int {
	v = v[:len(g)]
	small := min(limit, 1<<51)
	for i := fastAccumulate(v, g, scale, small); i < len(g); i++ {
		q := float64(g[i]) * scale
		switch a := math.Abs(q); {
		case a < small:
			v[i] += nearestSmall(q)
		case a < limit:
			v[i] += int64(math.RoundToEven(q))
		default: // NaN too
			return i
		}
	}
	return len(g)
}

// nearestSmall rounds |q| < 2^51 to the nearest integer, ties to even: at 1.5*2^52 the unit of an f64's last
// place is 1, so the addition does the rounding and the mantissa's low bits are the integer.
func nearestSmall(q float64) int64 {
	const magic = 3 << 51
	return int64(math.Float64bits(q+magic) - math.Float64bits(magic))
}

// retract takes back what accumulate added.
func retract(v []int64, g []float32, scale float64) {
	for i, x := range g {
		v[i] -= int64(math.RoundToEven(float64(x) * scale))
	}
}

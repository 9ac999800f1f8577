package allreduce

import (
	"encoding/binary"
	"fmt"
	"time"
)

// Way is the order in which members exchange a vector. All of them give the same bits.
type Way uint8

// The ways, for N members. Bytes are those that each member sends, for a vector of S bytes on the wire.
const (
	// Ring sends to the next member only: 2(N-1)/N S bytes, 2(N-1) hops, which overlap when the vector is long.
	Ring Way = iota
	// Direct sends every member its chunk and gets the sum of one's own back to all: the same bytes, 2 hops.
	Direct
	// Whole sends everything to everyone: (N-1) S bytes, 1 hop.
	Whole
)

func (w Way) String() string {
	return [...]string{"ring", "direct", "whole"}[w]
}

// What is assumed of a link before anybody has measured it, and of every frame.
const (
	guessRTT  = 200 * time.Microsecond
	guessRate = 125_000_000 // bytes per second
	frameCost = 20          // microseconds to make, send, receive and add a short frame
	valueSize = 4           // bytes of a value on the wire, roughly, in either phase
	maxRate   = fast        // bytes per second; what is faster is not measured: it never makes a writer wait
	uneven    = 3           // links whose rates differ by less are taken for equal: measurements are noisy, the more so on busy machines
)

// table is what all members know of each other's links. Everybody derives the same decision from it, in integers.
type table struct {
	rtt  [][]int64 // [from][to] microseconds
	rate []int64   // [from] bytes per second that the member can send
}

// newTable assumes the same of every link.
func newTable(n int) table {
	t := table{rtt: make([][]int64, n), rate: make([]int64, n)}
	for i := range n {
		t.rate[i] = guessRate
		t.rtt[i] = make([]int64, n)
		for j := range n {
			t.rtt[i][j] = guessRTT.Microseconds()
		}
	}
	return t
}

// report is a member's line of the table: its rate, then its RTT to each member; 0 = not known.
func (t table) report(rate int64, rtt []time.Duration) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(rate))
	for _, d := range rtt {
		b = binary.LittleEndian.AppendUint32(b, uint32(min(d.Microseconds(), 1<<31)))
	}
	return b
}

// enter takes member i's report.
func (t table) enter(i int, b []byte) error {
	if len(b) != 8+4*len(t.rtt) {
		return fmt.Errorf("a report on links of %d bytes for %d members", len(b), len(t.rtt))
	}
	t.rate[i] = int64(min(binary.LittleEndian.Uint64(b), maxRate))
	for j := range t.rtt {
		if d := binary.LittleEndian.Uint32(b[8+4*j:]); d > 0 {
			t.rtt[i][j] = int64(d)
		}
	}
	return nil
}

// complete takes all rates for the same if one is not known.
func (t table) complete() {
	for _, r := range t.rate {
		if r == 0 {
			for i := range t.rate {
				t.rate[i] = guessRate
			}
		}
	}
}

// choose is the way for a vector of so many values, and the members' shares in it.
func (t table) choose(values int) (Way, []int64) {
	n := len(t.rate)
	if n == 1 {
		return Whole, []int64{1}
	}
	even := make([]int64, n)
	for i := range even {
		even[i] = 1
	}
	ring, whole := t.ring(values), t.whole(values)
	shares, direct := even, t.direct(values, even)
	if t.uneven() {
		weighted := t.shares()
		if d := t.direct(values, weighted); d < direct {
			shares, direct = weighted, d
		}
	}
	switch {
	case whole <= direct && whole <= ring:
		return Whole, []int64{1}
	case direct < ring-ring/50: // many senders to one receiver fill its queue: not for a trifle
		return Direct, shares
	}
	return Ring, even
}

// transfer is how long bytes take, in microseconds.
func transfer(bytes, rate int64) int64 { return bytes * 1e6 / max(rate, 1) }

// hop is how long a short frame takes from i to j.
func (t table) hop(i, j int) int64 { return max(t.rtt[i][j], t.rtt[j][i])/2 + frameCost }

func (t table) farthest() (hop int64) {
	for i := range t.rtt {
		for j := range i {
			hop = max(hop, t.hop(i, j))
		}
	}
	return hop
}

// ring is the duration of a ring all-reduce. A member sends without a break if the next chunk's first segment is there
// before its present chunk is sent; what is missing to that is lost at each hop.
func (t table) ring(values int) int64 {
	n := len(t.rate)
	var hop int64
	rate := t.rate[0]
	for i := range n {
		hop = max(hop, t.hop(i, (i+1)%n))
		rate = min(rate, t.rate[i])
	}
	chunk := int64(ceilDiv(values, n)) * valueSize
	segment := min(chunk, segBlocks*blockLen*valueSize)
	gap := max(0, hop-transfer(chunk-segment, rate))
	return int64(2*(n-1)) * (transfer(chunk, rate) + gap)
}

// direct is that of a direct one: member i sends 1 + (n-2) share of the vector.
func (t table) direct(values int, shares []int64) int64 {
	var total, slowest int64
	for _, s := range shares {
		total += s
	}
	n := int64(len(shares))
	vector := int64(values) * valueSize
	for i, s := range shares {
		sent := vector + (n-2)*(vector*s/total)
		slowest = max(slowest, transfer(sent, t.rate[i]))
	}
	return slowest + 2*t.farthest() + 2*(n-1)*frameCost
}

func (t table) whole(values int) int64 {
	n := int64(len(t.rate))
	var slowest int64
	for _, r := range t.rate {
		slowest = max(slowest, transfer((n-1)*int64(values)*valueSize, r))
	}
	return slowest + t.farthest() + (n-1)*frameCost
}

func (t table) uneven() bool {
	lo, hi := t.rate[0], t.rate[0]
	for _, r := range t.rate {
		lo, hi = min(lo, r), max(hi, r)
	}
	return hi >= uneven*lo
}

// shares divides the vector so that all members are done sending at the same time, or the slowest ones own nothing:
// the least T with sum over i of max(0, (T rate_i - 1) / (n-2)) >= 1, in units of the time in which the fastest
// member sends the vector once. Two members send the same whatever their shares.
func (t table) shares() []int64 {
	const unit = 1 << 20
	n, fastest := int64(len(t.rate)), int64(1)
	for _, r := range t.rate {
		fastest = max(fastest, r)
	}
	out := make([]int64, n)
	if n == 2 {
		return append(out[:0], 1, 1)
	}
	at := func(T int64) (sum int64) { // T in 1/unit
		for i, r := range t.rate {
			out[i] = max(0, T*(r*unit/fastest)/unit-unit) / (n - 2)
			sum += out[i]
		}
		return sum
	}
	lo, hi := int64(unit), n*unit // the fastest alone is done by then
	for lo < hi {
		if mid := (lo + hi) / 2; at(mid) >= unit {
			hi = mid
		} else {
			lo = mid + 1
		}
	}
	at(lo)
	return out
}

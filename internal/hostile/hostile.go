// Package hostile gives parsers, in tests, inputs that somebody made to hurt: many, each a damaged copy of a good one, all
// a function of a seed. It looks for panics, for memory beyond what the size of the input can excuse, and for inputs that
// take for ever. The same parsers are fuzz targets (go test -fuzz), which find their own way by coverage; this is what CI
// can afford, what repeats, and what a figure can be given for:
//
//	go test ./allreduce -run Hostile -hostile 1000000
//
// Why not fuzzing alone: the number of inputs depends on the machine, and it does not look at memory.
package hostile

import (
	"flag"
	"math/rand/v2"
	"runtime/metrics"
	"testing"
	"time"
)

var count = flag.Int("hostile", 0, "malformed inputs per parser; 0: as many as CI can afford")

// patience is how long one input may take: far more than any needs on a busy machine, far less than for ever.
const patience = 10 * time.Second

// slack is allocation that one measurement may see of others: the runtime's and other goroutines', in bytes.
const slack = 4 << 20

// Parser is code that reads what others wrote.
type Parser struct {
	Seeds [][]byte
	// Parse reads one input and reports what it did wrong with it to t; an error about the input is not wrong.
	Parse func(t testing.TB, data []byte)
	// Memory is how many bytes it may allocate for an input of n bytes.
	Memory func(n int) int
	// Small is how many inputs CI tries.
	Small int
}

// Test gives p its inputs. Input i is the same in every run.
func Test(t *testing.T, p Parser) {
	t.Helper()
	n := *count
	if n == 0 {
		n = p.Small
	}
	var slowest time.Duration
	var most uint64
	for i := range n {
		data := Input(p.Seeds, uint64(i))
		took, bytes := measure(t, p, i, data)
		slowest, most = max(slowest, took), max(most, bytes)
		if bytes > uint64(p.Memory(len(data)))+slack {
			t.Errorf("input %d (%d bytes) had %d bytes allocated, bound %d: %.200q", i, len(data), bytes, p.Memory(len(data)), data)
		}
		if took > patience {
			t.Errorf("input %d took %v: %.200q", i, took, data)
		}
		if t.Failed() {
			return
		}
	}
	t.Logf("%d inputs: no panic, at most %d KiB allocated, at most %v for one", n, most>>10, slowest.Round(time.Microsecond))
}

func measure(t *testing.T, p Parser, i int, data []byte) (time.Duration, uint64) {
	done := false
	defer func() {
		if !done {
			t.Errorf("input %d ends it: %.400q", i, data) // the panic goes on, with its trace
		}
	}()
	before, began := allocated(), time.Now()
	p.Parse(t, data)
	took, bytes := time.Since(began), allocated()-before
	done = true
	return took, bytes
}

// allocated is what this process has allocated so far, in bytes; small objects are counted with some delay.
func allocated() uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}

// Input is number i of the damaged copies: one to eight changes to one of the seeds.
func Input(seeds [][]byte, i uint64) []byte {
	r := rand.New(rand.NewPCG(i, 0x10ad))
	data := append([]byte(nil), seeds[r.IntN(len(seeds))]...)
	for range 1 + r.IntN(8) {
		data = damage(r, data, seeds)
	}
	return data
}

// telling are numbers at which arithmetic breaks.
var telling = []uint64{0, 1, 0x7f, 0x80, 0xff, 0x7fff, 0x8000, 0xffff, 1<<31 - 1, 1 << 31, 1<<32 - 1, 1 << 40, 1<<62 - 1, 1<<63 - 1, 1 << 63, 1<<64 - 1}

// words are what texts break on.
var words = []string{
	"-1", "1e999", "18446744073709551615", "9223372036854775808", "NaN", "null", "true", "{}", "[]", `""`, `"\ud800"`, "\x00", "\xff\xfe", "../../etc/passwd",
	"[[[[[[[[[[[[[[[[", "{\"a\":{\"a\":{\"a\":", "\u202e", "&a [*a,*a,*a,*a]", "\n---\n", "(a+)+$", "%s%n", "{{", "}}", "{% for x in range(999999999) %}", "\"", "\\", ",", ":",
}

func damage(r *rand.Rand, data []byte, seeds [][]byte) []byte {
	at := 0
	if len(data) > 0 {
		at = r.IntN(len(data))
	}
	to := min(len(data), at+1+r.IntN(16))
	switch r.IntN(9) {
	case 0: // one bit
		if len(data) > 0 {
			data[at] ^= 1 << r.IntN(8)
		}
	case 1: // one byte
		if len(data) > 0 {
			data[at] = byte(r.Uint32())
		}
	case 2: // a number, of whatever width and order
		return overwrite(data, at, number(r))
	case 3: // cut off
		return data[:at]
	case 4: // a piece is missing
		return append(data[:at:at], data[to:]...)
	case 5: // a piece is there again, perhaps many times
		piece := append([]byte(nil), data[at:to]...)
		for range 1 + r.IntN(40) {
			data = insert(data, at, piece)
		}
	case 6: // something else's end
		other := seeds[r.IntN(len(seeds))]
		return append(data[:at:at], other[r.IntN(len(other)+1):]...)
	case 7:
		return insert(data, at, []byte(words[r.IntN(len(words))]))
	case 8:
		return overwrite(data, at, []byte(words[r.IntN(len(words))]))
	}
	return data
}

func number(r *rand.Rand) []byte {
	v, width := telling[r.IntN(len(telling))], 1<<r.IntN(4)
	b := make([]byte, width)
	big := r.IntN(2) == 0
	for i := range b {
		if big {
			b[width-1-i] = byte(v >> (8 * i))
		} else {
			b[i] = byte(v >> (8 * i))
		}
	}
	return b
}

func overwrite(data []byte, at int, b []byte) []byte {
	copy(data[min(at, len(data)):], b)
	return data
}

func insert(data []byte, at int, b []byte) []byte {
	out := append(append(make([]byte, 0, len(data)+len(b)), data[:at]...), b...)
	return append(out, data[at:]...)
}

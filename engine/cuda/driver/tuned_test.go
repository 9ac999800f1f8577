package driver

import (
	"encoding/binary"
	"math"
	"strings"
	"testing"

	"lorad/engine/cuda/device"
	cpu "lorad/engine/kernel"
)

// A table is taken for what it was measured against, and for nothing else.
func TestTable(t *testing.T) {
	of := product(false, true, 64, 32, 48, device.Matrix{At: 1 << 20, LD: 48, Type: device.BF16}, device.Matrix{At: 1<<20 + 96, LD: 64, Type: device.BF16}, device.Matrix{At: 1<<20 + 2, LD: 32})
	if of.AlignA != 256 || of.AlignB != 32 || of.AlignC != 2 || of.In != device.BF16 || of.Out != device.F32 {
		t.Fatalf("%+v", of)
	}
	all, err := readTables(nil)
	if err != nil {
		t.Fatal(err)
	}
	first, by := algorithm{1, 1 << 63}, algorithm{2}
	all.of("GPU 1", 120205).put(tunedProduct{of, first, algorithm{9}})
	all.of("GPU 1", 120205).put(tunedProduct{of, first, by})
	text, err := all.text()
	if err != nil {
		t.Fatal(err)
	}
	again, err := readTables(text)
	if err != nil {
		t.Fatal(err)
	}
	read := again.of("GPU 1", 120205)
	if got, ok := read.better(of, first); !ok || got != by {
		t.Errorf("%v, %t", got, ok)
	}
	if _, ok := read.better(of, by); ok {
		t.Error("measured against another algorithm than the heuristic names now")
	}
	other := of
	other.AlignC = 4
	if _, ok := read.better(other, first); ok {
		t.Error("another alignment")
	}
	if n := len(again.of("GPU 2", 120205).Better) + len(again.of("GPU 1", 120206).Better); n != 0 {
		t.Errorf("%d products of another device, or another version", n)
	}
	for _, damage := range []string{strings.Replace(string(text), `"N": 32`, `"N": 33`, 1), string(text[:len(text)/2]), "{}", `{"tables":[null]}`} {
		if got, err := readTables([]byte(damage)); err == nil || len(got.Tables) > 0 {
			t.Errorf("damaged tables are read: %.60q", damage)
		}
	}
}

// Operands that Tune compares algorithms on show any other order, cut or width of sums, in results of 16 bits too.
func TestOperandsShowTheOrder(t *testing.T) {
	const m, n = 24, 32
	for _, k := range []int{33, 64, 1024, 2112} {
		a, b := operand(0, m, k, k+8, false, device.BF16, false), operand(1, n, k, n+8, true, device.BF16, true)
		at := func(x []byte, i int) float32 { return cpu.WidenBF16(binary.LittleEndian.Uint16(x[2*i:])) }
		term := func(i, j, l int) float32 { return at(a, i*(k+8)+l) * at(b, l*(n+8)+j) }
		sum := func(i, j, lo, hi, step int) (s float32) {
			for l := lo; l < hi; l += step {
				s += term(i, j, l)
			}
			return s
		}
		orders := map[string]func(i, j int) float32{
			"backwards": func(i, j int) (s float32) {
				for l := k - 1; l >= 0; l-- {
					s += term(i, j, l)
				}
				return s
			},
			"two interleaved":   func(i, j int) float32 { return sum(i, j, 0, k, 2) + sum(i, j, 1, k, 2) },
			"cut in the middle": func(i, j int) float32 { return sum(i, j, 0, k/2, 1) + sum(i, j, k/2, k, 1) },
			"tiles of 16": func(i, j int) (s float32) {
				for l := 0; l < k; l += 16 {
					s += sum(i, j, l, min(l+16, k), 1)
				}
				return s
			},
			"in f64": func(i, j int) float32 {
				var s float64
				for l := range k {
					s += float64(term(i, j, l))
				}
				return float32(s)
			},
		}
		for name, f := range orders {
			other := 0
			for i := range m {
				for j := range n {
					if cpu.RoundBF16(f(i, j)) != cpu.RoundBF16(sum(i, j, 0, k, 1)) {
						other++
					}
				}
			}
			if t.Logf("k %d, %s: %.0f %% of the elements differ", k, name, 100*float64(other)/(m*n)); other == 0 {
				t.Errorf("k %d, %s: not seen", k, name)
			}
		}
	}
	if math.IsNaN(float64(cpu.WidenBF16(randomBF16()[0]))) {
		t.Error("a number is none")
	}
}

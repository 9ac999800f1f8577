package hostile

import (
	"bytes"
	"testing"
)

// TestInputsAreAFunctionOfTheirNumber, differ, and leave the seeds alone.
func TestInputsAreAFunctionOfTheirNumber(t *testing.T) {
	seeds := [][]byte{[]byte(`{"a": [1, 2, 3], "b": "text"}`), {0, 0, 0, 9, 1, 2, 3, 4}}
	was := [][]byte{bytes.Clone(seeds[0]), bytes.Clone(seeds[1])}
	seen := map[string]bool{}
	for i := range uint64(1000) {
		in := Input(seeds, i)
		if !bytes.Equal(in, Input(seeds, i)) {
			t.Fatalf("input %d is not always the same", i)
		}
		seen[string(in)] = true
	}
	if len(seen) < 800 {
		t.Errorf("%d different inputs of 1000", len(seen))
	}
	if !bytes.Equal(seeds[0], was[0]) || !bytes.Equal(seeds[1], was[1]) {
		t.Error("the seeds were changed")
	}
}

// TestItFinds: what it is there to find.
func TestItFinds(t *testing.T) {
	greedy := Parser{Seeds: [][]byte{{1}}, Memory: func(n int) int { return n }, Small: 1}
	var sink []byte
	greedy.Parse = func(testing.TB, []byte) { sink = make([]byte, 64<<20) }
	if _, got := measure(t, greedy, 0, []byte{1}); got < 64<<20 {
		t.Errorf("64 MiB allocated, %d seen", got)
	}
	_ = sink
}

package replica

import (
	"bytes"
	"testing"

	"lorad/internal/hostile"
)

// tryState reads a state.bin. What is refused leaves the replica as it was; what is accepted is written the same.
func tryState(t testing.TB, data []byte) {
	tryOn(t, fresh(1, 2, 3), data)
	tryOn(t, remembering(1, 2, 3), data)
}

func tryOn(t testing.TB, r *Replica, data []byte) {
	before := r.Digest()
	if err := r.Decode(bytes.NewReader(data)); err != nil {
		if r.Digest() != before {
			t.Errorf("refused (%v) and changed", err)
		}
		return
	}
	var out bytes.Buffer
	if err := r.Encode(&out); err != nil || !bytes.HasPrefix(data, out.Bytes()) {
		t.Errorf("accepted and written differently: %v", err)
	}
}

func states(t testing.TB) [][]byte {
	t.Helper()
	var all [][]byte
	for _, r := range []*Replica{fresh(1, 2, 3), remembering(1, 2, 3)} {
		for range 2 {
			r.Step([]float32{1, -1, 0})
			r.Observe(1)
		}
		var out bytes.Buffer
		if err := r.Encode(&out); err != nil {
			t.Fatal(err)
		}
		all = append(all, out.Bytes())
	}
	return all
}

func FuzzState(f *testing.F) {
	f.Add(states(f)[0])
	f.Fuzz(func(t *testing.T, data []byte) { tryState(t, data) })
}

func TestHostileStates(t *testing.T) {
	hostile.Test(t, hostile.Parser{Seeds: states(t), Parse: tryState, Small: 5_000, Memory: func(n int) int { return 1<<20 + 16*n }})
}

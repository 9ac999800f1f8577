package data

import (
	"io"
	"strings"
	"testing"
)

// Shares add up to what there is, also where nothing is left to mix and where a temperature makes powers that no float holds.
func TestSharesAtTheEdges(t *testing.T) {
	for name, c := range map[string]struct {
		sizes       []int
		temperature float64
		want        []int
	}{
		"nothing in one file":     {[]int{0}, 1, []int{0}},
		"nothing in three":        {[]int{0, 0, 0}, 2, []int{0, 0, 0}},
		"by weights":              {[]int{0}, 0, []int{0}},
		"the largest takes all":   {[]int{1000, 2000}, 0.001, []int{0, 3000}},
		"the largest two, evenly": {[]int{2000, 2000, 1}, 1e-300, []int{2001, 2000, 0}},
		"weights out of range":    {[]int{2, 2}, 0, []int{2, 2}},
	} {
		got := shares(c.sizes, []float64{1e308, 1e308, 1e308}, c.temperature)
		for i, n := range c.want {
			if got[i] != n {
				t.Errorf("%s: %v, want %v", name, got, c.want)
				break
			}
		}
	}
}

// With everything held out there is nothing to mix, and the error says so.
func TestMixOfNothing(t *testing.T) {
	s := Source{Name: "a.jsonl", Open: func() (r io.ReadCloser, err error) { return io.NopCloser(strings.NewReader(`{"text": "one"}`)), nil }}
	_, err := Build([]Source{s}, Options{ValSetSize: 1, MixTemperature: 1}, byteTokenizer{}, "")
	if err == nil || !strings.Contains(err.Error(), "no training example is left") {
		t.Errorf("%v", err)
	}
}

package data

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func contents(examples []Example) []string {
	var out []string
	for _, ex := range examples {
		out = append(out, ex.Completion)
	}
	slices.Sort(out)
	return out
}

func TestSplit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(2, 60).Draw(t, "n")
		want := rapid.IntRange(0, n-1).Draw(t, "validation")
		opt := Options{Seed: rapid.Uint64().Draw(t, "seed"), ValSetSize: float64(want)}
		if rapid.Bool().Draw(t, "as a fraction") { // rounded up
			opt.ValSetSize = (float64(want) - rapid.Float64Range(0, 0.99).Draw(t, "less")) / float64(n)
			opt.ValSetSize = max(0, opt.ValSetSize)
		}
		in := texts(n)
		a := build(t, opt, "", in...)
		if got := len(a.Val); got != want {
			t.Fatalf("%d of %d for %v, want %d", got, n, opt.ValSetSize, want)
		}
		all := slices.Concat(contents(a.Train), contents(a.Val))
		slices.Sort(all)
		if len(slices.Compact(all)) != n {
			t.Fatal("the sides are not a partition")
		}
		b := build(t, opt, "", rapid.Permutation(in).Draw(t, "order")...)
		if !slices.Equal(contents(a.Val), contents(b.Val)) {
			t.Fatal("the validation side depends on the order of lines")
		}
	})
}

func TestSplitDependsOnSeedAndKeepsTwinsTogether(t *testing.T) {
	a, b := build(t, Options{Seed: 1, ValSetSize: 10}, "", texts(100)...), build(t, Options{Seed: 2, ValSetSize: 10}, "", texts(100)...)
	if slices.Equal(contents(a.Val), contents(b.Val)) {
		t.Error("two seeds, one split")
	}
	for size := range 40 {
		set := build(t, Options{ValSetSize: float64(size)}, "", slices.Concat(texts(20), texts(20), texts(1))...)
		for _, ex := range set.Val {
			if slices.Contains(contents(set.Train), ex.Completion) {
				t.Fatalf("val_set_size %d: %q is on both sides", size, ex.Completion)
			}
		}
	}
}

func TestHeldOutFiles(t *testing.T) {
	held := lines("held.jsonl", `{"text": "b"}`, `{"text": "c"}`)
	held.HeldOut = true
	set, err := Build([]Source{lines("train.jsonl", `{"text": "a"}`, `{"text": "b"}`), held}, Options{}, byteTokenizer{}, "")
	if err != nil {
		t.Fatal(err)
	}
	if len(set.Train) != 2 || len(set.Val) != 2 || !slices.Contains(set.Report.Warnings, "1 held-out examples are in the training set too") {
		t.Errorf("%+v", set.Report)
	}
}

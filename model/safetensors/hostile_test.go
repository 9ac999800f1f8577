package safetensors_test

import (
	"os"
	"testing"

	"lorad/internal/hostile"
)

func TestHostileFiles(t *testing.T) {
	var seeds [][]byte
	for _, c := range malformed {
		seeds = append(seeds, c.bytes)
	}
	for _, name := range []string{"f32.safetensors", "mixed.safetensors"} {
		b, err := os.ReadFile("testdata/" + name)
		if err != nil {
			t.Fatal(err)
		}
		seeds = append(seeds, b, b, b)
	}
	hostile.Test(t, hostile.Parser{Seeds: seeds, Parse: tryOpen, Small: 5_000, Memory: func(n int) int { return 1<<20 + 200*n }})
}

package job

import (
	"testing"

	"lorad/internal/hostile"
)

func TestHostileJobs(t *testing.T) {
	var seeds [][]byte
	for _, s := range []string{head, head + "lora_r: 8\nlora_alpha: 16\nlora_target_modules: [q_proj, v_proj]\nlearning_rate: 2e-4\n", "a: &x [*x]", "datasets: [[[]]]"} {
		seeds = append(seeds, []byte(s))
	}
	hostile.Test(t, hostile.Parser{Seeds: seeds, Parse: tryParse, Small: 2_000, Memory: func(n int) int { return 4<<20 + 5000*n }})
}

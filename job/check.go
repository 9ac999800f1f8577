package job

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Range checks get the converted value and return the complaint, or "".

func intIn(lo, hi int) func(any) string {
	return func(v any) string {
		if n := v.(int); n < lo || n > hi {
			return fmt.Sprintf("%d; give %d to %d", n, lo, hi)
		}
		return ""
	}
}

func positive(v any) string {
	if x := v.(float64); !(x > 0) || math.IsInf(x, 0) {
		return fmt.Sprintf("%v; give a number above 0", x)
	}
	return ""
}

func notNegative(v any) string {
	if x := v.(float64); !(x >= 0) || math.IsInf(x, 0) {
		return fmt.Sprintf("%v; give 0 or more", x)
	}
	return ""
}

func below1(v any) string {
	if x := v.(float64); !(x >= 0 && x < 1) {
		return fmt.Sprintf("%v; give 0 to below 1", x)
	}
	return ""
}

func countOrFraction(v any) string {
	if x := v.(float64); !(x >= 0) || x > 1e9 || x >= 1 && x != math.Trunc(x) {
		return fmt.Sprintf("%v; give a fraction below 1, or a whole number of examples", x)
	}
	return ""
}

func oneLine(v any) string {
	if strings.ContainsAny(v.(string), "\n\r\x00") {
		return "the value has more than one line"
	}
	return ""
}

func difficulty(v any) string {
	s := v.(string)
	if column, ok := strings.CutPrefix(s, DifficultyColumn); ok && column != "" && oneLine(s) == "" {
		return ""
	}
	if s == DifficultyHeuristic {
		return ""
	}
	return fmt.Sprintf("%q; give heuristic, or column:NAME of a numeric column", s)
}

// loraInit accepts the starts of adapters that lorad knows; PEFT has others.
func loraInit(v any) string {
	s := v.(string)
	rounds, fast := strings.CutPrefix(s, "pissa_niter_")
	if n, err := strconv.Atoi(rounds); fast && err == nil && n >= 1 && n <= 1000 || s == LoRAInitDefault || s == "gaussian" || s == "pissa" {
		return ""
	}
	return fmt.Sprintf("not supported: %q; give default, gaussian, pissa or pissa_niter_N (N rounds, 1 to 1000)", s)
}

// ceil rounds up, but not because of the last bit of a product (0.07 * 100 = 7.000000000000001).
func ceil(x float64) int {
	if r := math.Round(x); math.Abs(x-r) <= 1e-9*r {
		return int(r)
	}
	return int(math.Ceil(x))
}

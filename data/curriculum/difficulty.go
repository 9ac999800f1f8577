package curriculum

import "strings"

// Difficulty is the tutorial's measure of a text: words/100 + distinct words/words, where words are what white
// space separates, compared as they are written. The empty text has difficulty 0.
func Difficulty(text string) float64 {
	words := strings.Fields(text)
	if len(words) == 0 {
		return 0
	}
	distinct := make(map[string]struct{}, len(words))
	for _, w := range words {
		distinct[w] = struct{}{}
	}
	n := float64(len(words))
	return n/100 + float64(len(distinct))/n
}

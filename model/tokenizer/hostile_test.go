package tokenizer_test

import (
	"testing"

	"lorad/internal/hostile"
)

func TestHostileFiles(t *testing.T) {
	seeds := [][]byte{
		file(),
		file("NORM", `{"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "_"}, {"type": "Replace", "pattern": {"String": " "}, "content": "_"}]}`),
		file("PRE", `{"type": "Split", "pattern": {"Regex": "\\s+(?!\\S)|[^\\s]"}, "behavior": "MergedWithNext", "invert": true}`, "DEC", `{"type": "ByteLevel"}`),
		file("ADDED", `[{"id": 4, "content": "<x>", "single_word": true, "lstrip": true, "rstrip": true, "normalized": true, "special": true}]`),
	}
	hostile.Test(t, hostile.Parser{Seeds: seeds, Parse: tryLoad, Small: 3_000, Memory: func(n int) int { return 8<<20 + 1000*n }})
}

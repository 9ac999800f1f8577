package main

import (
	"path/filepath"
	"strings"
	"testing"
)

// An adapter that was trained on a base in 4 bits is merged into the same model in another type, and says so.
func TestMergeIntoFourBits(t *testing.T) {
	_, err := openAdapter(t.TempDir(), filepath.Join("..", "..", "engine", "llama", "testdata", "qlora", "nf4"))
	if err == nil || !strings.Contains(err.Error(), "is in 4 bits") || !strings.Contains(err.Error(), "--base-model") {
		t.Error(err)
	}
}

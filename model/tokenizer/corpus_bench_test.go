package tokenizer_test

import (
	"crypto/sha256"
	"encoding/binary"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"lorad/model/tokenizer"
)

var corpus = flag.String("corpus", "", "folder that scripts/oracle/tokenizer_peer.py has prepared: documents.txt and tokenizers")

// BenchmarkCorpus is lorad's side of scripts/oracle/tokenizer_peer.py: 10 MB of English, the documents one by one and the text as a whole.
// It logs a hash of the ids, which the script compares.
func BenchmarkCorpus(b *testing.B) {
	if *corpus == "" {
		b.Skip("needs -corpus: a folder made by scripts/oracle/tokenizer_peer.py")
	}
	text, err := os.ReadFile(filepath.Join(*corpus, "documents.txt"))
	if err != nil {
		b.Fatal(err)
	}
	documents := strings.Split(string(text), "\x00")
	files, err := filepath.Glob(filepath.Join(*corpus, "*.json"))
	if err != nil || len(files) == 0 {
		b.Fatalf("no tokenizers in %s: %v", *corpus, err)
	}
	for _, path := range files {
		name := strings.TrimSuffix(filepath.Base(path), ".json")
		file, err := os.ReadFile(path)
		if err != nil {
			b.Fatal(err)
		}
		tok, err := tokenizer.Load(file, nil)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(name+"/documents", func(b *testing.B) { encodeAll(b, tok, documents) })
		b.Run(name+"/text", func(b *testing.B) { encodeAll(b, tok, []string{strings.Join(documents, "")}) })
	}
}

// encodeAll counts the time of the processor, garbage collection included: other programs may be running.
func encodeAll(b *testing.B, tok *tokenizer.Tokenizer, texts []string) {
	ids := make([][]int32, len(texts))
	size, start := 0, cpuSeconds(b)
	for b.Loop() {
		for i, s := range texts {
			ids[i] = tok.Encode(s, false)
			size += len(s)
		}
	}
	b.ReportMetric(float64(size)/1e6/(cpuSeconds(b)-start), "MB/cpu-s")
	h := sha256.New()
	for _, one := range ids {
		binary.Write(h, binary.LittleEndian, one)
	}
	b.Logf("ids %x", h.Sum(nil))
}

func cpuSeconds(b *testing.B) float64 {
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		b.Fatal(err)
	}
	return float64(used.Utime.Nano()+used.Stime.Nano()) / 1e9
}

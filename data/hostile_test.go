package data

import (
	"bytes"
	"io"
	"os"
	"testing"

	"lorad/internal/hostile"
)

// tryTable builds examples of a file whose name ends in ext.
func tryTable(ext string) func(testing.TB, []byte) {
	return func(_ testing.TB, b []byte) {
		s := Source{Name: "x" + ext, Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }}
		Build([]Source{s}, Options{SequenceLen: 40}, byteTokenizer{}, "")
	}
}

func TestHostileJSONL(t *testing.T) {
	var seeds [][]byte
	for _, s := range []string{`{"text": "a"}`, `{"messages": [{"role": "user", "content": "U"}, {"role": "assistant", "content": "A"}]}`,
		`{"conversations": [{"from": "human", "value": "x"}, {"from": "gpt", "value": "y"}]}` + "\n" + `{"text": "b"}`, `{"instruction": "do", "output": "x", "input": "3"}`} {
		seeds = append(seeds, []byte(s))
	}
	parse := func(t testing.TB, b []byte) { tryBuild(t, string(b)) }
	hostile.Test(t, hostile.Parser{Seeds: seeds, Parse: parse, Small: 2_000, Memory: func(n int) int { return 16<<20 + 2000*n }})
}

func TestHostileCSV(t *testing.T) {
	seeds := [][]byte{[]byte("instruction,input,output\n\"Say \"\"hi\"\"\",,hi\n\"two\nlines\",x,\"a,b\"\n")}
	hostile.Test(t, hostile.Parser{Seeds: seeds, Parse: tryTable(".csv"), Small: 1_000, Memory: func(n int) int { return 16<<20 + 2000*n }})
}

func FuzzParquet(f *testing.F) {
	f.Add(parquetFile(f))
	f.Fuzz(func(t *testing.T, b []byte) { tryTable(".parquet")(t, b) })
}

func parquetFile(t testing.TB) []byte {
	t.Helper()
	b, err := os.ReadFile("testdata/chats.parquet")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestHostileParquet: a page may unpack to a thousand times its size, so the bound is far above what the damaged copies take.
func TestHostileParquet(t *testing.T) {
	hostile.Test(t, hostile.Parser{Seeds: [][]byte{parquetFile(t)}, Parse: tryTable(".parquet"), Small: 100, Memory: func(n int) int { return 64<<20 + 3000*n }})
}

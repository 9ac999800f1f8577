package node

import (
	"bytes"
	"testing"

	"lorad/internal/hostile"
	"lorad/proto"
)

func tryRecords(_ testing.TB, data []byte) { readRecords(bytes.NewReader(data)) }

func records(t testing.TB) [][]byte {
	t.Helper()
	var b bytes.Buffer
	if err := writeRecords(&b, []*proto.StepRecord{{Step: 1, Loss: 2, Node: "a"}, {Step: 2, Digest: 7}}); err != nil {
		t.Fatal(err)
	}
	return [][]byte{b.Bytes(), {0xff, 0xff, 0xff, 0x0f, 1, 2}}
}

func FuzzRecords(f *testing.F) {
	for _, s := range records(f) {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, data []byte) { tryRecords(t, data) })
}

func TestHostileRecords(t *testing.T) {
	hostile.Test(t, hostile.Parser{Seeds: records(t), Parse: tryRecords, Small: 20_000, Memory: func(n int) int { return 64<<10 + 100*n }})
}

package checkpoint

import (
	"os"
	"path/filepath"
	"testing"

	"lorad/internal/hostile"
)

// TestHostileCheckpoints: a damaged lorad_state.json or state.bin is passed over, and never restored.
func TestHostileCheckpoints(t *testing.T) {
	dir := t.TempDir()
	save(t, dir, 3)
	for _, name := range []string{metaFile, stateFile} {
		path := filepath.Join(Path(dir, 3), name)
		good, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		want := at(3).Digest()
		try := func(t testing.TB, data []byte) {
			if err := os.WriteFile(path, data, 0o600); err != nil {
				t.Fatal(err)
			}
			r := at(0)
			if step, _ := Restore(dir, "run", 10, r); step != 0 && r.Digest() != want {
				t.Errorf("restored step %d with digest %016x", step, r.Digest())
			}
		}
		hostile.Test(t, hostile.Parser{Seeds: [][]byte{good}, Parse: try, Small: 300, Memory: func(n int) int { return 1<<20 + 100*n }})
		if err := os.WriteFile(path, good, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

package model

import (
	"testing"
	"testing/fstest"

	"lorad/internal/hostile"
	"os"
)

// tryConfig reads a config.json; what is accepted has sizes that a model can be built of.
func tryConfig(t testing.TB, data []byte) {
	c, err := ReadConfig(data)
	if err == nil && c.Validate() != nil {
		t.Errorf("accepted and not valid: %+v", c)
	}
}

// tryIndex opens a folder whose list of shards is data.
func tryIndex(t testing.TB, data []byte) {
	f, err := Open(fstest.MapFS{"config.json": {Data: configs(t)[0]}, indexFile: {Data: data}})
	if err == nil {
		f.Close()
	}
}

func configs(t testing.TB) (all [][]byte) {
	t.Helper()
	for _, dir := range []string{"v4", "v5", "v4-scaled", "v5-scaled"} {
		b, err := os.ReadFile("testdata/" + dir + "/config.json")
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, b)
	}
	return all
}

func indexes(t testing.TB) [][]byte {
	t.Helper()
	b, err := os.ReadFile("testdata/v5-sharded/" + indexFile)
	if err != nil {
		t.Fatal(err)
	}
	return [][]byte{b, []byte(`{"weight_map": {"a": "../../etc/passwd"}}`), []byte(`{"weight_map": {"a": "/x.safetensors", "b": "a/../b.safetensors"}}`)}
}

func FuzzConfig(f *testing.F) {
	for _, b := range configs(f) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, data []byte) { tryConfig(t, data) })
}

func TestHostileConfigs(t *testing.T) {
	hostile.Test(t, hostile.Parser{Seeds: configs(t), Parse: tryConfig, Small: 5_000, Memory: func(n int) int { return 1<<20 + 100*n }})
}

func TestHostileIndexes(t *testing.T) {
	hostile.Test(t, hostile.Parser{Seeds: indexes(t), Parse: tryIndex, Small: 2_000, Memory: func(n int) int { return 1<<20 + 200*n }})
}

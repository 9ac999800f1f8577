package model

import (
	"crypto/sha256"
	"fmt"
	"io"
	"maps"
	"slices"
)

// Fingerprint identifies the weights, however they are cut into files: SHA-256 over, for each tensor in the order of its name,
// "name\x00dtype\x00shape\x00" and its bytes as they are stored. It reads all of them.
func (f *Folder) Fingerprint() ([32]byte, error) {
	h := sha256.New()
	if f.weights == nil {
		return [32]byte{}, fmt.Errorf("fingerprint: the folder has no weights")
	}
	for _, name := range slices.Sorted(maps.Keys(f.weights.at)) {
		file := f.weights.at[name]
		dtype, shape, _ := file.Info(name)
		fmt.Fprintf(h, "%s\x00%s\x00%v\x00", name, dtype, shape)
		r, err := file.Reader(name)
		if err == nil {
			_, err = io.Copy(h, r)
		}
		if err != nil {
			return [32]byte{}, fmt.Errorf("fingerprint: tensor %q: %w", name, err)
		}
	}
	return [32]byte(h.Sum(nil)), nil
}

// StoredAs is the element type that a weight is kept in, "" if there is none of that name.
func (f *Folder) StoredAs(name string) string {
	if f.weights == nil || f.weights.at[name] == nil {
		return ""
	}
	d, _, _ := f.weights.at[name].Info(name)
	return string(d)
}

//go:build !linux

package coordinator

// reserve is not known here.
func reserve(string, int64) error { return nil }

//go:build !linux

package main

import "errors"

// limitFiles is for Linux.
func limitFiles(int, int64) error {
	return errors.New("faults of kind disk need Linux; leave them out with --faults")
}

package driver

import (
	"errors"
	"strings"
	"testing"
)

// A program without a driver says so, and goes on. With the build tag this is the shim's own answer: gorgonia.org/cu has already asked for a driver by now.
func TestWithoutADriver(t *testing.T) {
	c := Config{CUDA: "libcuda-of-nobody.so.1", BLAS: "libcublas-of-nobody.so"}
	_, err := Open(c, 0)
	if !errors.Is(err, ErrOff) {
		t.Fatalf("Open: %v", err)
	}
	f := Look(c)
	if !errors.Is(f.DriverErr, ErrOff) || f.BLASErr == nil || len(f.Devices) > 0 {
		t.Errorf("Look: %+v", f)
	}
	for _, e := range []error{err, f.DriverErr, f.BLASErr} {
		if !strings.Contains(e.Error(), "install") && !strings.Contains(e.Error(), "scripts/build.sh") {
			t.Errorf("says no remedy: %v", e)
		}
	}
	if strings.Count(err.Error(), "\n") > 0 {
		t.Errorf("not one line: %q", err)
	}
}

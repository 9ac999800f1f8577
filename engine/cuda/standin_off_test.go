//go:build !cuda || !linux

package cuda

import (
	"testing"

	"lorad/engine/cuda/device"
)

// throughDriver needs the tag cuda.
func throughDriver(*testing.T, string, func(*testing.T, func(testing.TB) device.Device)) {}

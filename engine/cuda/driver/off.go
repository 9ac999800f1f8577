//go:build !cuda || !linux

package driver

import (
	"fmt"

	"lorad/engine/cuda/device"
)

var errBuild = fmt.Errorf("%w: this program was built without it: take the full one, which scripts/build.sh makes on Linux with a C compiler", ErrOff)

// Look says why there is nothing.
func Look(Config) Found { return Found{DriverErr: errBuild, BLASErr: errBuild} }

// Open says why there is no device.
func Open(Config, int) (device.Device, error) { return nil, errBuild }

//go:build !cuda || !linux

package gpu

import "fmt"

// Monitor watches nothing in this build.
type Monitor struct{}

// Open says why.
func Open() (*Monitor, error) {
	return nil, fmt.Errorf("%w: this program was built without GPUs: take the full one, which scripts/build.sh makes on Linux with a C compiler", ErrNone)
}

// Look is never reached: there is no Monitor.
func (*Monitor) Look() (Inventory, error) { return Inventory{}, ErrNone }

// Close gives nothing back.
func (*Monitor) Close() {}

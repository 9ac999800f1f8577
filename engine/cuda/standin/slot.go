package standin

import (
	"fmt"
	"math"

	"lorad/engine/cuda/device"
)

// slot is the eight bytes that an argument lies in; a kernel reads the first ones if it wants fewer.
func slot(a any) (uint64, error) {
	switch v := a.(type) {
	case device.Ptr:
		return uint64(v), nil
	case int:
		return uint64(v), nil
	case int32:
		return uint64(uint32(v)), nil
	case uint32:
		return uint64(v), nil
	case int64:
		return uint64(v), nil
	case uint64:
		return v, nil
	case float32:
		return uint64(math.Float32bits(v)), nil
	}
	return 0, fmt.Errorf("a %T is no argument of a kernel", a)
}

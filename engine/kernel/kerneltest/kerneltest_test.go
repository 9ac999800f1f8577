package kerneltest

import (
	"testing"

	"lorad/engine/kernel"
)

func TestReference(t *testing.T) { Conformance(t, kernel.NewRef[float32]()) }

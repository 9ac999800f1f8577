//go:build !amd64

package optim

func stepVector(*scalars, []float32, []float32, []float32, []float32) int { return 0 }

func stepVector8(*scalars8, []float32, []float32, []float32, []float32) int { return 0 }

func squaresVector(*[4]float64, []float32) int { return 0 }

func scaleVector([]float32, float32) int { return 0 }

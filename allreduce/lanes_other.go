//go:build !amd64

package allreduce

const vbmi = false

func fastAccumulate([]int64, []float32, float64, float64) int { return 0 }

func fastRound([]float32, []int64, float32) int { return 0 }

func fastPack([]byte, []int64, uint) int { return 0 }

func fastAdd([]int64, []int64, []byte, uint) int { return 0 }

func fastPackDelta([]byte, []float32, uint32, uint) int { return 0 }

func fastUnpackDelta([]float32, uint32, []byte, uint) int { return 0 }

func fastWidth([]int64) (or, neg int64, n int) { return 0, 0, 0 }

func fastMagnitudes([]float32) (lo, hi uint32, n int) { return 1<<32 - 1, 0, 0 }

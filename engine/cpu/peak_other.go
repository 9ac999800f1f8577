//go:build !amd64

package cpu

func peakLoops() loops {
	levels := Available()
	return tileLoops(levels[len(levels)-1])
}

//go:build !amd64 && !arm64

package cpu

func supported(l Level) bool { return l == Go }

func kernelsOf(Level) kernels { return kernelsGo() }

package bench

import (
	"bytes"
	"os"
	"strconv"
	"syscall"
)

// PeakRSS is the largest resident size that this process had, in bytes. Linux's getrusage would count the process that started this one, so
// /proc is asked first.
func PeakRSS() float64 {
	status, err := os.ReadFile("/proc/self/status")
	if err == nil {
		for line := range bytes.Lines(status) {
			if f := bytes.Fields(line); len(f) == 3 && string(f[0]) == "VmHWM:" {
				kib, _ := strconv.ParseFloat(string(f[1]), 64)
				return kib * 1024
			}
		}
	}
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return float64(u.Maxrss) // bytes where there is no /proc: macOS
}

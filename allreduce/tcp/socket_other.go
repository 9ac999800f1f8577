//go:build !linux

package tcp

import (
	"syscall"
	"time"
)

// minRTT: other systems keep the figure elsewhere or not at all; the members then assume a local network.
func minRTT(syscall.Conn) time.Duration { return 0 }

// goByLosses: other systems do so, or have no choice for one connection.
func goByLosses(syscall.Conn) {}

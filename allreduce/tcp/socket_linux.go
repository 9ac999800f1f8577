package tcp

import (
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// minRTT asks the kernel, which measures every connection all the time: better than what a ping through a busy writer says.
func minRTT(conn syscall.Conn) time.Duration {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0
	}
	var rtt time.Duration
	_ = raw.Control(func(fd uintptr) {
		if info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil && info.Min_rtt != ^uint32(0) {
			rtt = time.Duration(info.Min_rtt) * time.Microsecond
		}
	})
	return rtt
}

// goByLosses has the kernel judge a connection by its losses. It may not be allowed to; then the system's choice stays.
func goByLosses(conn syscall.Conn) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		for _, name := range []string{"cubic", "reno"} { // where neither is the default, often only the second is for everybody
			if unix.SetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION, name) == nil {
				return
			}
		}
	})
}

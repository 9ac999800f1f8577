package transport

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// peerUID asks the kernel which user is at the other end.
func peerUID(c *net.UnixConn) (int, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var failed error
	err = raw.Control(func(fd uintptr) {
		cred, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err == nil {
		err = failed
	}
	if err != nil {
		return 0, err
	}
	return int(cred.Uid), nil
}

// reachable returns a name for path that is short enough for a socket: a long one is reached through an open
// descriptor of its directory. done closes that; the socket stays.
func reachable(path string) (short string, done func(), err error) {
	if len(path) <= maxSocket {
		return path, func() {}, nil
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return "", nil, err
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s", d.Fd(), filepath.Base(path)), func() { d.Close() }, nil
}

// unacknowledged is how long a packet connection may wait for the other machine to acknowledge anything. The
// kernel's own patience is a quarter of an hour, through which a healed partition would still look dead. Not for
// the other protocols: there a slow reader is a straggler and not a corpse.
const unacknowledged = 5 * time.Second

func impatient(c net.Conn) {
	t, ok := c.(*Conn)
	if !ok {
		return
	}
	tcp, ok := t.NetConn().(*net.TCPConn)
	if !ok {
		return
	}
	if raw, err := tcp.SyscallConn(); err == nil {
		raw.Control(func(fd uintptr) {
			unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(unacknowledged.Milliseconds()))
		})
	}
}

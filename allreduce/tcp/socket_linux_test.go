package tcp

import (
	"errors"
	"net"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestNearLinksGoByLosses: a link within a building does not keep a congestion control that goes by measured rates, whatever the system's is. A
// kernel may have less than the three that are tried, and a user may not be allowed all it has; reno is always there, for everybody.
func TestNearLinksGoByLosses(t *testing.T) {
	conn := selfCall(t)
	want, other := "reno", "reno"
	for _, name := range []string{"bbr", "cubic"} {
		if setControl(t, conn, name) == nil {
			other = name
		}
	}
	if other == "cubic" {
		want, other = "cubic", "reno"
	}
	if err := setControl(t, conn, other); err != nil {
		t.Fatal(err)
	}
	NewLink(conn)
	onSocket(t, conn, func(fd int) error {
		now, err := unix.GetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION)
		if now != want {
			t.Errorf("congestion control: %q, want %q", now, want)
		}
		return err
	})
}

// selfCall is a connection over loopback.
func selfCall(t *testing.T) net.Conn {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func setControl(t *testing.T, conn net.Conn, name string) (err error) {
	t.Helper()
	onSocket(t, conn, func(fd int) error {
		err = unix.SetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION, name)
		return nil
	})
	return err
}

func onSocket(t *testing.T, conn net.Conn, f func(fd int) error) {
	t.Helper()
	raw, err := conn.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var failed error
	err = raw.Control(func(fd uintptr) { failed = f(int(fd)) })
	if err := errors.Join(err, failed); err != nil {
		t.Fatal(err)
	}
}

package transport

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"google.golang.org/grpc"

	"lorad/ca"
)

const (
	socketName = "lorad.sock"
	lockName   = "lorad.sock.lock"
	// maxSocket is how long a socket's path may be: 108 bytes with the final zero on Linux, 104 on the BSDs.
	maxSocket = 100
)

// localConn is a connection of the machine's owner. Its peer has the role Owner and no node id.
type localConn struct{ *net.UnixConn }

func (localConn) Peer() ca.Peer { return ca.Peer{Role: ca.Owner} }

// localListener gives connections of our own user and of root.
type localListener struct {
	*net.UnixListener
	path string
}

// ListenLocal listens on a Unix socket in dir, which it makes with mode 0700 and which must be ours with no
// access for others: the file system is the authentication. A socket that a killed node left is replaced, one
// that answers is an error.
func ListenLocal(dir string) (net.Listener, error) {
	ln, err := listenLocal(dir)
	if err != nil {
		return nil, fmt.Errorf("listen on local socket in %s: %w", dir, err)
	}
	return ln, nil
}

func listenLocal(dir string) (net.Listener, error) {
	if err := privateDir(dir); err != nil {
		return nil, err
	}
	unlock, err := lock(filepath.Join(dir, lockName)) // two nodes that start at once must not both clear up
	if err != nil {
		return nil, err
	}
	defer unlock()
	path := filepath.Join(dir, socketName)
	if err := clearStale(path); err != nil {
		return nil, err
	}
	reach, done, err := reachable(path)
	if err != nil {
		return nil, err
	}
	defer done()
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: reach, Net: "unix"})
	if err != nil {
		return nil, err
	}
	ln.SetUnlinkOnClose(false) // it knows the socket by a path that may be short-lived
	return &localListener{ln, path}, nil
}

func privateDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	st, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	if !st.IsDir() {
		return errors.New("not a directory")
	}
	if owner, ok := st.Sys().(*syscall.Stat_t); ok && int(owner.Uid) != os.Geteuid() {
		return fmt.Errorf("it belongs to user %d; run as that user or choose another directory", owner.Uid)
	}
	if st.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("mode %o lets others in; run chmod 700 on it", st.Mode().Perm())
	}
	return nil
}

func lock(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		f.Close()
		return nil, err
	}
	return func() { f.Close() }, nil
}

// clearStale removes a socket that nobody listens on.
func clearStale(path string) error {
	c, err := dialUnix(context.Background(), path)
	if err == nil {
		c.Close()
		return errors.New("a lorad node is running here; stop it, or use another directory")
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (l *localListener) Accept() (net.Conn, error) {
	for {
		c, err := l.AcceptUnix()
		if err != nil {
			return nil, err
		}
		if uid, err := peerUID(c); err == nil && (uid == os.Geteuid() || uid == 0) {
			return localConn{c}, nil
		}
		c.Close()
	}
}

// Close stops listening and removes the socket.
func (l *localListener) Close() error {
	err := l.UnixListener.Close()
	if err == nil {
		err = os.Remove(l.path)
	}
	return err
}

func (l *localListener) Addr() net.Addr { return &net.UnixAddr{Name: l.path, Net: "unix"} }

// DialLocal returns a client of the node that runs in dir, already connected. The error is an *Error: of kind
// NotRunning if there is no node, NotOwner if it is somebody else's.
func DialLocal(ctx context.Context, dir string) (*grpc.ClientConn, error) {
	path := filepath.Join(dir, socketName)
	return connectedClient(ctx, opLocal, path, func(ctx context.Context, _ string) (net.Conn, error) {
		c, err := dialOwn(ctx, path)
		if err != nil {
			return nil, failed(opLocal, path, err)
		}
		return localConn{c}, nil
	}, largeReplies())
}

// dialOwn connects to a node of our own user or of root; root may talk to anybody's.
func dialOwn(ctx context.Context, path string) (*net.UnixConn, error) {
	c, err := dialUnix(ctx, path)
	if errors.Is(err, fs.ErrPermission) {
		return nil, &kindError{NotOwner, err}
	}
	if err != nil {
		return nil, &kindError{NotRunning, err}
	}
	uid, err := peerUID(c)
	if err == nil && (uid == os.Geteuid() || uid == 0 || os.Geteuid() == 0) {
		return c, nil
	}
	c.Close()
	return nil, &kindError{NotOwner, errors.Join(err, fmt.Errorf("user %d listens there", uid))}
}

func dialUnix(ctx context.Context, path string) (*net.UnixConn, error) {
	reach, done, err := reachable(path)
	if err != nil {
		return nil, err
	}
	defer done()
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	c, err := new(net.Dialer).DialContext(ctx, "unix", reach)
	if err != nil {
		return nil, err
	}
	return c.(*net.UnixConn), nil
}

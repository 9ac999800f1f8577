package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// localCluster is a cluster of real lorad processes on this machine, for the demo and for chaos.
type localCluster struct {
	dir     string
	lock    io.Closer              // held as long as this process lives: without it, dir is a dead cluster's
	prepare func(*localNode) error // nil: nodes start as they are
	nodes   []*localNode
	once    sync.Once
}

// localNode is one node; its process may be killed and started again.
type localNode struct {
	name    string
	dir     string
	addr    string // where others reach it
	bind    string // where it listens, if that is not addr; its own connections come from there then
	threads int
	command func(name string, args ...string) *exec.Cmd // nil: exec.Command
	log     io.Writer                                   // gets everything that the node says; nil: only the end of it is kept, in errs
	cmd     *exec.Cmd
	stdin   io.Closer // a node started with --until-stdin-closes ends when this process does, however that happens
	errs    *tail
	said    chan []byte   // its first line
	done    chan struct{} // closed when the process has ended
}

// started is the line that lorad up and lorad join print with -o json.
type started struct {
	Addr  string `json:"addr"`
	Token string `json:"token,omitempty"`
}

const (
	startTimeout = 30 * time.Second
	stopTimeout  = 5 * time.Second
)

// startCluster starts n nodes: the first makes the cluster, the others join it with a token.
func startCluster(ctx context.Context, n int) (*localCluster, error) {
	return startPrepared(ctx, n, nil)
}

// startPrepared starts n nodes each of which prepare has had a look at before.
func startPrepared(ctx context.Context, n int, prepare func(*localNode) error) (*localCluster, error) {
	dir, lock, err := clusterDir(os.TempDir())
	if err != nil {
		return nil, err
	}
	c := &localCluster{dir: dir, lock: lock, prepare: prepare}
	first, err := c.start(ctx, n, "", "up", "--token-uses", strconv.Itoa(n))
	if err != nil {
		c.stop()
		return nil, err
	}
	for range n - 1 {
		if _, err := c.start(ctx, n, first.Token, "join", first.Addr); err != nil {
			c.stop()
			return nil, err
		}
	}
	return c, nil
}

const (
	clusterPrefix = "lorad-cluster-"
	clusterLock   = "lock"
)

// clusterDir makes the folder of a new cluster, and removes those of clusters whose process was killed: their nodes have
// ended with it, but nobody was left to tidy up.
func clusterDir(temp string) (dir string, lock io.Closer, err error) {
	old, err := filepath.Glob(filepath.Join(temp, clusterPrefix+"*", clusterLock))
	if err != nil {
		return "", nil, err
	}
	for _, path := range old {
		if f, err := lockFile(path); err == nil {
			os.RemoveAll(filepath.Dir(path)) // another user's stays
			f.Close()
		}
	}
	if dir, err = os.MkdirTemp(temp, clusterPrefix+"*"); err != nil {
		return "", nil, err
	}
	fresh := filepath.Join(dir, "new") // nobody takes it for a dead cluster's before it is locked
	if lock, err = lockFile(fresh); err == nil {
		err = os.Rename(fresh, filepath.Join(dir, clusterLock))
	}
	return dir, lock, err
}

// lockFile fails if somebody else has the lock.
func lockFile(path string) (io.Closer, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// start runs one node more and returns when it is part of the cluster.
func (c *localCluster) start(ctx context.Context, of int, token string, verb ...string) (started, error) {
	i := len(c.nodes) + 1
	n := &localNode{
		name: fmt.Sprintf("node-%d", i), dir: filepath.Join(c.dir, strconv.Itoa(i)), addr: "127.0.0.1:0",
		threads: max(1, runtime.NumCPU()/of), errs: &tail{},
	}
	if c.prepare != nil {
		if err := c.prepare(n); err != nil {
			return started{}, err
		}
	}
	if err := n.launch(token, verb...); err != nil {
		return started{}, err
	}
	c.nodes = append(c.nodes, n)
	s, err := n.ready(ctx)
	n.addr = s.Addr
	return s, err
}

// launch starts the node's process. The token goes through the environment: arguments can be read by every user of the
// machine.
func (n *localNode) launch(token string, verb ...string) error {
	program, err := os.Executable()
	if err != nil {
		return err
	}
	args := append(verb, "--name", n.name, "--threads", strconv.Itoa(n.threads),
		"--until-stdin-closes", "--dir", n.dir, "-o", "json")
	args = append(args, n.network()...)
	if n.log != nil {
		args = append(args, "--verbose")
	}
	command := exec.Command
	if n.command != nil {
		command = n.command
	}
	cmd := command(program, args...)
	cmd.Stderr = n.errs
	if n.log != nil {
		cmd.Stderr = io.MultiWriter(n.errs, n.log)
	}
	if token != "" {
		cmd.Env = append(os.Environ(), tokenEnv+"="+token)
	}
	// Ctrl-C reaches the whole foreground group; the nodes must outlive it until they are stopped. A group of its own
	// also lets a node that is stopped with SIGSTOP end with this process: an orphaned group that has stopped members
	// gets SIGHUP and SIGCONT (POSIX, _exit).
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	endWithParent(cmd.SysProcAttr)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	r, w, err := os.Pipe() // not StdoutPipe, which Wait closes
	if err != nil {
		return err
	}
	cmd.Stdout = w
	err = cmd.Start()
	w.Close()
	if err != nil {
		r.Close()
		return fmt.Errorf("start %s: %w", n.name, err)
	}
	n.cmd, n.stdin, n.done, n.said = cmd, stdin, make(chan struct{}), make(chan []byte, 1)
	go firstLine(r, n.said)
	go func() { cmd.Wait(); close(n.done) }()
	return nil
}

// network is how the node listens and dials.
func (n *localNode) network() []string {
	if n.bind == "" {
		return []string{"--bind", n.addr}
	}
	host, _, _ := net.SplitHostPort(n.bind)
	return []string{"--bind", n.bind, "--advertise", n.addr, "--dial-from", host}
}

// firstLine hands on the first line, and reads on so that the node can always write.
func firstLine(r io.ReadCloser, to chan<- []byte) {
	defer r.Close()
	b := bufio.NewReader(r)
	line, _ := b.ReadBytes('\n')
	to <- line
	io.Copy(io.Discard, b)
}

// ready waits for the line that says that the node is up.
func (n *localNode) ready(ctx context.Context) (started, error) {
	var s started
	select {
	case line := <-n.said:
		if err := json.Unmarshal(line, &s); err != nil {
			<-n.done // it has ended, and all that it had to say is there
			return s, fmt.Errorf("%s did not start: %s", n.name, n.errs)
		}
		return s, nil
	case <-ctx.Done():
		return s, ctx.Err()
	case <-time.After(startTimeout):
		return s, fmt.Errorf("%s did not start within %s: %s", n.name, startTimeout, n.errs)
	}
}

// stop ends all nodes and removes their state. It may be called more than once.
func (c *localCluster) stop() {
	c.once.Do(func() {
		for _, n := range c.nodes {
			n.cmd.Process.Signal(syscall.SIGTERM)
			n.cmd.Process.Signal(syscall.SIGCONT)
		}
		late, cancel := context.WithTimeout(context.Background(), stopTimeout)
		defer cancel()
		for _, n := range c.nodes {
			select {
			case <-n.done:
			case <-late.Done():
				n.cmd.Process.Kill()
				<-n.done
			}
			n.stdin.Close()
		}
		os.RemoveAll(c.dir)
		c.lock.Close()
	})
}

// tail keeps the last lines that a process wrote to stderr.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

const tailSize = 4 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, p...)
	t.buf = t.buf[max(0, len(t.buf)-tailSize):]
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(bytes.TrimSpace(t.buf))
}

// last is the last line.
func (t *tail) last() string {
	text := t.String()
	return text[strings.LastIndexByte(text, '\n')+1:]
}

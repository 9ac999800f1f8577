package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// localCluster is a cluster of real lorad processes on this machine, for the demo.
type localCluster struct {
	dir   string
	nodes []*localNode
	once  sync.Once
}

type localNode struct {
	name  string
	dir   string
	cmd   *exec.Cmd
	stdin io.Closer // a node started with --until-stdin-closes ends when this process does, however that happens
	errs  *tail
	done  chan struct{}
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
	dir, err := os.MkdirTemp("", "lorad-demo-*")
	if err != nil {
		return nil, err
	}
	c := &localCluster{dir: dir}
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

// start runs one node and returns when it is part of the cluster. The token goes through the environment: arguments
// can be read by every user of the machine.
func (c *localCluster) start(ctx context.Context, of int, token string, verb ...string) (started, error) {
	program, err := os.Executable()
	if err != nil {
		return started{}, err
	}
	i := len(c.nodes) + 1
	n := &localNode{name: fmt.Sprintf("node-%d", i), dir: filepath.Join(c.dir, strconv.Itoa(i)), errs: &tail{}, done: make(chan struct{})}
	args := append(verb, "--name", n.name, "--bind", "127.0.0.1:0", "--threads", strconv.Itoa(max(1, runtime.NumCPU()/of)),
		"--until-stdin-closes", "--dir", n.dir, "-o", "json")
	n.cmd = exec.Command(program, args...)
	n.cmd.Stderr = n.errs
	if token != "" {
		n.cmd.Env = append(os.Environ(), tokenEnv+"="+token)
	}
	// Ctrl-C reaches the whole foreground group; the nodes must outlive it until the demo stops them.
	n.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if n.stdin, err = n.cmd.StdinPipe(); err != nil {
		return started{}, err
	}
	stdout, err := n.cmd.StdoutPipe()
	if err != nil {
		return started{}, err
	}
	if err := n.cmd.Start(); err != nil {
		return started{}, fmt.Errorf("start %s: %w", n.name, err)
	}
	c.nodes = append(c.nodes, n)
	s, err := n.ready(ctx, stdout)
	go func() { n.cmd.Wait(); close(n.done) }()
	return s, err
}

// ready waits for the line that says that the node is up.
func (n *localNode) ready(ctx context.Context, stdout io.Reader) (started, error) {
	lines := make(chan []byte, 1)
	go func() {
		line, _ := bufio.NewReader(stdout).ReadBytes('\n')
		lines <- line
	}()
	var s started
	select {
	case line := <-lines:
		if err := json.Unmarshal(line, &s); err != nil {
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
		}
		late := time.After(stopTimeout)
		for _, n := range c.nodes {
			select {
			case <-n.done:
			case <-late:
				n.cmd.Process.Kill()
				<-n.done
			}
			n.stdin.Close()
		}
		os.RemoveAll(c.dir)
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

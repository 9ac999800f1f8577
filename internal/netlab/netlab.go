// Package netlab makes small networks on one Linux machine: a namespace for each node, a bridge in one more, and links
// that are as slow as one likes and can be cut. Tests and benchmarks of everything that crosses a network use it.
//
// It drives iproute2 and so needs root. Nothing of the machine's own network is touched: bridge and cables lie in
// namespaces, which Close removes with everything in them.
//
// Why not netem: many kernels are built without it. Token buckets (tbf) are everywhere; they limit the rate, and a node's
// delay is whatever its queue makes of that.
package netlab

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync/atomic"
)

// Lab is a network of nodes 0..n-1.
type Lab struct {
	name  string
	nodes int
}

var labs atomic.Int64 // made by this process: their names must differ

// Missing says why there can be no lab on this machine, or "".
func Missing() string {
	if runtime.GOOS != "linux" || os.Geteuid() != 0 {
		return "network namespaces need Linux and root"
	}
	if _, err := exec.LookPath("ip"); err != nil {
		return "network namespaces need iproute2"
	}
	if out, err := exec.Command("ip", "netns", "add", "lorad-probe").CombinedOutput(); err != nil && !strings.Contains(string(out), "exists") {
		return "this machine grants no network namespaces: " + strings.TrimSpace(string(out))
	}
	_ = exec.Command("ip", "netns", "del", "lorad-probe").Run()
	return ""
}

// New makes a network of n nodes, at most 250. Each can send and receive so fast: a rate as tc takes it ("1gbit"), or
// "" for as fast as the machine.
func New(n int, rate string) (*Lab, error) {
	sweep()
	l := &Lab{name: fmt.Sprintf("lorad-%d-%d", os.Getpid(), labs.Add(1)), nodes: n}
	if err := l.build(rate); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// sweep removes the labs of processes that were killed.
func sweep() {
	out, _ := exec.Command("ip", "netns", "list").Output()
	for line := range strings.Lines(string(out)) {
		var pid int
		name, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		if _, err := fmt.Sscanf(name, "lorad-%d-", &pid); err != nil {
			continue
		}
		if _, err := os.Stat(fmt.Sprintf("/proc/%d", pid)); errors.Is(err, os.ErrNotExist) {
			_ = remove(name)
		}
	}
}

func (l *Lab) build(rate string) error {
	s := l.hub()
	if err := run(nil, "ip", "netns", "add", s); err != nil {
		return err
	}
	if err := run([]string{"link add br0 type bridge", "link set br0 up"}, "ip", "-n", s, "-batch", "-"); err != nil {
		return err
	}
	for i := range l.nodes {
		if err := l.plug(i, rate); err != nil {
			return err
		}
	}
	return nil
}

// plug makes node i and its cable.
func (l *Lab) plug(i int, rate string) error {
	ns := l.Namespace(i)
	if err := run(nil, "ip", "netns", "add", ns); err != nil {
		return err
	}
	err := run([]string{
		fmt.Sprintf("link add %s type veth peer name eth0 netns %s", port(i), ns),
		fmt.Sprintf("link set %s master br0 up", port(i)),
	}, "ip", "-n", l.hub(), "-batch", "-")
	if err != nil {
		return err
	}
	err = run([]string{
		fmt.Sprintf("addr add %s/24 dev eth0", l.Addr(i)),
		"link set eth0 up", "link set lo up",
	}, "ip", "-n", ns, "-batch", "-")
	if err != nil || rate == "" {
		return err
	}
	return l.Shape(i, rate)
}

// Shape sets the rate of node i, both ways.
func (l *Lab) Shape(i int, rate string) error {
	bucket := []string{fmt.Sprintf("qdisc replace dev eth0 root tbf rate %s burst 256kb latency 30ms", rate)}
	if err := run(bucket, "tc", "-n", l.Namespace(i), "-batch", "-"); err != nil {
		return err
	}
	bucket[0] = strings.Replace(bucket[0], "eth0", port(i), 1)
	return run(bucket, "tc", "-n", l.hub(), "-batch", "-")
}

func (l *Lab) hub() string { return l.name + "-hub" }

func port(i int) string { return fmt.Sprintf("p%d", i) }

// Namespace is the name of node i's.
func (l *Lab) Namespace(i int) string { return fmt.Sprintf("%s-%d", l.name, i) }

// Addr is the IP address of node i.
func (l *Lab) Addr(i int) string { return fmt.Sprintf("10.77.0.%d", i+1) }

// Command is a command to be started on node i.
func (l *Lab) Command(i int, name string, args ...string) *exec.Cmd {
	return exec.Command("ip", append([]string{"netns", "exec", l.Namespace(i), name}, args...)...)
}

// Cut pulls node i's cable. Nobody is told: packets are lost from now on.
func (l *Lab) Cut(i int) error {
	return run([]string{fmt.Sprintf("link set %s nomaster", port(i))}, "ip", "-n", l.hub(), "-batch", "-")
}

// Mend plugs node i's cable in again.
func (l *Lab) Mend(i int) error {
	return run([]string{fmt.Sprintf("link set %s master br0", port(i))}, "ip", "-n", l.hub(), "-batch", "-")
}

// Sent is how many bytes node i has put on its cable, Ethernet headers of every packet included.
func (l *Lab) Sent(i int) (int64, error) {
	out, err := exec.Command("tc", "-n", l.Namespace(i), "-s", "-j", "qdisc", "show", "dev", "eth0").Output()
	var queues []struct{ Bytes int64 }
	if err == nil {
		err = json.Unmarshal(out, &queues)
	}
	if err != nil || len(queues) == 0 {
		return 0, fmt.Errorf("count what node %d sent: %w", i, err)
	}
	return queues[0].Bytes, nil
}

// Close removes the network. Processes in it lose it.
func (l *Lab) Close() error {
	var errs []error
	for i := range l.nodes {
		errs = append(errs, remove(l.Namespace(i)))
	}
	return errors.Join(append(errs, remove(l.hub()))...)
}

func remove(ns string) error {
	err := run(nil, "ip", "netns", "del", ns)
	if err != nil && strings.Contains(err.Error(), "No such file") {
		return nil
	}
	return err
}

// run runs a command with these lines of input.
func run(lines []string, name string, args ...string) error {
	cmd := exec.Command(name, args...)
	cmd.Stdin = bytes.NewReader([]byte(strings.Join(lines, "\n") + "\n"))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s (%s): %w: %s", name, strings.Join(args, " "), strings.Join(lines, "; "), err, bytes.TrimSpace(out))
	}
	return nil
}

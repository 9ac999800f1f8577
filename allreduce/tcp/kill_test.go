package tcp

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"lorad/allreduce"
)

// asMember makes this test binary a member that reduces until it is killed.
const asMember = "ALLREDUCE_TEST_MEMBER"

func TestMain(m *testing.M) {
	switch os.Getenv(asMember) {
	case "":
	case inNamespace:
		namespaceMember(os.Stdin, os.Stdout)
		return
	default:
		memberProcess(os.Stdin, os.Stdout)
		return
	}
	goleak.VerifyTestMain(m)
}

const killParams = 1_000_000

// memberProcess is n1 of three: it prints its address, reads everybody's, and reduces step after step.
func memberProcess(in io.Reader, out io.Writer) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	s := &site{registries: make([]*Registry, 3)}
	s.registries[1] = NewRegistry("n1", peerID)
	go func() { _ = s.registries[1].Serve(namer{l}) }()
	fmt.Fprintln(out, l.Addr())
	var addrs [3]string
	if _, err := fmt.Fscan(in, &addrs[0], &addrs[1], &addrs[2]); err != nil {
		panic(err)
	}
	for i, a := range addrs {
		s.members = append(s.members, Member{fmt.Sprintf("n%d", i), a})
	}
	ctx := context.Background()
	g, err := Connect(ctx, s.config(1, 1))
	if err != nil {
		panic(err)
	}
	a := wave(1, 3, killParams, make([]float32, killParams))
	for step := uint64(0); ; step++ {
		if _, err := g.Reduce(ctx, op(step), a, new(allreduce.Sum)); err != nil {
			return
		}
	}
}

// TestKill kills a real member process in the middle of a step: both others abort because their connections to it end, long before its
// silence would tell, and name it.
func TestKill(t *testing.T) {
	s := newSite(t, 3)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), asMember+"=1")
	in, _ := cmd.StdinPipe()
	out, _ := cmd.StdoutPipe()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	addr, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	s.members[1].Addr = strings.TrimSpace(addr)
	fmt.Fprintln(in, s.members[0].Addr, s.members[1].Addr, s.members[2].Addr)

	const silence = time.Minute
	killed := make(chan time.Time, 1)
	var aborted [3]time.Time
	var errs [3]error
	accs := make([]*allreduce.Accum, 3)
	each(3, func(r int) {
		if r == 1 {
			return
		}
		accs[r] = wave(r, 3, killParams, make([]float32, killParams))
		c := s.config(r, 1)
		c.Silence = silence
		g, err := Connect(t.Context(), c)
		if err != nil {
			t.Error(err)
			return
		}
		defer g.Close()
		for step := uint64(0); errs[r] == nil; step++ {
			if r == 0 && step == 3 {
				time.AfterFunc(5*time.Millisecond, func() {
					killed <- time.Now()
					_ = cmd.Process.Kill()
				})
			}
			_, errs[r] = g.Reduce(t.Context(), op(step), accs[r], new(allreduce.Sum))
		}
		aborted[r] = time.Now()
	})
	_ = cmd.Wait()
	began := <-killed
	for _, r := range []int{0, 2} {
		var ae *allreduce.AbortError
		if !errors.As(errs[r], &ae) || ae.Suspect != "n1" {
			t.Errorf("member %d: %v", r, errs[r])
		} else if d := aborted[r].Sub(began); d > silence/2 {
			t.Errorf("member %d needed %v", r, d)
		} else {
			t.Logf("member %d aborted after %v in %v", r, d, ae.Phase)
		}
	}
}

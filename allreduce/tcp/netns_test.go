package tcp

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"testing"
	"time"

	"lorad/allreduce"
	"lorad/internal/netlab"
)

// inNamespace is the value of asMember for a member in a network namespace.
const inNamespace = "namespace"

// task is what such a member is told, as JSON.
type task struct {
	Rank   int
	Addrs  []string
	Params int
}

// word is what it says: after each step, and at the end.
type word struct {
	Step    uint64
	Way     string
	Right   bool // the sum is the one that everybody can work out
	Suspect string
	Cause   string // of the abort; the last word
}

// namespaceMember reduces step after step until it is aborted.
func namespaceMember(in io.Reader, out io.Writer) {
	var t task
	if err := json.NewDecoder(in).Decode(&t); err != nil {
		panic(err)
	}
	n, say := len(t.Addrs), json.NewEncoder(out)
	s := &site{registries: make([]*Registry, n)}
	for i, a := range t.Addrs {
		s.members = append(s.members, Member{fmt.Sprintf("n%d", i), a})
	}
	l, err := net.Listen("tcp", t.Addrs[t.Rank])
	if err != nil {
		panic(err)
	}
	s.registries[t.Rank] = NewRegistry(fmt.Sprintf("n%d", t.Rank), peerID)
	go func() { _ = s.registries[t.Rank].Serve(namer{l}) }()
	ctx := context.Background()
	g, err := Connect(ctx, s.config(t.Rank, 1))
	if err != nil {
		panic(err)
	}
	want := make([]float32, t.Params)
	var mine *allreduce.Accum
	for r := range n {
		if a := wave(r, n, t.Params, want); r == t.Rank {
			mine = a
		}
	}
	for step := uint64(0); ; step++ {
		var sum allreduce.Sum
		st, err := g.Reduce(ctx, op(step), mine, &sum)
		if err != nil {
			w := word{Step: step, Cause: err.Error()}
			if ae, ok := err.(*allreduce.AbortError); ok {
				w.Suspect = ae.Suspect
			}
			_ = say.Encode(w)
			_ = g.Close()
			return
		}
		_ = say.Encode(word{Step: step, Way: st.Way.String(), Right: slices.Equal(sum.Grad, want)})
	}
}

// recruit starts a member on node i of the lab.
func recruit(t *testing.T, lab *netlab.Lab, i int, job task) *json.Decoder {
	cmd := lab.Command(i, os.Args[0])
	cmd.Env = append(os.Environ(), asMember+"="+inNamespace)
	cmd.Stderr = os.Stderr
	in, _ := cmd.StdinPipe()
	out, _ := cmd.StdoutPipe()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	job.Rank = i
	if err := json.NewEncoder(in).Encode(job); err != nil {
		t.Fatal(err)
	}
	return json.NewDecoder(bufio.NewReader(out))
}

// TestNamespaces: three machines on cables of 200 Mbit/s get the right sums; when one's cable is pulled in the middle of a
// sum, the others find out by its silence, name it, and are free within the deadline.
func TestNamespaces(t *testing.T) {
	if why := netlab.Missing(); why != "" {
		t.Skip(why)
	}
	const n, victim = 3, 1
	lab, err := netlab.New(n, "200mbit")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = lab.Close() })
	job := task{Params: killParams} // 0.2 s a step
	for i := range n {
		job.Addrs = append(job.Addrs, lab.Addr(i)+":7840")
	}
	members := make([]*json.Decoder, n)
	for i := range members {
		members[i] = recruit(t, lab, i, job)
	}
	listen := func(i int) (w word) {
		if err := members[i].Decode(&w); err != nil {
			t.Fatalf("member %d: %v", i, err)
		}
		return w
	}
	for range 3 {
		for i := range members {
			if w := listen(i); !w.Right || w.Way != "ring" {
				t.Fatalf("member %d: %+v", i, w)
			}
		}
	}
	time.Sleep(50 * time.Millisecond) // into the next step
	if err := lab.Cut(victim); err != nil {
		t.Fatal(err)
	}
	pulled := time.Now()
	for i := range members {
		if i == victim {
			continue
		}
		w := listen(i)
		for w.Cause == "" {
			w = listen(i)
		}
		took := time.Since(pulled)
		t.Logf("member %d after %v: %s", i, took, w.Cause)
		if w.Suspect != "n1" || took > 2*time.Second+15*time.Second { // the silence that the test's Config allows, and a busy machine
			t.Errorf("member %d suspects %q after %v", i, w.Suspect, took)
		}
	}
}

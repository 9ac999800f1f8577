package main

import (
	"encoding/binary"
	"fmt"
	"math"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"lorad/allreduce"
	"lorad/engine"
	"lorad/node/recipe"
	"lorad/node/replica"
	"lorad/proto"
)

// recorder keeps what is written to a link.
type recorder struct {
	allreduce.Link
	mu  *sync.Mutex
	all *[][]byte
}

func (l recorder) WriteFrame(h allreduce.Header, payload []byte) error {
	l.mu.Lock()
	*l.all = append(*l.all, append([]byte(nil), payload...))
	l.mu.Unlock()
	return l.Link.WriteFrame(h, payload)
}

// addGradients adds what the first step's gradients look like: as numbers, and as two members send them, whichever of them has which
// micro-batch. They are computed anew here; that they are those of the run is held by the digest after the step.
func addGradients(t *testing.T, s map[string][]byte, dir string, first *proto.StepRecord) {
	t.Helper()
	j, err := readJob(filepath.Join(dir, "job.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	r, _, err := planCmd{}.recipe(j)
	if err != nil {
		t.Fatal(err)
	}
	trainer, err := r.Trainer(1)
	if err != nil {
		t.Fatal(err)
	}
	grads, losses := firstGradients(t, r, trainer)
	micros := len(grads)
	for has := range 1 << micros {
		payloads, sum := exchanged(t, r, grads, losses, has)
		for i, p := range payloads {
			for k := range 8 {
				if at := len(p) * k / 8; len(p) >= at+24 && lively(p[at:at+24]) {
					s[fmt.Sprintf("frame %d, %d bytes into it, of the gradient's sum with %b", i, at, has)] = p[at : at+24]
				}
			}
		}
		if has == 0 {
			addSum(s, sum.Grad)
			rep := replica.New(trainer, r.Rule())
			rep.Step(sum.Grad)
			if rep.Digest() != first.Digest {
				t.Fatal("these are not the gradients of the run: its digest after the first step is another")
			}
		}
	}
}

func firstGradients(t *testing.T, r *recipe.Recipe, trainer engine.Trainer) (grads [][]float32, losses []float64) {
	t.Helper()
	scale := 1 / float32(r.Labelled(0))
	for i := range r.Micros(0) {
		g := make([]float32, len(trainer.Params()))
		loss, err := trainer.Gradient(r.Micro(0, i), scale, engine.Key{Seed: r.Job.Seed, Micro: uint32(i)}, g)
		if err != nil {
			t.Fatal(err)
		}
		grads, losses = append(grads, g), append(losses, loss)
	}
	return grads, losses
}

// exchanged is what two members write to each other when the first has the micro-batches of a set of bits and the other the rest.
func exchanged(t *testing.T, r *recipe.Recipe, grads [][]float32, losses []float64, has int) (payloads [][]byte, sum allreduce.Sum) {
	t.Helper()
	var mu sync.Mutex
	links := [2]allreduce.Links{make(allreduce.Links, 2), make(allreduce.Links, 2)}
	a, b := allreduce.Pipe()
	links[0][1], links[1][0] = recorder{a, &mu, &payloads}, recorder{b, &mu, &payloads}
	var wg sync.WaitGroup
	for i := range 2 {
		accum := allreduce.NewAccum(len(grads[0]), len(grads), -40)
		for m, g := range grads {
			if has>>m&1 == i {
				batch := r.Micro(0, m)
				if err := accum.Add(m, g, losses[m], int64(batch.Labelled()), int64(len(batch.Tokens))); err != nil {
					t.Fatal(err)
				}
			}
		}
		wg.Go(func() {
			g, err := allreduce.NewGroup(allreduce.Config{Rank: i, Members: []string{"a", "b"}, Heartbeat: time.Hour, Silence: 2 * time.Hour}, links[i])
			if err == nil {
				var mine allreduce.Sum
				if _, err = g.Reduce(t.Context(), allreduce.OpID{}, accum, &mine); err == nil && i == 0 {
					sum = mine
				}
				t.Cleanup(func() { g.Close() })
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	return payloads, sum
}

// addSum adds parts of the sum as f32.
func addSum(s map[string][]byte, sum []float32) {
	for k := range 50 {
		var b []byte
		for _, x := range sum[len(sum)*k/50:][:4] {
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
		}
		if lively(b) {
			s[fmt.Sprintf("the gradient as f32, part %d", k)] = b
		}
	}
}

// lively says whether bytes are varied enough to be nobody else's.
func lively(b []byte) bool {
	seen := map[byte]bool{}
	for _, x := range b {
		seen[x] = true
	}
	return len(seen) > 10
}

// firstRecord is the first step as the cluster recorded it.
func firstRecord(t *testing.T, c *client, run string) *proto.StepRecord {
	t.Helper()
	events, err := c.Follow(t.Context(), &proto.FollowRequest{Run: run})
	for err == nil {
		var e *proto.FollowEvent
		if e, err = events.Recv(); err == nil && len(e.Steps) > 0 {
			return e.Steps[0]
		}
	}
	t.Fatal(err)
	return nil
}

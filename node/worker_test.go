package node

import (
	"testing"

	"lorad/node/step"
	"lorad/proto"
)

// A lease that is granted while a member writes its output under the one before is not lost: the node takes it up with
// a new worker. It used to count as done, and the other members waited for a ring that could not come about.
func TestLeaseGrantedDuringTheLastAction(t *testing.T) {
	n := &Node{cfg: Config{ID: "a"}, workers: map[string]*worker{}, ended: map[string]uint64{}, again: make(chan struct{}, 1)}
	run := func(generation uint64) *proto.Run {
		return &proto.Run{Spec: &proto.Spec{Run: "r"}, Phase: proto.Phase_RUNNING, Lease: &proto.Lease{Generation: generation, Members: []string{"a", "b"}}}
	}
	w := &worker{id: "r", latest: run(18), news: make(chan struct{}, 1), lease: step.Lease{Generation: 18}}
	n.workers["r"] = w
	n.follow(t.Context(), nil, run(19)) // while the worker finishes generation 18
	n.end("r", w.finalGeneration())
	if n.wanted(run(18)) {
		t.Error("the generation in which the work ended is taken up again")
	}
	if !n.wanted(run(19)) {
		t.Error("the next generation is not taken up")
	}
}

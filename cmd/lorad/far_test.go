package main

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"lorad/internal/relay"
	"lorad/proto"
)

// farApart is how long a byte takes between the nodes of a far cluster, and so the least that a step takes.
const farApart = 5 * time.Millisecond

// far returns what puts nodes some miles apart. A run that has to come to its end after something was done to it must not be over before, on
// whatever machine; a step that waits for the network takes its time on all of them.
func far(t *testing.T) func(*localNode) error {
	t.Helper()
	network := relay.New(farApart)
	t.Cleanup(network.Close) // after the cluster's, which is made later
	count := 0
	return func(n *localNode) (err error) {
		host := fmt.Sprintf("127.0.0.%d", 2+count)
		count++
		if n.addr, err = steadyAddr("127.0.0.1"); err != nil {
			return err
		}
		if n.bind, err = steadyAddr(host); err != nil {
			return err
		}
		return network.Add(relay.Node{Name: n.name, Listen: n.addr, Target: n.bind, From: host})
	}
}

// allThere waits until each node sees all of them alive, so that the first generation has them all.
func allThere(t *testing.T, c *localCluster) {
	t.Helper()
	for _, n := range c.nodes {
		cl, err := dial(t.Context(), n.dir)
		if err != nil {
			t.Fatal(err)
		}
		defer cl.Close()
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
			reply, err := cl.Cluster(t.Context(), &proto.ClusterRequest{})
			gone := func(s *proto.NodeStatus) bool { return !s.Alive }
			if err == nil && len(reply.Nodes) == len(c.nodes) && !slices.ContainsFunc(reply.Nodes, gone) {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s does not see all nodes: %v, %v", n.name, reply, err)
			}
		}
	}
}

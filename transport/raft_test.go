package transport

import (
	"io"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// counter is a state machine that counts what was applied.
type counter struct{ n int }

func (c *counter) Apply(*raft.Log) any                 { c.n++; return c.n }
func (c *counter) Snapshot() (raft.FSMSnapshot, error) { return nil, raft.ErrNothingNewToSnapshot }
func (c *counter) Restore(r io.ReadCloser) error       { return r.Close() }

func startRaft(t *testing.T, id string, m *Mux, d *Dialer) (*raft.Raft, *raft.NetworkTransport) {
	t.Helper()
	quiet := hclog.NewNullLogger()
	tr := raft.NewNetworkTransportWithLogger(NewRaftLayer(m, d), 3, 2*time.Second, quiet)
	cfg := raft.DefaultConfig()
	cfg.LocalID = raft.ServerID(id)
	cfg.Logger = quiet
	cfg.HeartbeatTimeout, cfg.ElectionTimeout = time.Second, time.Second
	cfg.LeaderLeaseTimeout, cfg.CommitTimeout = time.Second, 5*time.Millisecond
	store := raft.NewInmemStore()
	r, err := raft.NewRaft(cfg, &counter{}, store, store, raft.NewInmemSnapshotStore(), tr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stopRaft(t, r, tr) })
	return r, tr
}

func stopRaft(t *testing.T, r *raft.Raft, tr *raft.NetworkTransport) {
	if err := r.Shutdown().Error(); err != nil {
		t.Error(err)
	}
	tr.Close()
}

func leaderOf(t *testing.T, nodes map[string]*raft.Raft) string {
	t.Helper()
	for end := time.Now().Add(enough); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		for id, r := range nodes {
			if r.State() == raft.Leader {
				return id
			}
		}
	}
	t.Fatal("no leader")
	return ""
}

func TestRaftElectsAndReplicates(t *testing.T) {
	c := newCluster(t)
	nodes, trs := map[string]*raft.Raft{}, map[string]*raft.NetworkTransport{}
	var servers []raft.Server
	for _, id := range []string{"a", "b", "c"} {
		m := c.listen(t, id)
		nodes[id], trs[id] = startRaft(t, id, m, c.dialer(t, id))
		servers = append(servers, raft.Server{ID: raft.ServerID(id), Address: raft.ServerAddress(m.Advertise())})
	}
	if err := nodes["a"].BootstrapCluster(raft.Configuration{Servers: servers}).Error(); err != nil {
		t.Fatal(err)
	}
	first := leaderOf(t, nodes)
	for i := range 10 {
		f := nodes[first].Apply([]byte{1}, enough)
		if err := f.Error(); err != nil || f.Response() != i+1 {
			t.Fatalf("apply %d: %v, %v", i, f.Response(), err)
		}
	}
	stopRaft(t, nodes[first], trs[first])
	delete(nodes, first)
	second := leaderOf(t, nodes)
	f := nodes[second].Apply([]byte{1}, enough)
	if err := f.Error(); err != nil || f.Response() != 11 {
		t.Errorf("after the leader's death: %v, %v, want 11", f.Response(), err)
	}
}

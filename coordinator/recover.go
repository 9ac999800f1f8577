package coordinator

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"

	"lorad/ca"
	"lorad/coordinator/state"
	"lorad/proto"
	"lorad/transport"
)

// answerTimeout is how long a node that should be lost is given to answer.
const answerTimeout = 2 * time.Second

// Recovery is a cluster that lost its majority, as a node that is left sees it: what it would mean to go on from here.
// The node must not be running.
type Recovery struct {
	Record *proto.Recovery // as the state will hold it
	Voters int             // of which the majority is lost
	Up     []string        // names of nodes that answered and would be thrown out all the same

	dir   string
	creds *Credentials
	fsm   *fsm
	disk  *disk
	log   *slog.Logger
}

// disk is Raft's part of a state directory.
type disk struct {
	store *raftboltdb.BoltStore
	snaps raft.SnapshotStore
}

func openDisk(dir string, log *slog.Logger) (*disk, error) {
	store, _, err := openLog(dir)
	if err != nil {
		return nil, err
	}
	snaps, err := raft.NewFileSnapshotStoreWithLogger(dir, snapshotsKept, raftLog(log))
	if err != nil {
		store.Close()
		return nil, err
	}
	return &disk{store, snaps}, nil
}

// PlanRecovery looks at the node in dir and asks all others whether they are there. It changes nothing. It refuses if
// there is nothing to recover, if this node may not, or if another one that is up has seen more. Close what it returns.
func PlanRecovery(ctx context.Context, dir, by string, log *slog.Logger) (*Recovery, error) {
	creds, err := Load(dir)
	if err != nil {
		return nil, err
	}
	if creds.secret == nil {
		return nil, errors.New("recover: this node may not: it does not hold the cluster's authority, so nobody could join it (only voters and standbys do); recover on another node, or make a new cluster")
	}
	disk, err := openDisk(dir, log)
	if err != nil {
		return nil, err
	}
	r := &Recovery{dir: dir, creds: creds, fsm: newFSM(), disk: disk, log: log}
	r.Record = &proto.Recovery{By: by, UnixMs: time.Now().UnixMilli()}
	if err := r.plan(ctx); err != nil {
		r.Close()
		return nil, fmt.Errorf("recover: %w", err)
	}
	return r, nil
}

// Close lets go of the directory.
func (r *Recovery) Close() error { return r.disk.store.Close() }

func (r *Recovery) plan(ctx context.Context) error {
	voters, err := r.replay()
	if err != nil {
		return err
	}
	m := r.fsm.machine
	me := m.Node(r.creds.Node.Id)
	if m.Cluster() == nil || me == nil {
		return errors.New("this node never heard of its cluster's state; recover on another node, or make a new cluster")
	}
	r.Voters = len(voters)
	r.Record.Epoch, r.Record.Node, r.Record.Runs = ca.Epoch(m.Cluster().Id)+1, me, m.Unfinished()
	r.Record.ThrownOut = r.others(m, voters)
	return r.ask(ctx, voters)
}

// replay brings the state up to the last entry on this disk, agreed on or not, and gives Raft's voters.
func (r *Recovery) replay() (voters map[string]bool, err error) {
	_, tr := raft.NewInmemTransport(raft.ServerAddress(r.creds.Node.Id))
	defer tr.Close()
	conf, err := raft.GetConfiguration(r.raftConfig(), r.fsm, r.disk.store, r.disk.store, r.disk.snaps, tr)
	if err != nil {
		return nil, err
	}
	voters = map[string]bool{}
	for _, s := range conf.Servers {
		if s.Suffrage == raft.Voter {
			voters[string(s.ID)] = true
		}
	}
	return voters, r.readLog()
}

func (r *Recovery) readLog() error {
	if snaps, err := r.disk.snaps.List(); err != nil {
		return err
	} else if len(snaps) > 0 {
		r.Record.Index, r.Record.Term = snaps[0].Index, snaps[0].Term
	}
	last, err := r.disk.store.LastIndex()
	for i := r.Record.Index + 1; err == nil && i <= last; i++ {
		var entry raft.Log
		if err = r.disk.store.GetLog(i, &entry); err != nil {
			return fmt.Errorf("read log entry %d: %w", i, err)
		}
		if entry.Type == raft.LogCommand {
			r.fsm.Apply(&entry)
		}
		r.Record.Index, r.Record.Term = entry.Index, entry.Term
	}
	return err
}

func (r *Recovery) raftConfig() *raft.Config {
	c := raft.DefaultConfig()
	c.LocalID, c.Logger = raft.ServerID(r.creds.Node.Id), raftLog(r.log)
	return c
}

// others is everybody who is thrown out: the recorded nodes, and voters that this node knows by their id only.
func (r *Recovery) others(m *state.Machine, voters map[string]bool) (out []*proto.Node) {
	unknown := map[string]bool{}
	for id := range voters {
		unknown[id] = true
	}
	for _, n := range m.Nodes() {
		delete(unknown, n.Id)
		if n.Id != r.creds.Node.Id {
			out = append(out, n)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(unknown)) {
		out = append(out, &proto.Node{Id: id, Name: id})
	}
	return out
}

// ask finds out who is there after all. With a majority there is nothing to recover, and who has seen more than this
// node is the one to go on from.
func (r *Recovery) ask(ctx context.Context, voters map[string]bool) error {
	up, most, ahead := 0, r.Record.Index, ""
	if voters[r.creds.Node.Id] {
		up++
	}
	dialer := transport.NewDialer(r.creds.Identity)
	defer dialer.Close()
	for _, n := range r.Record.ThrownOut {
		index, ok := knock(ctx, dialer, n)
		if !ok {
			continue
		}
		r.Up = append(r.Up, n.Name)
		if voters[n.Id] {
			up++
		}
		if index > most {
			most, ahead = index, n.Name
		}
	}
	switch {
	case up > r.Voters/2:
		return fmt.Errorf("there is nothing to recover: %d of %d voters are up; start this node with `lorad up`", up, r.Voters)
	case ahead != "":
		return fmt.Errorf("node %s is up and has seen more (log entry %d, this node %d): recover there, or stop it for good first", ahead, most, r.Record.Index)
	}
	return nil
}

// knock asks a node for the last log entry that it has applied.
func knock(ctx context.Context, d *transport.Dialer, n *proto.Node) (index uint64, up bool) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	if n.Addr == "" {
		return 0, false
	}
	conn, err := d.GRPC(n.Addr)
	if err != nil {
		return 0, false
	}
	defer conn.Close()
	reply, err := proto.NewPeerClient(conn).Ping(ctx, &proto.PingRequest{})
	return reply.GetIndex(), err == nil && reply.Id == n.Id
}

// Code is what the person confirms with: it stands for this plan and no other.
func (r *Recovery) Code() string {
	h := sha256.New()
	fmt.Fprintln(h, r.creds.ClusterID, r.Record.Epoch, r.Record.Term, r.Record.Index)
	for _, n := range r.Record.ThrownOut {
		fmt.Fprintln(h, n.Id)
	}
	return fmt.Sprintf("%x", h.Sum(nil)[:4])
}

// CarryOut makes this node a cluster of its own, of the next epoch. The node's certificate is written first and the
// state last: if it is interrupted in between, the state has not changed, and it can be carried out again.
func (r *Recovery) CarryOut() error {
	authority, cluster, err := r.nextAuthority()
	if err != nil {
		return fmt.Errorf("recover: %w", err)
	}
	next, err := r.nextCredentials(authority)
	if err != nil {
		return fmt.Errorf("recover: %w", err)
	}
	if err := next.save(r.dir); err != nil {
		return fmt.Errorf("recover: %w", err)
	}
	_, tr := raft.NewInmemTransport(raft.ServerAddress(r.creds.Node.Id))
	defer tr.Close()
	alone := raft.Configuration{Servers: []raft.Server{server(r.creds.Node.Id)}}
	fsm := &recovering{newFSM(), r.Record, cluster}
	if err := raft.RecoverCluster(r.raftConfig(), fsm, r.disk.store, r.disk.store, r.disk.snaps, tr, alone); err != nil {
		return fmt.Errorf("recover: %w", err)
	}
	return nil
}

// nextAuthority is the cluster's authority under the id of the next epoch, and the record with it sealed.
func (r *Recovery) nextAuthority() (*ca.Authority, *proto.Cluster, error) {
	was := r.fsm.machine.Cluster()
	old, err := ca.Open(was.SealedCaKey, *r.creds.secret)
	if err != nil {
		return nil, nil, err
	}
	fresh, err := old.Renamed(ca.NextEpoch(was.Id))
	if err != nil {
		return nil, nil, err
	}
	sealed, err := ca.Seal(fresh, *r.creds.secret)
	return fresh, &proto.Cluster{Id: fresh.ClusterID(), SealedCaKey: sealed}, err
}

// nextCredentials are this node's in the next epoch: a new certificate, and a new gossip key, which the others do not have.
func (r *Recovery) nextCredentials(a *ca.Authority) (*Credentials, error) {
	identity, err := a.Issue(ca.Subject{ClusterID: a.ClusterID(), NodeID: r.creds.Node.Id, Role: ca.Voter})
	if err != nil {
		return nil, err
	}
	return &Credentials{
		Identity: identity, Node: r.creds.Node, ClusterID: a.ClusterID(), GossipKey: newGossipKey(), secret: r.creds.secret,
	}, nil
}

// recovering is the state while Raft is recovered: what Raft keeps is what it is after the recovery.
type recovering struct {
	*fsm
	record  *proto.Recovery
	cluster *proto.Cluster
}

func (f *recovering) Snapshot() (raft.FSMSnapshot, error) {
	if err := f.machine.Recover(f.record, f.cluster); err != nil {
		return nil, err
	}
	return f.fsm.Snapshot()
}

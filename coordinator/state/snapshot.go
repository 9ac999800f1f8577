package state

import (
	"crypto/sha256"
	"fmt"
	"slices"

	pb "google.golang.org/protobuf/proto"

	"lorad/proto"
)

// Version of the snapshot format: a lorad/proto Snapshot message, encoded deterministically, lists sorted by id.
// A version this code does not know is refused, never guessed at.
const Version = 1

// Image is the whole state as it is at one moment. It costs little and stays as it is while the machine goes on, so
// that its encoding, which takes a tenth of a second for a thousand runs, holds nobody up.
type Image struct{ s *proto.Snapshot }

// Image takes the image of the present state.
func (m *Machine) Image() Image {
	return Image{&proto.Snapshot{
		Version: Version, Cluster: m.cluster, Nodes: sorted(m.nodes), Tokens: sorted(m.tokens), Runs: sorted(m.runs),
		Removed: sorted(m.removed), Recoveries: m.recoveries, Done: m.done,
	}}
}

// Append encodes the image after prefix.
func (i Image) Append(prefix []byte) ([]byte, error) {
	b, err := pb.MarshalOptions{Deterministic: true}.MarshalAppend(prefix, i.s)
	if err != nil {
		return nil, fmt.Errorf("snapshot state: %w", err)
	}
	return b, nil
}

// Snapshot gives the whole state as bytes. Equal states give equal bytes.
func (m *Machine) Snapshot() ([]byte, error) { return m.Image().Append(nil) }

// Restore replaces the whole state by that of a snapshot, or fails and changes nothing.
func (m *Machine) Restore(b []byte) error {
	s := &proto.Snapshot{}
	if err := pb.Unmarshal(b, s); err != nil {
		return fmt.Errorf("restore state: damaged: %w", err)
	}
	if s.Version != Version {
		return fmt.Errorf("restore state: version %d: this lorad reads version %d; run the lorad that wrote it", s.Version, Version)
	}
	fresh := New()
	fresh.cluster, fresh.recoveries, fresh.done = s.Cluster, s.Recoveries, s.Done
	for _, n := range s.Nodes {
		fresh.nodes[n.Id] = n
	}
	for _, id := range s.Removed {
		fresh.removed[id] = id
	}
	for _, t := range s.Tokens {
		fresh.tokens[t.Id] = t
	}
	for _, r := range s.Runs {
		if err := whole(r); err != nil {
			return fmt.Errorf("restore state: damaged: run %q: %w", r.GetSpec().GetRun(), err)
		}
		share(r)
		fresh.runs[r.Spec.Run] = r
	}
	*m = *fresh
	return nil
}

// whole checks that a run has a record for each of its steps.
func whole(r *proto.Run) error {
	steps := uint64(len(r.Ledger))
	if r.Archive != nil {
		var err error
		if steps, err = packed(r.Archive); err != nil {
			return err
		}
	}
	if steps != r.Step || r.Spec == nil || r.Archive != nil && r.Phase != proto.Phase_DONE {
		return fmt.Errorf("%d records for %d steps", steps, r.Step)
	}
	return nil
}

// share lets equal node ids in the ledger be one string again.
func share(r *proto.Run) {
	var seen []string
	for _, s := range r.Ledger {
		if i := slices.Index(seen, s.Node); i >= 0 {
			s.Node = seen[i]
		} else {
			seen = append(seen, s.Node)
		}
	}
}

// Hash is the SHA-256 of the snapshot: replicas at the same log index have the same.
func (m *Machine) Hash() ([32]byte, error) {
	b, err := m.Snapshot()
	return sha256.Sum256(b), err
}

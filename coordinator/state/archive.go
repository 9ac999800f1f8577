package state

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"

	pb "google.golang.org/protobuf/proto"

	"lorad/proto"
)

// The ledger of a run that is DONE never changes again. It is kept as an archive: all its records, bit for bit, in about
// 50 bytes a step instead of 200 in memory and 95 in a snapshot, under the SHA-256 of these bytes.
//
//	1 byte    version, 1
//	uvarint   number of records, which are of steps 1, 2, 3, ...
//	uvarint   number of members; each: uvarint length, node id
//	record    uvarint generation, member, tokens, total tokens, duration, gradient time, all-reduce time (us)
//	          8 bytes each, little-endian: loss, gradient norm, learning rate, epoch (bits of the f64), digest
//	          uvarint length and bytes of a StepRecord with all other fields: the evaluation's, and what is added later
const archiveVersion = 1

// leastRow is the fewest bytes that a record takes: what a count in a header is checked against before it is believed.
const leastRow = 7 + 5*8 + 1

// Ledger gives the records of a run's steps in order, also of an archived run. They are shared: read only.
func Ledger(r *proto.Run) []*proto.StepRecord {
	if r.GetArchive() == nil {
		return r.GetLedger()
	}
	steps, err := unpack(r.Archive)
	if err != nil { // Restore has looked at it, so this machine's memory is broken
		panic(fmt.Sprintf("state: run %s: %v", r.Spec.Run, err))
	}
	return steps
}

// archived is the run, a copy that nobody has seen yet, with its ledger packed.
func archived(r *proto.Run) {
	b := pack(r.Ledger)
	sum := sha256.Sum256(b)
	r.Archive = &proto.Archive{Records: b, Sha256: sum[:]}
	r.Ledger = nil
}

func pack(steps []*proto.StepRecord) []byte {
	var nodes []string
	for _, s := range steps {
		if !slices.Contains(nodes, s.Node) {
			nodes = append(nodes, s.Node)
		}
	}
	b := []byte{archiveVersion}
	b = binary.AppendUvarint(b, uint64(len(steps)))
	b = binary.AppendUvarint(b, uint64(len(nodes)))
	for _, n := range nodes {
		b = append(binary.AppendUvarint(b, uint64(len(n))), n...)
	}
	for _, s := range steps {
		b = packStep(b, s, slices.Index(nodes, s.Node))
	}
	return b
}

func packStep(b []byte, s *proto.StepRecord, node int) []byte {
	for _, v := range []uint64{s.Generation, uint64(node), s.Tokens, s.TotalTokens, s.DurationUs, s.ComputeUs, s.ReduceUs} {
		b = binary.AppendUvarint(b, v)
	}
	for _, v := range []float64{s.Loss, s.GradNorm, s.LearningRate, s.Epoch} {
		b = binary.LittleEndian.AppendUint64(b, math.Float64bits(v))
	}
	b = binary.LittleEndian.AppendUint64(b, s.Digest)
	rest := encoded(others(s))
	return append(binary.AppendUvarint(b, uint64(len(rest))), rest...)
}

// others is a copy of the record without what has a place of its own.
func others(s *proto.StepRecord) *proto.StepRecord {
	o := pb.Clone(s).(*proto.StepRecord)
	o.Step, o.Generation, o.Node, o.Tokens, o.TotalTokens, o.DurationUs, o.ComputeUs, o.ReduceUs = 0, 0, "", 0, 0, 0, 0, 0
	o.Loss, o.GradNorm, o.LearningRate, o.Epoch, o.Digest = 0, 0, 0, 0, 0
	return o
}

func encoded(s *proto.StepRecord) []byte {
	b, err := pb.MarshalOptions{Deterministic: true}.Marshal(s)
	if err != nil { // a string that is not UTF-8, which the wire would not have let in
		panic(fmt.Sprintf("state: step %d: %v", s.Step, err))
	}
	return b
}

var errArchive = errors.New("damaged archive of the ledger")

// packed is how many records the archive holds, once it is found to be what was packed.
func packed(a *proto.Archive) (uint64, error) {
	u, count, err := open(a)
	if err == nil && u.bad {
		err = errArchive
	}
	return count, err
}

// open checks the archive and reads its first two fields.
func open(a *proto.Archive) (u *unpacker, count uint64, err error) {
	if sum := sha256.Sum256(a.Records); !bytes.Equal(sum[:], a.Sha256) {
		return nil, 0, fmt.Errorf("%w: its SHA-256 is another one", errArchive)
	}
	u = &unpacker{b: a.Records}
	if v := u.bytes(1); len(v) == 1 && v[0] != archiveVersion {
		return nil, 0, fmt.Errorf("%w: version %d, this lorad reads %d", errArchive, v[0], archiveVersion)
	}
	return u, u.uvarint(), nil
}

func unpack(a *proto.Archive) ([]*proto.StepRecord, error) {
	u, count, err := open(a)
	if err != nil {
		return nil, err
	}
	nodes := make([]string, u.atMost(u.uvarint(), 1))
	for i := range nodes {
		nodes[i] = string(u.bytes(u.uvarint()))
	}
	steps := make([]*proto.StepRecord, 0, u.atMost(count, leastRow))
	for i := range count {
		if u.bad {
			break
		}
		steps = append(steps, u.step(i+1, nodes))
	}
	if u.bad || len(u.b) > 0 {
		return nil, errArchive
	}
	return steps, nil
}

// unpacker reads an archive from its front. Once something is wrong it gives zeros.
type unpacker struct {
	b   []byte
	bad bool
}

func (u *unpacker) uvarint() uint64 {
	v, n := binary.Uvarint(u.b)
	if n <= 0 {
		u.bad = true
		return 0
	}
	u.b = u.b[n:]
	return v
}

func (u *unpacker) bytes(n uint64) []byte {
	if n > uint64(len(u.b)) {
		u.bad = true
		return nil
	}
	b := u.b[:n]
	u.b = u.b[n:]
	return b
}

func (u *unpacker) fixed() uint64 {
	if b := u.bytes(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

func (u *unpacker) float() float64 { return math.Float64frombits(u.fixed()) }

// atMost is n, or 0 if what is left cannot hold so many things of at least size bytes.
func (u *unpacker) atMost(n uint64, size int) uint64 {
	if n > uint64(len(u.b)/size) {
		u.bad = true
		return 0
	}
	return n
}

func (u *unpacker) step(number uint64, nodes []string) *proto.StepRecord {
	gen, node := u.uvarint(), u.uvarint()
	s := &proto.StepRecord{
		Tokens: u.uvarint(), TotalTokens: u.uvarint(), DurationUs: u.uvarint(), ComputeUs: u.uvarint(), ReduceUs: u.uvarint(),
		Loss: u.float(), GradNorm: u.float(), LearningRate: u.float(), Epoch: u.float(), Digest: u.fixed(),
	}
	if rest := u.bytes(u.uvarint()); len(rest) > 0 && (pb.UnmarshalOptions{Merge: true}).Unmarshal(rest, s) != nil {
		u.bad = true
	}
	if node >= uint64(len(nodes)) {
		u.bad = true
		return s
	}
	s.Step, s.Generation, s.Node = number, gen, nodes[node]
	return s
}

package state

import (
	"crypto/sha256"
	"fmt"
	"math"
	"testing"

	pb "google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"pgregory.net/rapid"

	"lorad/proto"
)

// anyLedger draws records in all their fields, so that one that pack forgets is missed.
func anyLedger(t *rapid.T) []*proto.StepRecord {
	var steps []*proto.StepRecord
	for i := range rapid.IntRange(0, 20).Draw(t, "steps") {
		s := &proto.StepRecord{}
		fields := s.ProtoReflect().Descriptor().Fields()
		for k := range fields.Len() {
			f := fields.Get(k)
			name := string(f.Name())
			if f.IsList() || f.IsMap() || f.Message() != nil {
				continue
			}
			switch f.Kind().String() {
			case "uint64", "fixed64":
				s.ProtoReflect().Set(f, protoreflect.ValueOf(rapid.Uint64().Draw(t, name)))
			case "uint32":
				s.ProtoReflect().Set(f, protoreflect.ValueOf(rapid.Uint32().Draw(t, name)))
			case "double":
				s.ProtoReflect().Set(f, protoreflect.ValueOf(math.Float64frombits(rapid.Uint64().Draw(t, name))))
			case "bool":
				s.ProtoReflect().Set(f, protoreflect.ValueOf(rapid.Bool().Draw(t, name)))
			case "string":
				s.ProtoReflect().Set(f, protoreflect.ValueOf(rapid.SampledFrom([]string{"", "a", "node-b"}).Draw(t, name)))
			default:
				t.Fatalf("a field %s of kind %s: draw it here", name, f.Kind())
			}
		}
		s.Step = uint64(i) + 1
		steps = append(steps, s)
	}
	return steps
}

func TestArchiveKeepsEveryBit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		steps := anyLedger(t)
		r := &proto.Run{Ledger: steps}
		archived(r)
		back := Ledger(r)
		if len(back) != len(steps) || r.Ledger != nil {
			t.Fatalf("%d records came back of %d", len(back), len(steps))
		}
		for i := range steps {
			if string(encoded(steps[i])) != string(encoded(back[i])) {
				t.Fatalf("record %d: %v, was %v", i+1, back[i], steps[i])
			}
		}
	})
}

// Whatever is read, nothing is allocated beyond what is there, and damage is an error.
func TestDamagedArchive(t *testing.T) {
	r := &proto.Run{Ledger: steps(1, 30)}
	archived(r)
	whole := r.Archive.Records
	for cut := range len(whole) {
		sum := sha256.Sum256(whole[:cut])
		if _, err := unpack(&proto.Archive{Records: whole[:cut], Sha256: sum[:]}); err == nil {
			t.Fatalf("cut at %d: no error", cut)
		}
	}
	huge := []byte{1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 0}
	sum := sha256.Sum256(huge)
	if _, err := unpack(&proto.Archive{Records: huge, Sha256: sum[:]}); err == nil {
		t.Error("a header that promises 2^48 records was believed")
	}
	r.Archive.Records[40] ^= 1
	if _, err := unpack(r.Archive); err == nil {
		t.Error("a flipped bit was not noticed")
	}
	rapid.Check(t, func(t *rapid.T) {
		b := rapid.SliceOf(rapid.Byte()).Draw(t, "bytes")
		sum := sha256.Sum256(b)
		unpack(&proto.Archive{Records: b, Sha256: sum[:]})
	})
}

// A member that reports a step of a finished run still has it compared.
func TestLateReportsMeetTheArchive(t *testing.T) {
	b := newBench(t)
	b.ok(grant(1, 1, 11, "a", "b"))
	b.ok(report(&proto.Report{Node: "a", Generation: 1, Steps: steps(1, 10), Outcome: proto.Outcome_FINISHED, AdapterSha256: sum(1)}))
	if r := b.phase(proto.Phase_DONE); r.Ledger != nil || len(Ledger(r)) != 10 {
		t.Fatalf("not archived: %v", r)
	}
	b.ok(report(&proto.Report{Node: "b", Generation: 1, Steps: steps(3, 10)}))
	wrong := steps(5, 5)
	wrong[0].Digest++
	if r := b.ok(report(&proto.Report{Node: "b", Generation: 1, Steps: wrong})).Run; r.Reason == "all steps done" {
		t.Error("a record that differs from the archive's was not noticed")
	}
	if h, _ := b.m.Hash(); h != mustHash(t, b.m) {
		t.Error("the hash of a state with an archive is not one")
	}
}

// mustHash is the hash after a snapshot and back.
func mustHash(t *testing.T, m *Machine) [32]byte {
	s, err := m.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	fresh := New()
	if err := fresh.Restore(s); err != nil {
		t.Fatal(err)
	}
	h, _ := fresh.Hash()
	return h
}

// crowded is the state of a cluster of 200 nodes with 1,000 finished runs and one at work on all nodes.
func crowded(tb testing.TB, steps int) *Machine {
	m := New()
	do := func(c *proto.Command) {
		c.NowUnixMs = 1_000_000
		if _, err := m.Apply(c); err != nil {
			tb.Fatal(err)
		}
	}
	var members []string
	for i := range 200 {
		id := fmt.Sprintf("%016x", i*7919)
		members = append(members, id)
		do(putNode(id, fmt.Sprint("box", i)))
	}
	for i := range 1001 {
		id, last := fmt.Sprintf("legal-%012x", i), i == 1000
		do(submit(id, uint64(steps), members[0]))
		do(leaseOf(id, grant(1, 1, uint64(steps)+1, members...)))
		p := &proto.Report{Run: id, Node: members[0], Generation: 1, Steps: realistic(steps), Outcome: proto.Outcome_FINISHED, AdapterSha256: sum(1)}
		if last {
			p.Steps, p.Outcome = p.Steps[:steps/2], 0
		}
		do(&proto.Command{Do: &proto.Command_Report{Report: p}})
	}
	return m
}

// realistic records have numbers like those of the embedded job.
func realistic(n int) []*proto.StepRecord {
	list := steps(1, uint64(n))
	for i, s := range list {
		x := float64(i+1) / float64(n)
		s.Loss, s.GradNorm, s.LearningRate, s.Epoch = 2.7/(1+x), 0.7+x/7, 3e-4*math.Cos(x), 3*x
		s.Tokens, s.TotalTokens, s.DurationUs, s.ComputeUs, s.ReduceUs = 1234, 5678, 100_000, 81_000, 19_000
		s.Digest = uint64(i) * 0x9e3779b97f4a7c15
		if i%50 == 49 {
			s.EvalLoss = s.Loss * 1.1
		}
	}
	return list
}

func BenchmarkSnapshot(b *testing.B) {
	m := crowded(b, 564)
	for b.Loop() {
		s, err := m.Snapshot()
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(len(s))/1e6, "MB")
		b.ReportMetric(float64(len(s))/(1000.5*564), "B/step")
	}
}

func BenchmarkRestore(b *testing.B) {
	s, err := crowded(b, 564).Snapshot()
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if err := New().Restore(s); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkArchive is what a run of the embedded job's length costs when it ends, and when it is audited.
func BenchmarkArchive(b *testing.B) {
	list := realistic(564)
	plain := 0
	for _, s := range list {
		s.Node = "63c3bc490def31d1"
		plain += pb.Size(s) + 2
	}
	b.Run("pack", func(b *testing.B) {
		for b.Loop() {
			b.ReportMetric(float64(len(pack(list)))/564, "B/step")
		}
		b.ReportMetric(float64(plain)/564, "B/step-unpacked")
	})
	r := &proto.Run{Ledger: list}
	archived(r)
	b.Run("unpack", func(b *testing.B) {
		for b.Loop() {
			Ledger(r)
		}
	})
}

// BenchmarkImage is how long a snapshot holds up commands.
func BenchmarkImage(b *testing.B) {
	m := crowded(b, 564)
	for b.Loop() {
		m.Image()
	}
}

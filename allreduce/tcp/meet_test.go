package tcp

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"lorad/allreduce"
)

// TestWaitsForLatecomers: members that learn of the generation at different moments still meet, whether the
// early one dials or is dialled.
func TestWaitsForLatecomers(t *testing.T) {
	s := newSite(t, 3)
	groups, errs := make([]*allreduce.Group, 3), make([]error, 3)
	each(3, func(i int) {
		time.Sleep(time.Duration((i*2)%3) * 60 * time.Millisecond)
		groups[i], errs[i] = Connect(t.Context(), s.config(i, 1))
	})
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	closeAll(groups)
}

// TestNextGeneration: the survivors of a dead member connect again without it; a straggler of the old
// generation is refused.
func TestNextGeneration(t *testing.T) {
	s := newSite(t, 3)
	old := s.connect(t, 1)
	_ = old[2].Close()
	_ = old[0].Close()
	_ = old[1].Close()
	survivors := &site{s.members[:2], s.registries[:2]}
	survivors.connect(t, 2)
	_, err := Connect(t.Context(), s.config(2, 1)) // to n0, which is in generation 2
	var ce *ConnectError
	if !errors.As(err, &ce) || ce.Member != "n0" || !strings.Contains(err.Error(), "generation 1 is stale: this node is in 2") {
		t.Fatal(err)
	}
	if _, err := Connect(t.Context(), survivors.config(0, 1)); err == nil || !strings.Contains(err.Error(), "stale") {
		t.Fatal(err)
	}
}

// TestAbsentMember: when a member never comes, the error names it.
func TestAbsentMember(t *testing.T) {
	s := newSite(t, 2)
	s.members[1].Addr = "127.0.0.1:1"
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	c, tries := s.config(0, 1), 0
	c.Dial = func(ctx context.Context, m Member) (net.Conn, error) {
		conn, err := dialAs(0)(ctx, m)
		if tries++; tries == 3 {
			cancel()
		}
		return conn, err
	}
	_, err := Connect(ctx, c)
	var ce *ConnectError
	if !errors.As(err, &ce) || ce.Member != "n1" || !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "refused") {
		t.Fatal(err)
	}
}

// TestMisuse: impossible member lists are refused before anything is dialled.
func TestMisuse(t *testing.T) {
	lists := [][]Member{nil, {{ID: "n0"}, {ID: "n0"}}, {{ID: "n0"}, {}}, {{ID: "n0"}, {ID: strings.Repeat("x", 256)}}}
	for _, members := range lists {
		if _, err := Connect(t.Context(), Config{Members: members}); err == nil {
			t.Errorf("accepted %v", members)
		}
	}
}

// TestDifferentMembers: two nodes with different ideas of the generation do not form a ring.
func TestDifferentMembers(t *testing.T) {
	s := newSite(t, 3)
	pair := &site{s.members[:2], s.registries[:2]}
	errs := make([]error, 2)
	each(2, func(i int) {
		c := pair.config(0, 1)
		if i == 1 {
			c = s.config(1, 1) // believes in three members; n0 dials it
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, errs[i] = Connect(ctx, c)
	})
	for i, err := range errs {
		if err == nil || !strings.Contains(err.Error(), "another list of members") {
			t.Errorf("member %d: %v", i, err)
		}
	}
}

// greet dials n0 as rank and says b; it returns the answer.
func greet(t *testing.T, s *site, rank int, b []byte) error {
	conn, err := dialAs(rank)(t.Context(), s.members[0])
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write(b); err != nil {
		t.Fatal(err)
	}
	return readAnswer(conn)
}

// TestStrangers: who lies in its hello, calls the wrong node or speaks another protocol is told so.
func TestStrangers(t *testing.T) {
	s := newSite(t, 2)
	cases := map[string][]byte{
		`the certificate says \"n1\", the hello \"n2\"`: hello{Run: 7, Generation: 1, From: "n2", To: "n0"}.append(nil),
		`this is n0, not n9`:                            hello{Run: 7, Generation: 1, From: "n1", To: "n9"}.append(nil),
		`not a lorad all-reduce`:                        []byte("GET / HTTP/1.1\r\nHost: example.org\r\n\r\n"),
	}
	for want, b := range cases {
		var no refusedError
		if err := greet(t, s, 1, b); !errors.As(err, &no) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v", want, err)
		}
	}
}

// TestImpostor: a node that answers at another member's address is not taken for it.
func TestImpostor(t *testing.T) {
	s := newSite(t, 2)
	impostor := s.config(0, 1)
	impostor.Dial = func(ctx context.Context, m Member) (net.Conn, error) {
		conn, err := dialAs(0)(ctx, m)
		return named{conn, "n7"}, err // what the certificate of the node at n1's address says
	}
	ctx, cancel := context.WithCancel(t.Context())
	errs := make([]error, 2)
	each(2, func(i int) {
		if i == 1 { // waits for a member that does not come
			_, errs[i] = Connect(ctx, s.config(1, 1))
			return
		}
		defer cancel()
		_, errs[i] = Connect(t.Context(), impostor)
	})
	var ce *ConnectError
	if !errors.As(errs[0], &ce) || ce.Member != "n1" || !strings.Contains(errs[0].Error(), `certificate says "n7"`) {
		t.Fatal(errs)
	}
}

// TestParkingIsBounded: connections for generations that the node does not know are kept only in bounded
// number, and a newer one from the same member replaces the older.
func TestParkingIsBounded(t *testing.T) {
	s := newSite(t, 2)
	park := func(generation uint64) net.Conn {
		conn, err := dialAs(1)(t.Context(), s.members[0])
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		_, _ = conn.Write(hello{Run: 7, Generation: generation, From: "n1", To: "n0"}.append(nil))
		return conn
	}
	first := park(1)
	for !s.parks(1) {
		time.Sleep(time.Millisecond)
	}
	park(1)
	if err := readAnswer(first); !errors.Is(err, errLater) {
		t.Fatal(err)
	}
	for i := range maxParked - 1 {
		park(uint64(i) + 2)
	}
	for !s.parks(maxParked) {
		time.Sleep(time.Millisecond)
	}
	if err := readAnswer(park(1000)); !errors.Is(err, errLater) || !s.parks(maxParked) {
		t.Fatal(err)
	}
}

// parks says whether n0's registry holds n parked connections.
func (s *site) parks(n int) bool {
	r := s.registries[0]
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.parked) == n
}

// TestCorruptedFrame flips a bit on the wire: the receiver aborts and says what it saw.
func TestCorruptedFrame(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	var frame [allreduce.HeaderSize]byte
	payload := []byte{1, 2, 3}
	allreduce.Header{Type: allreduce.Data}.Put(&frame, payload)
	go func() { _, _ = a.Write(append(frame[:], 1, 2, 7)) }()
	if _, _, err := NewLink(b).ReadFrame(make([]byte, 10), time.Second); !errors.Is(err, allreduce.ErrChecksum) {
		t.Fatal(err)
	}
}

// TestTrickle: a link that brings a byte now and then is not silent, one that brings none is.
func TestTrickle(t *testing.T) { synctest.Test(t, trickle) }

func trickle(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	var frame [allreduce.HeaderSize]byte
	allreduce.Header{Type: allreduce.Beat}.Put(&frame, nil)
	go func() {
		for _, x := range frame {
			_, _ = a.Write([]byte{x})
			time.Sleep(5 * time.Millisecond)
		}
	}()
	l := NewLink(b)
	if h, _, err := l.ReadFrame(nil, 100*time.Millisecond); err != nil || h.Type != allreduce.Beat {
		t.Fatal(h, err)
	}
	if _, _, err := l.ReadFrame(nil, 50*time.Millisecond); err == nil || !err.(net.Error).Timeout() {
		t.Fatal(err)
	}
}

// FuzzHello: whatever a stranger says is refused or is a hello that reads back the same.
func FuzzHello(f *testing.F) {
	f.Add(hello{1, 2, 3, "from", "to"}.append(nil))
	f.Fuzz(func(t *testing.T, b []byte) { tryHello(t, b) })
}

func tryHello(t testing.TB, b []byte) {
	r := bytes.NewReader(b)
	h, err := readHello(r)
	if err != nil {
		return
	}
	rest, _ := io.ReadAll(r)
	if again := append(h.append(nil), rest...); !bytes.Equal(again, b) {
		t.Fatalf("%+v is written %x", h, again)
	}
}

package allreduce

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// lan is a table of n members at this distance whose links carry so many bytes per second.
func lan(rtt time.Duration, rates ...int64) table {
	t := newTable(len(rates))
	copy(t.rate, rates)
	for i := range t.rtt {
		for j := range t.rtt[i] {
			t.rtt[i][j] = rtt.Microseconds()
		}
	}
	return t
}

const gigabit = 125_000_000

// TestChoose: what goes which way.
func TestChoose(t *testing.T) {
	even := slices.Repeat([]int64{gigabit}, 5)
	cases := []struct {
		name   string
		table  table
		values int
		want   Way
	}{
		{"a long vector on a local network", lan(200*time.Microsecond, even...), 12_600_000, Ring},
		{"a long vector between two", lan(200*time.Microsecond, gigabit, gigabit), 12_600_000, Ring},
		{"losses only", lan(200*time.Microsecond, even...), 20, Whole},
		{"losses only, far away", lan(100*time.Millisecond, even...), 20, Whole},
		{"a small adapter", lan(200*time.Microsecond, even...), 200_000, Ring},
		{"a small adapter, less near", lan(10*time.Millisecond, even...), 200_000, Direct},
		{"a small adapter far away", lan(100*time.Millisecond, even...), 200_000, Whole},
		{"a long vector far away", lan(100*time.Millisecond, even...), 12_600_000, Ring},
		{"a long vector very far away", lan(400*time.Millisecond, even...), 12_600_000, Direct},
		{"one slow link of four", lan(200*time.Microsecond, gigabit, gigabit, gigabit/10, gigabit), 12_600_000, Direct},
		{"one slow link of two", lan(200*time.Microsecond, gigabit, gigabit/10), 12_600_000, Ring},
	}
	for _, c := range cases {
		if way, shares := c.table.choose(c.values); way != c.want {
			t.Errorf("%s: %v with shares %v, want %v (ring %d us, direct %d us, whole %d us)", c.name, way, shares, c.want,
				c.table.ring(c.values), c.table.direct(c.values, shares), c.table.whole(c.values))
		}
	}
}

// TestShares: weighting never makes it slower, a member that is slow beyond help owns nothing, and equal links get equal shares.
func TestShares(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rates := rapid.SliceOfN(rapid.Int64Range(1000, maxRate), 2, 20).Draw(t, "rates")
		table := lan(time.Millisecond, rates...)
		shares := table.shares()
		s := newShape(100_000_000, 10, shares, nil)
		if s.chunks() != len(rates) || s.bounds[len(rates)] != s.blocks() {
			t.Fatalf("shares %v: bounds %v of %d blocks", shares, s.bounds, s.blocks())
		}
		even := slices.Repeat([]int64{1}, len(rates))
		if weighted, plain := table.direct(100_000_000, shares), table.direct(100_000_000, even); weighted > plain+plain/100 {
			t.Fatalf("shares %v: %d us, even shares %d us", shares, weighted, plain)
		}
	})
	got := lan(time.Millisecond, 8*gigabit, 8*gigabit, gigabit/100, 8*gigabit).shares()
	if got[2] != 0 || got[0] != got[1] || got[0] != got[3] || got[0] == 0 {
		t.Errorf("shares %v", got)
	}
}

// TestCompare: all members derive the same table from what each has said; nonsense is refused.
func TestCompare(t *testing.T) {
	groups := groupOf(3, nil)
	defer closeAll(groups)
	for r, g := range groups {
		g.meter.bytes, g.meter.busy = meterLeast, time.Duration(r+1)*time.Second
	}
	together(groups, func(_ int, g *Group) {
		if err := g.Compare(t.Context(), testOp(1)); err != nil {
			t.Error(err)
		}
	})
	for _, g := range groups {
		if !slices.Equal(g.table.rate, []int64{meterLeast, meterLeast / 2, meterLeast / 3}) {
			t.Errorf("rates %v", g.table.rate)
		}
	}
	table := newTable(3)
	if table.enter(0, make([]byte, 19)) == nil {
		t.Error("accepted a short report")
	}
	if err := table.enter(0, slices.Repeat([]byte{255}, 20)); err != nil || table.rate[0] != maxRate {
		t.Errorf("rate %d, %v", table.rate[0], err)
	}
}

// TestUnmeasured: while one member's rate is not known, nobody's counts.
func TestUnmeasured(t *testing.T) {
	table := lan(time.Millisecond, gigabit, 0, 3*gigabit)
	table.complete()
	if table.uneven() || table.rate[1] != guessRate {
		t.Errorf("rates %v", table.rate)
	}
}

package ratelimit

import (
	"math/rand/v2"
	"testing"
	"time"
)

// lend asks for n permits as borrower 7's slice seq.
func (c *cell) lend(p Policy, seq uint64, n int64) result {
	c.t.Helper()
	return c.apply(op{kind: opLease, rule: ruleOf(p, c.wall), id: 7, seq: seq, cost: n}, false)
}

func (c *cell) takeBack(p Policy, seq uint64, unused int64) result {
	c.t.Helper()
	return c.apply(op{kind: opReturn, rule: ruleOf(p, c.wall), id: 7, seq: seq, cost: unused}, false)
}

var leasePolicies = []Policy{PerDay("p", 10_000), fixed(10_000, 24*time.Hour), sliding(10_000, 24*time.Hour), Calendar("p", 10_000, Month, nil)}

// What is lent is not there for others; what comes back is, once.
func TestLeaseAndReturn(t *testing.T) {
	for _, p := range leasePolicies {
		t.Run(p.Algorithm.String()+p.Align.String(), func(t *testing.T) {
			c := newCell(t)
			c.take(p, 100)
			r := c.lend(p, 1, 90)
			if !r.allowed() || r.granted != 90 || r.lasts != leaseFor || !c.last.Wait {
				t.Fatalf("%+v, %+v", r, c.last)
			}
			if again := c.lend(p, 1, 90); again.granted != 90 || !c.last.Wait || c.status(p, 1).remaining != 9810 {
				t.Fatalf("asked again: %+v, %+v", again, c.last)
			}
			c.advance(10 * time.Millisecond)
			if r := c.takeBack(p, 1, 40); !r.allowed() || c.status(p, 1).remaining != 9850 {
				t.Fatalf("%+v, %+v", r, c.status(p, 1))
			}
			if r := c.takeBack(p, 1, 40); r.allowed() || c.last.Changed || c.status(p, 1).remaining != 9850 {
				t.Fatalf("twice: %+v, %+v", r, c.status(p, 1))
			}
			if c.state.extra != nil {
				t.Errorf("%+v", c.state.extra)
			}
		})
	}
}

// A slice that is not heard of again counts as used, and its return comes late.
func TestLeaseRunsOut(t *testing.T) {
	for _, p := range leasePolicies {
		c := newCell(t)
		c.lend(p, 1, 90)
		c.lend(p, 2, 90)
		c.advance(time.Duration(leaseFor))
		if r := c.takeBack(p, 2, 90); !r.allowed() {
			t.Errorf("%s%s, late: %+v", p.Algorithm, p.Align, r)
		}
		if r := c.take(p, 9_950); r.allowed() || r.out != nil || r.flags&resultSoon == 0 {
			t.Errorf("%s%s: %+v", p.Algorithm, p.Align, r)
		}
		c.advance(time.Duration(leaseKept))
		if r := c.takeBack(p, 1, 90); r.allowed() {
			t.Errorf("%s%s: %+v", p.Algorithm, p.Align, r)
		}
		if r := c.take(p, 1); r.remaining != 9909 || c.state.extra != nil {
			t.Errorf("%s%s: %+v, %+v", p.Algorithm, p.Align, r, c.state.extra)
		}
	}
}

func TestLeaseSizes(t *testing.T) {
	for _, c := range []struct {
		what              string
		limit, used, want int64
		granted           int64
	}{
		{"as many as are asked for", 10_000, 0, 50, 50},
		{"a hundredth of the limit", 10_000, 0, 5000, 100},
		{"a quarter of what is left", 10_000, 9_800, 5000, 50},
		{"few that are left are not lent", 10_000, 9_970, 5000, 0},
		{"nor are few of few", 700, 0, 5000, 0},
		{"nor are few that are asked for", 10_000, 0, 3, 0},
	} {
		for _, p := range []Policy{PerDay("p", c.limit), fixed(c.limit, time.Hour)} {
			cell := newCell(t)
			cell.take(p, c.used)
			if r := cell.lend(p, 1, c.want); r.granted != c.granted || r.allowed() != (c.granted > 0) {
				t.Errorf("%s: %+v", c.what, r)
			}
		}
	}
	c, p := newCell(t), fixed(10_000, time.Hour)
	for i, want := range []bool{true, true, false} {
		if r := c.lend(p, uint64(i), 10); r.allowed() != want {
			t.Errorf("slice %d of one borrower: %+v", i, r)
		}
	}
	for id := range uint64(100) {
		c.apply(op{kind: opLease, rule: ruleOf(p, c.wall), id: 100 + id, seq: 1, cost: 10}, false)
	}
	if n := len(c.state.extra.lent.out); n != leasesOut {
		t.Errorf("%d slices are out", n)
	}
}

// A slice ends with its window, and is not worth it near its end.
func TestLeaseEndsWithItsWindow(t *testing.T) {
	for _, p := range []Policy{fixed(10_000, time.Second), sliding(10_000, time.Second), Calendar("p", 10_000, Second, nil)} {
		c := newCell(t)
		c.take(p, 1)
		c.advance(940 * time.Millisecond)
		if r := c.lend(p, 1, 50); r.lasts != 60*simMs {
			t.Errorf("%s%s: lasts %s", p.Algorithm, p.Align, time.Duration(r.lasts))
		}
		c.advance(55 * time.Millisecond)
		if r := c.lend(p, 2, 50); r.allowed() {
			t.Errorf("%s%s: lent 5 ms before the end: %+v", p.Algorithm, p.Align, r)
		}
	}
}

// Who would be denied is told who has permits, but not all at once.
func TestDenialRecalls(t *testing.T) {
	for _, p := range leasePolicies {
		c := newCell(t)
		c.lend(p, 1, 80)
		c.apply(op{kind: opLease, rule: ruleOf(p, c.wall), id: 9, seq: 1, cost: 80}, false)
		c.advance(30 * time.Millisecond)
		r := c.take(p, 9990)
		if r.allowed() || r.out == nil || len(r.out.borrowers) != 2 || r.out.home != 70*simMs || r.flags&resultSoon == 0 {
			t.Fatalf("%+v, %+v", r, r.out)
		}
		if r = c.take(p, 9990); r.allowed() || r.out == nil || len(r.out.borrowers) != 0 {
			t.Errorf("the next: %+v, %+v", r, r.out)
		}
		if r := c.lend(p, 2, 50); r.allowed() {
			t.Errorf("lent while it is being recalled: %+v", r)
		}
		c.takeBack(p, 1, 80)
		c.apply(op{kind: opReturn, rule: ruleOf(p, c.wall), id: 9, seq: 1, cost: 75}, false)
		if r = c.take(p, 9990); !r.allowed() || r.remaining != 5 {
			t.Errorf("when all are home: %+v", r)
		}
		if r = c.take(p, 9990); r.allowed() || r.out != nil || r.flags&resultSoon != 0 {
			t.Errorf("with nothing out: %+v", r)
		}
	}
}

// A reset, and another rule, wait until no slice is out; what was begun before
// does not.
func TestChangesWaitForSlices(t *testing.T) {
	p := fixed(10_000, time.Hour)
	q := fixed(10_000, time.Minute)
	c := newCell(t)
	c.machine.clustered = true
	c.take(p, 1)
	c.placeOp(opReserve, p, 1, 5)
	c.lend(p, 1, 50)
	r := c.apply(op{kind: opReset}, false)
	if r.allowed() || r.flags&resultNotRun == 0 || len(r.out.borrowers) != 1 || r.out.borrowers[0] != 7 || r.out.home != leaseFor {
		t.Fatalf("%+v, %+v", r, r.out)
	}
	if r := c.take(q, 1); r.allowed() || r.flags&resultNotRun == 0 {
		t.Errorf("another rule: %+v", r)
	}
	if r := c.take(p, 1); !r.allowed() {
		t.Errorf("their own rule: %+v", r)
	}
	if r := c.placeOp(opConfirm, q, 1, 5); !r.allowed() {
		t.Errorf("a confirmation: %+v", r)
	}
	if r := c.status(q, 1); !r.allowed() || c.last.Changed {
		t.Errorf("a status: %+v", r)
	}
	c.advance(time.Duration(leaseFor))
	if r := c.take(q, 1); !r.allowed() || r.remaining != 10_000-58 {
		t.Errorf("another rule, later: %+v", r)
	}
	if r := c.apply(op{kind: opReset}, false); !r.allowed() {
		t.Errorf("the reset, later: %+v", r)
	}
	if r := c.takeBack(p, 1, 50); r.allowed() || c.take(p, 1).remaining != 9_999 {
		t.Errorf("a return after it: %+v", r)
	}
}

// After a split what only one side had lent gives nothing back to a window.
func TestMergeOfLeases(t *testing.T) {
	for _, p := range leasePolicies {
		a := newCell(t)
		a.lend(p, 1, 80)
		b := newCell(t)
		b.state, b.expires = a.state, a.expires
		a.lend(p, 2, 80)
		b.take(p, 500)
		for _, s := range []state{machine{}.Merge(a.state, b.state), machine{}.Merge(b.state, a.state)} {
			c := newCell(t)
			c.state, c.expires = s, b.expires
			c.takeBack(p, 1, 80)
			c.takeBack(p, 2, 80)
			used := 10_000 - c.status(p, 1).remaining
			if used < 500 || used > 580 {
				t.Errorf("%s%s: %d used", p.Algorithm, p.Align, used)
			}
		}
	}
}

// Beside the model, permits are used now at the holder, now out of slices: every
// one of them is one that the model has. When slices are home the holder has
// what the model has, a bucket as it was 100 ms ago at the latest.
func TestLeasesBesideTheModel(t *testing.T) {
	type out struct {
		seq, left, until int64
	}
	sequences(t, func(t *testing.T, rnd *rand.Rand) {
		limit := 800 + rnd.Int64N(3000)
		p := Policy{Name: "p", Limit: limit, Period: time.Duration(1+rnd.Int64N(2000)) * time.Millisecond}
		var m model = &bucketModel{}
		if rnd.IntN(2) == 0 {
			p = Calendar("p", limit, Second+Alignment(rnd.IntN(3)), time.UTC)
			m = &calendarModel{}
		}
		c := newCell(t)
		var slices []out
		seq := int64(0)
		left := func() int64 {
			used := m.look(c.now, c.wall, p)(0)
			period := max(int64(p.Period), 1)
			return p.capacity() - used.Add(used, product(period-1, 1)).Div(used, product(period, 1)).Int64()
		}
		use := func(n int64, what string) {
			if n > left() {
				t.Fatalf("%+v: %d used %s with %d left", p, n, what, left())
			}
			m.charge(c.now, c.wall, p, n)
		}
		for range 12 {
			c.advance(time.Duration(rnd.Int64N(60 * simMs)))
			switch n := 1 + rnd.Int64N(limit); rnd.IntN(4) {
			case 0:
				if c.take(p, n).allowed() {
					use(n, "at the holder")
				}
			case 1:
				seq++
				if r := c.lend(p, uint64(seq), n); r.allowed() {
					slices = append(slices, out{seq, r.granted, c.now + r.lasts})
				}
			case 2:
				for i := range slices {
					if s := &slices[i]; c.now < s.until && s.left > 0 {
						n = 1 + rnd.Int64N(s.left)
						use(n, "of a slice")
						s.left -= n
					}
				}
			case 3:
				if len(slices) > 0 {
					c.takeBack(p, uint64(slices[0].seq), slices[0].left)
					lost := slices[0].until <= c.now && slices[0].left > 0
					if slices = slices[1:]; lost {
						return // counted as used, which the model does not know
					}
				}
			}
		}
		for _, s := range slices {
			if s.until <= c.now {
				return
			}
			c.takeBack(p, uint64(s.seq), s.left)
		}
		lag := int64(0)
		if p.Align == Unaligned {
			lag = limit*leaseFor/int64(p.Period) + 2
		}
		if got := c.status(p, 1).remaining; got > left() || got < left()-lag {
			t.Fatalf("%+v: %d left, and %d by the model", p, got, left())
		}
	})
}

// A member that brings another rule is not lent to while slices are out, and
// nobody is recalled for it.
func TestLeaseOfAnotherRule(t *testing.T) {
	c, p := newCell(t), fixed(10_000, time.Hour)
	c.lend(p, 1, 50)
	q := p
	q.Limit = 20_000
	if r := c.lend(q, 2, 50); r.allowed() || r.out != nil || c.last.Changed {
		t.Errorf("%+v", r)
	}
}

// A slice's own time gains the time that a copy is under way; the calendar's does
// not. So a return that comes after the window changes nothing of the next.
func TestReturnAfterTheWindow(t *testing.T) {
	p := Calendar("p", 10_000, Second, nil)
	a := newCell(t)
	a.take(p, 1)
	a.advance(950 * time.Millisecond)
	a.lend(p, 1, 50)
	b := newCell(t)
	b.now, b.wall, b.expires = 77*int64(time.Hour), a.wall+40*simMs, 80*int64(time.Hour)
	var err error
	if b.state, err = (machine{}).ParseState((machine{}).AppendState(nil, a.state, a.now), b.now); err != nil {
		t.Fatal(err)
	}
	b.advance(15 * time.Millisecond) // of the next window
	b.take(p, 30)
	if r := b.takeBack(p, 1, 50); r.allowed() || b.status(p, 1).remaining != 9_970 {
		t.Errorf("%+v, %+v", r, b.status(p, 1))
	}
}

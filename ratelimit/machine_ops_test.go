package ratelimit

import (
	"testing"
	"time"
	"unsafe"
)

func TestStateIsSmall(t *testing.T) {
	if n := unsafe.Sizeof(state{}); n != 48 {
		t.Errorf("a state has %d bytes", n)
	}
}

func TestEffects(t *testing.T) {
	c := newCell(t)
	p := PerMinute("p", 1000)
	c.take(p, 7)
	if e := c.last; !e.Changed || e.Wait || e.Spent != 7 || e.Bound != 10 || e.Expires != c.now+int64(420*time.Millisecond) {
		t.Errorf("take: %+v", e)
	}
	c.take(PerMinute("p", 50), 1)
	if e := c.last; e.Bound != 1 {
		t.Errorf("small limit: %+v", e)
	}
	c.take(p, 1000)
	if c.last.Changed {
		t.Error("a denial changed the state")
	}
	c.status(p, 1)
	if c.last.Changed {
		t.Error("a status changed the state")
	}
	c.apply(op{kind: opTake, flags: flagWait, rule: ruleOf(p, c.wall), cost: 1}, false)
	if !c.last.Wait {
		t.Error("a synchronous take does not wait")
	}
}

func TestAtMost(t *testing.T) {
	c := newCell(t)
	p := PerMinute("p", 10)
	ask := func(cost int64) result {
		return c.apply(op{kind: opAtMost, rule: ruleOf(p, c.wall), cost: cost}, false)
	}
	if r := ask(7); !r.allowed() || r.granted != 7 || r.remaining != 3 {
		t.Errorf("%+v", r)
	}
	if r := ask(MaxLimit); !r.allowed() || r.granted != 3 || r.remaining != 0 {
		t.Errorf("%+v", r)
	}
	if r := ask(5); r.allowed() || r.granted != 0 || c.last.Changed {
		t.Errorf("%+v", r)
	}
}

func TestRefund(t *testing.T) {
	for _, p := range []Policy{PerMinute("p", 10), fixed(10, time.Minute), sliding(10, time.Minute), Calendar("p", 10, Day, nil)} {
		t.Run(p.Algorithm.String()+p.Align.String(), func(t *testing.T) {
			c := newCell(t)
			refund := func(cost int64, again bool) result {
				return c.apply(op{kind: opRefund, flags: flagKnown, rule: ruleOf(p, c.wall), cost: cost}, again)
			}
			if r := refund(3, false); r.flags&resultUnknown == 0 || c.last.Changed {
				t.Fatalf("nothing to give back: %+v", r)
			}
			c.take(p, 8)
			if r := refund(3, false); r.remaining != 5 {
				t.Fatalf("%+v", r)
			}
			if r := refund(3, true); r.remaining != 5 || c.last.Changed {
				t.Fatalf("sent again: %+v", r)
			}
			if r := refund(100, false); r.remaining != 10 {
				t.Fatalf("more than was used: %+v", r)
			}
			if r := c.take(p, 10); !r.allowed() || r.remaining != 0 {
				t.Fatalf("after it: %+v", r)
			}
		})
	}
}

func TestRefundReachesTheWindowBefore(t *testing.T) {
	c := newCell(t)
	p := sliding(10, time.Minute)
	c.take(p, 10)
	c.advance(time.Minute)
	c.take(p, 0)
	r := c.apply(op{kind: opRefund, rule: ruleOf(p, c.wall), cost: 4}, false)
	if r.remaining != 4 {
		t.Fatalf("%+v", r)
	}
}

func TestReset(t *testing.T) {
	reset := op{kind: opReset, flags: flagWait}
	c := newCell(t)
	p := PerMinute("p", 10)
	if r := c.apply(reset, false); r.allowed() || c.last.Changed {
		t.Fatalf("nothing to reset: %+v", r)
	}
	c.take(p, 10)
	if r := c.apply(reset, false); !r.allowed() || c.last.Expires != 0 || c.state != (state{}) {
		t.Fatalf("alone a reset leaves nothing: %+v %+v", r, c.last)
	}

	c = newCell(t)
	c.machine.clustered = true
	c.take(p, 10)
	if r := c.apply(reset, false); !r.allowed() || !c.last.Wait || c.last.Expires != c.now+int64(time.Minute) {
		t.Fatalf("a reset is remembered for as long as what it forgot: %+v %+v", r, c.last)
	}
	if r := c.apply(reset, false); r.allowed() {
		t.Fatal("reset twice, counted twice")
	}
	if r := c.take(p, 10); !r.allowed() || r.flags&resultFresh == 0 || c.state.reset != 1 {
		t.Fatalf("after a reset: %+v %+v", r, c.state)
	}
	c.take(Policy{Name: "p", Limit: 1, Period: MaxPeriod}, 0)
	c.apply(op{kind: opTake, rule: ruleOf(fixed(20, 24*time.Hour), c.wall), cost: 1}, false)
	c.apply(reset, false)
	if c.last.Expires != c.now+int64(goneFor) {
		t.Fatalf("a reset is remembered for ten minutes at most: %+v", c.last)
	}
}

func TestKnownOnly(t *testing.T) {
	c := newCell(t)
	p := PerMinute("p", 10)
	known := op{kind: opTake, flags: flagKnown, rule: ruleOf(p, c.wall), cost: 1}
	if r := c.apply(known, false); r.allowed() || r.flags&resultUnknown == 0 || c.last.Changed {
		t.Fatalf("unknown: %+v", r)
	}
	if r := c.take(p, 1); r.flags&resultFresh == 0 {
		t.Fatalf("first: %+v", r)
	}
	if r := c.apply(known, false); !r.allowed() || r.flags&(resultFresh|resultUnknown) != 0 || r.remaining != 8 {
		t.Fatalf("known: %+v", r)
	}
}

// A change of algorithm carries over what was used.
func TestAlgorithmChanges(t *testing.T) {
	policies := []Policy{PerMinute("p", 10), fixed(10, time.Minute), sliding(10, time.Minute), Calendar("p", 10, Day, nil)}
	for _, from := range policies {
		for _, to := range policies {
			if kindOf(&rule{algorithm: from.Algorithm, align: from.Align}) == kindOf(&rule{algorithm: to.Algorithm, align: to.Align}) {
				continue
			}
			c := newCell(t)
			c.take(from, 7)
			if r := c.status(to, 1); r.remaining != 3 {
				t.Errorf("%s%s to %s%s: %+v", from.Algorithm, from.Align, to.Algorithm, to.Align, r)
			}
			c.take(to, 2)
			if r := c.status(from, 1); r.remaining != 1 {
				t.Errorf("%s%s to %s%s and back: %+v", from.Algorithm, from.Align, to.Algorithm, to.Align, r)
			}
			c.advance(48 * time.Hour)
			if r := c.status(from, 1); r.remaining != 10 {
				t.Errorf("%s%s to %s%s, two days later: %+v", from.Algorithm, from.Align, to.Algorithm, to.Align, r)
			}
		}
	}
}

// Two versions of a service bring different limits for one policy: neither lets
// more through than its own limit, and what was used is kept.
func TestLimitsDifferDuringADeploy(t *testing.T) {
	for _, mk := range []func(int64) Policy{
		func(n int64) Policy { return PerHour("p", n) },
		func(n int64) Policy { return fixed(n, time.Hour) },
		func(n int64) Policy { return sliding(n, time.Hour) },
		func(n int64) Policy { return Calendar("p", n, Month, nil) },
	} {
		small, large := mk(100), mk(200)
		t.Run(small.Algorithm.String()+small.Align.String(), func(t *testing.T) {
			c := newCell(t)
			total := int64(0)
			for i := range 1000 {
				p, most := small, int64(100)
				if i%2 == 1 {
					p, most = large, 200
				}
				if c.take(p, 1).allowed() {
					if total++; total > most {
						t.Fatalf("permit %d allowed by a limit of %d", total, most)
					}
				}
			}
			if total != 200 {
				t.Fatalf("%d allowed in all", total)
			}
		})
	}
}

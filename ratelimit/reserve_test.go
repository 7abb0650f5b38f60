package ratelimit

import (
	"math/rand/v2"
	"testing"
	"time"
)

func TestReservationCountsUntilItIsReleased(t *testing.T) {
	for _, p := range []Policy{PerMinute("p", 5), fixed(5, time.Minute), sliding(5, time.Minute), Calendar("p", 5, Day, nil)} {
		t.Run(p.Algorithm.String()+p.Align.String(), func(t *testing.T) {
			c := newCell(t)
			if r := c.placeOp(opReserve, p, 1, 3); !r.allowed() || r.remaining != 2 {
				t.Fatalf("reserve: %+v", r)
			}
			if r := c.placeOp(opReserve, p, 1, 3); !r.allowed() || r.remaining != 2 {
				t.Fatalf("reserve, sent again: %+v", r)
			}
			if r := c.take(p, 3); r.allowed() || r.remaining != 2 || time.Duration(r.retry) != time.Second {
				t.Fatalf("three beside three of five: %+v", r)
			}
			if r := c.take(p, 2); !r.allowed() || r.remaining != 0 {
				t.Fatalf("two beside three of five: %+v", r)
			}
			if r := c.placeOp(opRelease, p, 1, 3); !r.allowed() || r.remaining != 3 {
				t.Fatalf("release: %+v", r)
			}
			if r := c.placeOp(opRelease, p, 1, 3); r.allowed() || r.remaining != 3 {
				t.Fatalf("release, sent again: %+v", r)
			}
		})
	}
}

func TestReservationRunsOut(t *testing.T) {
	p := PerMinute("p", 5)
	c := newCell(t)
	c.placeOp(opReserve, p, 1, 5)
	c.advance(reserveFor - 1)
	if r := c.take(p, 1); r.allowed() || r.retry != 1 {
		t.Fatalf("a nanosecond early: %+v", r)
	}
	c.advance(1)
	if r := c.take(p, 5); !r.allowed() {
		t.Fatalf("it left a trace: %+v", r)
	}
	if r := c.placeOp(opConfirm, p, 1, 5); r.allowed() {
		t.Fatal("confirmed after it ran out")
	}
}

// A reservation is charged when it is confirmed, once, whatever is sent twice.
func TestReservationConfirmed(t *testing.T) {
	p := PerMinute("p", 6)
	c := newCell(t)
	c.placeOp(opReserve, p, 1, 3)
	c.advance(500 * time.Millisecond)
	for _, again := range []bool{false, true} {
		r := c.apply(op{kind: opConfirm, rule: ruleOf(p, c.wall), cost: 3, id: 1}, again)
		if !r.allowed() || r.remaining != 3 || time.Duration(r.whole) != 30*time.Second {
			t.Fatalf("confirm, again %v: %+v", again, r)
		}
	}
	if c.state.extra != nil {
		t.Fatalf("a confirmed reservation is kept: %+v", c.state.extra)
	}
	if c.placeOp(opConfirm, p, 1, 3).allowed() {
		t.Fatal("confirmed twice, both for the first time")
	}
	c.advance(time.Second)
	if r := c.status(p, 1); r.remaining != 3 {
		t.Fatalf("after it would have run out: %+v", r)
	}
}

// Reservations only ever take away: what is granted beside them is no more than
// what the policy allows, and confirming never goes over.
func TestReservationsNeverExceedTheLimit(t *testing.T) {
	sequences(t, func(t *testing.T, rnd *rand.Rand) {
		c := newCell(t)
		p := fixed(1+rnd.Int64N(8), time.Hour) // one window: the sum of all is the limit
		pending := map[uint64]int64{}
		var spent int64
		for id := range uint64(12) {
			c.advance(time.Duration(rnd.IntN(500)) * time.Millisecond)
			cost := 1 + rnd.Int64N(min(3, p.Limit))
			switch rnd.IntN(4) {
			case 0:
				if c.take(p, cost).allowed() {
					spent += cost
				}
			case 1:
				if c.placeOp(opReserve, p, id, cost).allowed() {
					pending[id] = cost
				}
			default:
				for id, cost := range pending {
					kind := []opKind{opConfirm, opRelease}[rnd.IntN(2)]
					if c.placeOp(kind, p, id, cost).allowed() && kind == opConfirm {
						spent += cost
					}
					delete(pending, id)
					break
				}
			}
			if spent > p.Limit {
				t.Fatalf("%d spent of %d", spent, p.Limit)
			}
		}
		c.advance(2 * time.Second)
		if r := c.status(p, 0); r.remaining != p.Limit-spent {
			t.Fatalf("%d left of %d after %d were spent", r.remaining, p.Limit, spent)
		}
	})
}

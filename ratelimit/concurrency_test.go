package ratelimit

import (
	"math/rand/v2"
	"testing"
	"time"
)

func (c *cell) placeOp(kind opKind, p Policy, id uint64, cost int64) result {
	c.t.Helper()
	return c.apply(op{kind: kind, rule: ruleOf(p, c.wall), cost: cost, id: id}, false)
}

func TestConcurrencySteps(t *testing.T) {
	p := InFlight("p", 3, 10*time.Second)
	c := newCell(t)
	if r := c.placeOp(opAcquire, p, 1, 1); !r.allowed() || r.remaining != 2 || c.last.Spent != 1 {
		t.Fatalf("first: %+v, %+v", r, c.last)
	}
	c.advance(4 * time.Second)
	if r := c.placeOp(opAcquire, p, 2, 2); !r.allowed() || r.remaining != 0 {
		t.Fatalf("second: %+v", r)
	}
	if r := c.placeOp(opAcquire, p, 3, 1); r.allowed() || time.Duration(r.retry) != time.Second || time.Duration(r.whole) != 10*time.Second {
		t.Fatalf("full: %+v", r)
	}
	if r := c.placeOp(opAcquire, p, 2, 2); !r.allowed() || r.remaining != 0 {
		t.Fatalf("sent again: %+v", r)
	}
	if r := c.placeOp(opLeave, p, 9, 1); r.allowed() || r.remaining != 0 {
		t.Fatalf("a place never taken: %+v", r)
	}
	c.advance(5 * time.Second)
	if r := c.placeOp(opRenew, p, 1, 1); !r.allowed() || time.Duration(r.whole) != 10*time.Second {
		t.Fatalf("renewal: %+v", r)
	}
	c.advance(5 * time.Second) // the second place has run out
	if r := c.placeOp(opRenew, p, 2, 2); r.allowed() || r.remaining != 2 {
		t.Fatalf("renewal too late: %+v", r)
	}
	if r := c.placeOp(opLeave, p, 1, 1); !r.allowed() || r.remaining != 3 {
		t.Fatalf("left: %+v", r)
	}
	if c.state.kind != kindInFlight || c.state.extra != nil || c.expires != 0 {
		t.Fatalf("all gone, and still kept: %+v until %d", c.state, c.expires)
	}
}

// placesModel is a list of who is in flight until when.
func TestConcurrencyEqualsModel(t *testing.T) {
	type inFlight struct {
		permits int64
		until   int64
	}
	sequences(t, func(t *testing.T, rnd *rand.Rand) {
		c := newCell(t)
		p := InFlight("p", 1+rnd.Int64N(6), time.Duration(1+rnd.IntN(5))*time.Second)
		places := make(map[uint64]inFlight)
		for range 12 {
			if rnd.IntN(8) == 0 {
				p.Limit = 1 + rnd.Int64N(6)
			}
			c.advance(time.Duration(rnd.IntN(3)) * time.Second)
			var used int64
			for id, f := range places {
				if f.until <= c.now {
					delete(places, id)
					continue
				}
				used += f.permits
			}
			id := 1 + rnd.Uint64N(6)
			kind := []opKind{opAcquire, opAcquire, opLeave, opRenew}[rnd.IntN(4)]
			cost := 1 + rnd.Int64N(min(2, p.Limit))
			held, known := places[id]
			want := known
			switch kind {
			case opAcquire:
				if !known && used+cost <= p.Limit {
					want = true
					places[id] = inFlight{cost, c.now + int64(p.Period)}
					used += cost
				}
			case opLeave:
				delete(places, id)
				used -= held.permits
			case opRenew:
				if known {
					places[id] = inFlight{held.permits, c.now + int64(p.Period)}
				}
			}
			r := c.placeOp(kind, p, id, cost)
			if r.allowed() != want || r.remaining != max(p.Limit-used, 0) {
				t.Fatalf("op %d of %d permits on %d: %+v, want %v with %d of %d used", kind, cost, id, r, want, used, p.Limit)
			}
		}
	})
}

// States are values: what another goroutine read is not written to.
func TestConcurrencyCopiesOnWrite(t *testing.T) {
	p := InFlight("p", 100, time.Minute)
	c := newCell(t)
	for id := range uint64(10) {
		c.placeOp(opAcquire, p, id, 1)
	}
	before := c.state
	was := append([]place(nil), before.extra.places...)
	c.advance(time.Second)
	for id := range uint64(5) {
		c.placeOp(opRenew, p, id, 1)
		c.placeOp(opLeave, p, id+5, 1)
		c.placeOp(opAcquire, p, id+50, 1)
	}
	for i, pl := range before.extra.places {
		if pl != was[i] {
			t.Fatalf("place %d of an old state changed from %+v to %+v", i, was[i], pl)
		}
	}
}

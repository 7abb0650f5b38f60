package ratelimit

import (
	"math/rand/v2"
	"reflect"
	"testing"
	"time"
)

func spentCell(t *testing.T, p Policy, cost int64) *cell {
	t.Helper()
	c := newCell(t)
	c.machine.clustered = true
	if !c.take(p, cost).allowed() {
		t.Fatal("denied")
	}
	return c
}

// After a split each key has what the side that used more of it had used.
func TestMergeKeepsTheLarger(t *testing.T) {
	for _, p := range []Policy{PerMinute("p", 10), fixed(10, time.Minute), sliding(10, time.Minute), Calendar("p", 10, Day, nil)} {
		a, b := spentCell(t, p, 3), spentCell(t, p, 7)
		// The same window, one of them having travelled for some ms.
		if p.Algorithm == FixedWindow && p.Align == Unaligned || p.Algorithm == SlidingWindow {
			a.state.a += int64(20 * time.Millisecond)
		}
		for _, order := range [][2]state{{a.state, b.state}, {b.state, a.state}} {
			c := newCell(t)
			c.state, c.expires = machine{}.Merge(order[0], order[1]), b.expires
			if r := c.status(p, 1); r.remaining != 3 {
				t.Errorf("%s%s: %d left", p.Algorithm, p.Align, r.remaining)
			}
		}
	}
}

func TestMergeTakesTheLaterWindow(t *testing.T) {
	for _, p := range []Policy{fixed(10, time.Minute), sliding(10, time.Minute), Calendar("p", 10, Minute, nil)} {
		old, young := spentCell(t, p, 9), newCell(t)
		young.advance(time.Minute)
		young.take(p, 2)
		s := machine{}.Merge(old.state, young.state)
		if !reflect.DeepEqual(s, machine{}.Merge(young.state, old.state)) || s.b != 2 {
			t.Errorf("%s%s: %+v", p.Algorithm, p.Align, s)
		}
	}
}

// A reset on one side is a reset, and a later policy counts.
func TestMergeTakesTheLaterResetAndVersion(t *testing.T) {
	p := PerMinute("p", 10)
	a, b := spentCell(t, p, 9), spentCell(t, p, 9)
	b.apply(op{kind: opReset}, false)
	b.take(p, 1)
	s := machine{}.Merge(a.state, b.state)
	if s.reset != 1 || !reflect.DeepEqual(s, b.state) {
		t.Errorf("%+v", s)
	}
	b.apply(op{kind: opReset}, false)
	if s := (machine{}).Merge(a.state, b.state); s.kind != kindGone {
		t.Errorf("a reset was forgotten: %+v", s)
	}
	old, young := spentCell(t, p, 9).state, spentCell(t, p, 1).state
	old.version, young.version = 4, 5
	if s := (machine{}).Merge(old, young); !reflect.DeepEqual(s, young) {
		t.Errorf("%+v", s)
	}
	if s := (machine{}).Merge(old, state{}); !reflect.DeepEqual(s, old) {
		t.Errorf("a copy met no copy: %+v", s)
	}
}

func TestMergeJoinsPlacesAndReservations(t *testing.T) {
	p := InFlight("p", 10, time.Minute)
	a, b := newCell(t), newCell(t)
	a.placeOp(opAcquire, p, 1, 1)
	b.placeOp(opAcquire, p, 1, 1)
	b.placeOp(opAcquire, p, 2, 3)
	a.placeOp(opAcquire, p, 3, 1)
	c := newCell(t)
	c.state, c.expires = machine{}.Merge(a.state, b.state), c.now+int64(time.Minute)
	if r := c.status(p, 1); r.remaining != 5 {
		t.Errorf("%d of 10 left beside 1, 3 and 1", r.remaining)
	}

	q := PerMinute("q", 10)
	a, b = newCell(t), newCell(t)
	a.placeOp(opReserve, q, 1, 4)
	b.placeOp(opReserve, q, 1, 4)
	b.placeOp(opReserve, q, 2, 3)
	c = newCell(t)
	c.state, c.expires = machine{}.Merge(a.state, b.state), c.now+int64(time.Second)
	if r := c.status(q, 1); r.remaining != 3 {
		t.Errorf("%d of 10 left beside 4 and 3 set aside", r.remaining)
	}
}

// Merging is the same in either order and with itself.
func TestMergeIsSymmetric(t *testing.T) {
	sequences(t, func(t *testing.T, rnd *rand.Rand) {
		wall := newCell(t).wall
		p, q := randomPolicy(rnd), randomPolicy(rnd)
		p.Name, q.Name = "p", "p"
		if rnd.IntN(3) > 0 {
			q = p
		}
		a, b := newCell(t), newCell(t)
		for _, c := range []*cell{a, b} {
			for range 3 {
				c.advance(time.Duration(rnd.Int64N(int64(3 * time.Second))))
				policy := p
				if c == b {
					policy = q
				}
				kind := []opKind{opTake, opTake, opReserve, opConfirm}[rnd.IntN(4)]
				if policy.Algorithm == Concurrency {
					kind = opAcquire
				}
				c.apply(op{kind: kind, rule: ruleOf(policy, wall), cost: 1, id: 1 + rnd.Uint64N(3)}, false)
			}
		}
		one, two := machine{}.Merge(a.state, b.state), machine{}.Merge(b.state, a.state)
		if !sameState(one, two) {
			t.Fatalf("%+v and %+v:\n%+v\n%+v", a.state, b.state, one, two)
		}
		if !sameState(machine{}.Merge(a.state, a.state), a.state) {
			t.Fatalf("%+v with itself", a.state)
		}
	})
}

// sameState compares states whose reservations and places may be in another
// order.
func sameState(x, y state) bool {
	ids := func(s state) (map[uint64]reservation, map[uint64]place) {
		r, p := make(map[uint64]reservation), make(map[uint64]place)
		if s.extra != nil {
			for _, v := range s.extra.reserved {
				r[v.id] = v
			}
			for _, v := range s.extra.places {
				p[v.id] = v
			}
		}
		return r, p
	}
	rx, px := ids(x)
	ry, py := ids(y)
	x.extra, y.extra = nil, nil
	return x == y && reflect.DeepEqual(rx, ry) && reflect.DeepEqual(px, py)
}

package ratelimit

import (
	"reflect"
	"testing"
	"time"

	"github.com/peerlimit/peerlimit/cluster"
)

// cell is one key's entry as a table keeps it, with clocks set by hand.
type cell struct {
	t       testing.TB
	machine machine
	state   state
	expires int64
	now     int64 // monotonic, ns
	wall    int64 // ns since 1970
	calls   uint64
	last    cluster.Effect
}

func newCell(t testing.TB) *cell {
	at := time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)
	return &cell{t: t, now: int64(time.Hour), wall: at.UnixNano()}
}

// apply runs o as a table would, and checks what holds for every operation.
func (c *cell) apply(o op, again bool) result {
	c.t.Helper()
	c.calls++
	old := c.state
	if c.expires <= c.now {
		old = state{}
	}
	call := cluster.Call{Now: c.now, ID: c.calls, Again: again, WallOffset: c.wall - c.now}
	s, res, effect := c.machine.Apply(call, old, o)
	c.last = effect
	if res.remaining < 0 || res.retry < 0 || res.whole < 0 || res.next < 0 {
		c.t.Fatalf("negative: %+v after %+v", res, o)
	}
	if res.allowed() && res.retry != 0 {
		c.t.Fatalf("allowed, and retry after %d: %+v", res.retry, o)
	}
	if effect.Changed {
		c.state, c.expires = s, effect.Expires
		if effect.Expires > c.now {
			c.roundTrip(s)
		}
	}
	return res
}

// roundTrip checks that a state survives the wire.
func (c *cell) roundTrip(s state) {
	c.t.Helper()
	b := c.machine.AppendState(nil, s, c.now)
	got, err := c.machine.ParseState(b, c.now)
	if err != nil || !reflect.DeepEqual(got, s) {
		c.t.Fatalf("state %+v travels as %x and arrives as %+v, %v", s, b, got, err)
	}
}

func (c *cell) take(p Policy, cost int64) result {
	c.t.Helper()
	return c.apply(op{kind: opTake, rule: ruleOf(p, c.wall), cost: cost}, false)
}

func (c *cell) status(p Policy, cost int64) result {
	c.t.Helper()
	return c.apply(op{kind: opStatus, rule: ruleOf(p, c.wall), cost: cost}, false)
}

// advance moves both clocks. A member does not run for half a century.
func (c *cell) advance(d time.Duration) {
	if c.now+int64(d) > int64(MaxPeriod) || c.now+int64(d) < 1 {
		return
	}
	c.now += int64(d)
	c.wall += int64(d)
}

func ruleOf(p Policy, wall int64) rule {
	r := rule{algorithm: p.Algorithm, align: p.Align, limit: p.Limit, burst: p.capacity(), period: int64(p.Period)}
	if p.Align != Unaligned {
		loc := p.Location
		if loc == nil {
			loc = time.UTC
		}
		r.calendar = newWindows(p.Align, loc, time.Unix(0, wall))
	}
	return r
}

// step is one line of a test: after a pause ask for cost, expect these.
type step struct {
	pause     time.Duration
	cost      int64
	allowed   bool
	remaining int64
	retry     time.Duration
	whole     time.Duration
	next      time.Duration
}

func runSteps(t *testing.T, p Policy, steps []step) {
	t.Helper()
	if err := p.Validate(); err != nil {
		t.Fatal(err)
	}
	c := newCell(t)
	for i, s := range steps {
		c.advance(s.pause)
		r := c.take(p, s.cost)
		got := step{s.pause, s.cost, r.allowed(), r.remaining, time.Duration(r.retry), time.Duration(r.whole), time.Duration(r.next)}
		if got != s {
			t.Fatalf("step %d:\n got %+v\nwant %+v", i, got, s)
		}
	}
}

package ratelimit

import (
	"bytes"
	"math"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	"github.com/peerlimit/peerlimit/cluster"
)

func randomPolicy(rnd *rand.Rand) Policy {
	p := Policy{Name: "p", Limit: randomLimit(rnd), Period: randomPeriod(rnd), Algorithm: Algorithm(rnd.IntN(4))}
	switch p.Algorithm {
	case TokenBucket:
		if p.Burst = rnd.Int64N(2 * p.Limit); p.Validate() != nil {
			p.Burst = 0
		}
	case FixedWindow:
		if rnd.IntN(2) == 0 {
			p.Align, p.Period = Second+Alignment(rnd.IntN(int(Month))), 0
		}
	case Concurrency:
		p.Limit = 1 + p.Limit%MaxPlaces
	}
	return p
}

func randomOp(rnd *rand.Rand, wall int64) op {
	p := randomPolicy(rnd)
	o := op{kind: 1 + opKind(rnd.IntN(int(opKindEnd)-1)), flags: opFlags(rnd.IntN(int(flagsEnd))), rule: ruleOf(p, wall)}
	o.rule.version = rnd.Uint32()
	o.cost = rnd.Int64N(p.capacity() + 1)
	if o.kind >= opReserve {
		o.id = 1 + rnd.Uint64N(5)
	}
	if o.kind >= opLease {
		o.seq = rnd.Uint64N(3)
	}
	return o
}

// Operations and results of every kind, and the states they lead to, arrive as
// they were sent; so the holder does what the caller would have done itself.
func TestWireRoundTrips(t *testing.T) {
	sequences(t, func(t *testing.T, rnd *rand.Rand) {
		c := newCell(t)
		for range 8 {
			c.advance(time.Duration(rnd.Int64N(int64(time.Minute))))
			o := randomOp(rnd, c.wall)
			b := machine{}.AppendOp(nil, o)
			got, err := machine{}.ParseOp(b)
			if err != nil || !reflect.DeepEqual(got, o) {
				t.Fatalf("op %+v travels as %x and arrives as %+v, %v", o, b, got, err)
			}
			r := c.apply(got, false) // and the state, in apply
			b = machine{}.AppendResult(nil, r)
			if got, err := (machine{}).ParseResult(b); err != nil || !reflect.DeepEqual(got, r) {
				t.Fatalf("result %+v travels as %x and arrives as %+v, %v", r, b, got, err)
			}
		}
	})
}

// Instants travel as durations: a state moves to a member whose clock reads
// something else altogether.
func TestStateMovesBetweenClocks(t *testing.T) {
	for _, p := range []Policy{PerMinute("p", 10), fixed(10, time.Minute), sliding(10, time.Minute), Calendar("p", 10, Day, nil)} {
		a := newCell(t)
		a.take(p, 6)
		a.placeOp(opReserve, p, 1, 2)
		a.advance(500 * time.Millisecond)
		b := newCell(t)
		b.now, b.wall = 77*int64(time.Hour), a.wall
		var err error
		if b.state, err = (machine{}).ParseState((machine{}).AppendState(nil, a.state, a.now), b.now); err != nil {
			t.Fatal(err)
		}
		b.expires = math.MaxInt64
		if x, y := a.status(p, 1), b.status(p, 1); x != y {
			t.Errorf("%s%s: %+v here, %+v there", p.Algorithm, p.Align, x, y)
		}
	}
}

func TestWireRefusesWhatNoPolicyHas(t *testing.T) {
	wall := time.Date(2026, 7, 1, 0, 0, 0, 0, time.UTC).UnixNano()
	good := op{kind: opTake, rule: ruleOf(PerMinute("p", 10), wall), cost: 1}
	for name, change := range map[string]func(*op){
		"kind":       func(o *op) { o.kind = opKindEnd },
		"no kind":    func(o *op) { o.kind = 0 },
		"flags":      func(o *op) { o.flags = flagsEnd },
		"algorithm":  func(o *op) { o.rule.algorithm = Concurrency + 1 },
		"limit 0":    func(o *op) { o.rule.limit = 0 },
		"limit":      func(o *op) { o.rule.limit = MaxLimit + 1 },
		"burst":      func(o *op) { o.rule.burst = MaxLimit },
		"window":     func(o *op) { o.rule.algorithm = FixedWindow; o.rule.burst = 11 },
		"period 0":   func(o *op) { o.rule.period = 0 },
		"period":     func(o *op) { o.rule.period = int64(MaxPeriod) + 1 },
		"cost":       func(o *op) { o.cost = -1 },
		"aligned":    func(o *op) { o.rule.align, o.rule.period, o.rule.calendar = Day, 0, &windows{unit: 1} },
		"no windows": func(o *op) { o.rule = ruleOf(Calendar("p", 1, Day, nil), wall); o.rule.calendar = &windows{} },
		"places":     func(o *op) { o.rule = ruleOf(InFlight("p", MaxPlaces+1, time.Second), wall) },
		"align":      func(o *op) { o.rule = ruleOf(Calendar("p", 1, Day, nil), wall); o.rule.align = Month + 1 },
	} {
		o := good
		change(&o)
		if got, err := (machine{}).ParseOp(machine{}.AppendOp(nil, o)); err == nil {
			t.Errorf("%s: accepted as %+v", name, got)
		}
	}
	b := machine{}.AppendOp(nil, good)
	for i := range b {
		if _, err := (machine{}).ParseOp(b[:i]); err == nil {
			t.Errorf("accepted %d of %d bytes", i, len(b))
		}
	}
	if _, err := (machine{}).ParseOp(append(b, 0)); err == nil {
		t.Error("accepted a trailing byte")
	}
}

func FuzzParseOp(f *testing.F) {
	rnd := rand.New(rand.NewPCG(1, 1))
	for range 50 {
		f.Add(machine{}.AppendOp(nil, randomOp(rnd, 1<<60)))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		o, err := machine{}.ParseOp(b)
		if err != nil {
			return
		}
		again, err := machine{}.ParseOp(machine{}.AppendOp(nil, o))
		if err != nil || !reflect.DeepEqual(again, o) {
			t.Fatalf("%+v, then %+v, %v", o, again, err)
		}
		// Whatever parses can be run: no panic, no negative answer.
		c := newCell(t)
		c.apply(o, false)
		c.advance(time.Hour)
		c.apply(o, true)
	})
}

func FuzzParseState(f *testing.F) {
	rnd := rand.New(rand.NewPCG(2, 2))
	for range 50 {
		c := newCell(f)
		for range 3 {
			c.apply(randomOp(rnd, c.wall), false)
		}
		f.Add(machine{}.AppendState(nil, c.state, c.now), uint8(rnd.IntN(4)))
	}
	f.Fuzz(func(t *testing.T, b []byte, seed uint8) {
		now := int64(time.Hour)
		s, err := machine{}.ParseState(b, now)
		if err != nil {
			return
		}
		if again, err := (machine{}).ParseState((machine{}).AppendState(nil, s, now), now); err != nil || !reflect.DeepEqual(again, s) {
			t.Fatalf("%+v, then %+v, %v", s, again, err)
		}
		rnd := rand.New(rand.NewPCG(uint64(seed), 3))
		for range 5 {
			c := newCell(t)
			c.machine.clustered = true
			_, r, _ := c.machine.Apply(cluster.Call{Now: now, WallOffset: 1 << 60}, s, randomOp(rnd, 1<<60))
			if r.remaining < 0 || r.retry < 0 || r.whole < 0 || r.next < 0 {
				t.Fatalf("%+v leads to %+v", s, r)
			}
		}
		machine{}.Merge(s, s)
	})
}

func FuzzParseResult(f *testing.F) {
	f.Add(machine{}.AppendResult(nil, result{flags: resultAllowed, granted: 1, remaining: 2, retry: 3, whole: 4, next: 5}))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := machine{}.ParseResult(b)
		if err != nil {
			return
		}
		again := machine{}.AppendResult(nil, r)
		if got, err := (machine{}).ParseResult(again); err != nil || !reflect.DeepEqual(got, r) || len(again) > len(b) && !bytes.Equal(again, b) {
			t.Fatalf("%x: %+v, then %+v", b, r, got)
		}
	})
}

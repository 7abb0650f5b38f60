package ratelimit

import (
	"math/rand/v2"
	"time"
)

// simBorrower is a member that does not hold the key. What it hands out is a
// real slice; when it asks, and for how much, is left to chance.
type simBorrower struct {
	w           *leaseWorld
	id          uint64
	offset, ppm int64
	alive       bool
	life        int   // how often it has crashed
	stalled     int64 // true time until which it does nothing
	policy      Policy
	slice       *slice
	about       simEntry // what the slice was spent as
	asking      bool
	recalls     int
	seq         uint64
}

func (b *simBorrower) clock() int64 {
	return b.w.now + b.offset + b.w.now/1_000_000*b.ppm
}

// lives tells one life of a member from another.
func (b *simBorrower) lives() int {
	if b == nil {
		return 0
	}
	return b.life
}

// whenAwake runs f now, or when a stall is over, unless the member crashes
// before.
func (b *simBorrower) whenAwake(f func()) {
	life := b.life
	switch {
	case !b.alive:
	case b.w.now < b.stalled:
		b.w.after(b.stalled-b.w.now, func() {
			if b.life == life {
				b.whenAwake(f)
			}
		})
	default:
		f()
	}
}

// call is one decision for cost permits.
func (b *simBorrower) call(cost int64) {
	w := b.w
	if s := b.slice; s != nil && s.terms.of(&b.policy) {
		if _, low, ok := s.take(b.clock(), cost); ok {
			e := b.about
			e.at, e.cost = w.now, cost
			w.note(e)
			if low || w.rnd.IntN(50) == 0 {
				b.ask()
			}
			return
		}
	}
	if w.rnd.IntN(4) == 0 {
		b.ask()
	}
	b.take(cost, 0)
}

// take asks the holder, and once more when what was lent has been recalled.
func (b *simBorrower) take(cost int64, tries int) {
	w := b.w
	o := op{kind: opTake, cost: cost, rule: ruleOf(b.policy, simEpoch+w.now)}
	o.rule.version = b.policy.version
	if w.faults.synced {
		o.flags = flagWait
	}
	var e *simEntry
	w.doNoted(b, o, func(at simEntry) { e = &at }, func(res result, ok bool) {
		switch {
		case ok && res.allowed():
			w.note(*e)
		case !ok && e != nil:
			w.lost += cost // it ran, and nobody was told
		}
		if ok && res.out != nil && tries < 3 {
			for _, id := range res.out.borrowers {
				w.send(func() { w.members[id-1].whenAwake(w.members[id-1].recall) })
			}
			w.after(30*simMs, func() { b.whenAwake(func() { b.take(cost, tries+1) }) })
		}
	})
}

// doNoted is do, and tells when and under what the operation ran.
func (w *leaseWorld) doNoted(b *simBorrower, o op, ran func(simEntry), done func(result, bool)) {
	id := w.rnd.Uint64()
	over := false
	finish := func(res result, ok bool) {
		if !over {
			over = true
			done(res, ok)
		}
	}
	runs := 0
	try := func(again bool) {
		if over {
			return
		}
		w.send(func() {
			at := w.now
			executed := w.holder.answered[id].flags == 0 || !again
			w.execute(o, id, again, func(res result) {
				w.send(func() { finish(res, true) })
			})
			if executed && w.holder.alive {
				if runs++; runs > 1 {
					w.lost += o.cost // it may have run twice
				}
				ran(simEntry{at: at, cost: o.cost, limit: o.rule.limit, gen: w.resets})
			}
		})
	}
	try(false)
	w.after(100*simMs, func() { try(true) })
	w.after(250*simMs, func() { finish(result{}, false) })
}

// ask asks for a slice.
func (b *simBorrower) ask() {
	w := b.w
	if b.asking || !b.alive {
		return
	}
	b.asking = true
	b.seq++
	o := op{kind: opLease, id: b.id, seq: b.seq, cost: 1 + w.rnd.Int64N(b.policy.capacity()), rule: ruleOf(b.policy, simEpoch+w.now)}
	o.rule.version = b.policy.version
	asked, recalls := b.clock(), b.recalls
	t := &terms{rule: o.rule}
	about := simEntry{limit: o.rule.limit, leased: true}
	if w.broken.handOutFirst {
		n := o.rule.burst / leasePart
		about.gen = w.resets
		early := &slice{terms: t, seq: b.seq, permits: n, end: asked + leaseFor}
		early.left.Store(n)
		b.replace(early, about)
	}
	w.do(b, o, func(res result, ok bool) {
		b.whenAwake(func() {
			b.asking = false
			if !ok {
				w.lost += o.rule.burst / leasePart // it may have been granted
			}
			if !ok || !res.allowed() {
				return
			}
			from := asked
			if w.broken.fromAnswer {
				from = b.clock()
			}
			s := &slice{terms: t, seq: o.seq, permits: res.granted, low: res.granted / 2, end: from + min(res.lasts, leaseFor) - leaseMargin}
			if w.broken.outlives {
				s.end = from + int64(time.Minute)
			}
			s.left.Store(res.granted)
			about.gen = w.resets
			if w.broken.handOutFirst {
				if b.slice != nil && b.slice.seq == o.seq {
					s.left.Store(res.granted - min(b.slice.handedOut(), res.granted))
					b.slice = s
				}
				return
			}
			if b.recalls != recalls || b.clock() >= s.end {
				b.giveBack(s)
				return
			}
			b.replace(s, about)
			if !w.broken.outlives {
				w.after(w.rnd.Int64N(90*simMs), func() {
					b.whenAwake(func() {
						if b.slice == s {
							b.replace(nil, simEntry{})
						}
					})
				})
			}
		})
	})
}

// replace makes s the slice in use and gives the one before back.
func (b *simBorrower) replace(s *slice, about simEntry) {
	before := b.slice
	b.slice, b.about = s, about
	b.giveBack(before)
}

func (b *simBorrower) recall() {
	b.recalls++
	if !b.w.broken.outlives {
		b.replace(nil, simEntry{})
	}
}

func (b *simBorrower) giveBack(s *slice) {
	if s == nil {
		return
	}
	unused := s.close()
	o := op{kind: opReturn, id: b.id, seq: s.seq, cost: unused, rule: s.terms.rule}
	b.w.do(b, o, func(res result, ok bool) {
		if !ok || !res.allowed() {
			b.w.lost += unused
		}
	})
}

// crash ends a borrower with what it was lent; another comes in its place.
func (b *simBorrower) crash() {
	if b.slice != nil {
		b.w.lost += b.slice.permits
	}
	if b.asking {
		b.w.lost += b.policy.capacity() / leasePart
	}
	b.alive = false
	b.life++
	b.w.after(b.w.rnd.Int64N(300*simMs), func() {
		b.slice, b.asking, b.alive, b.stalled = nil, false, true, 0
		b.offset, b.ppm = b.w.newClock()
		b.policy = b.w.policy
	})
}

// simPolicies are what a run may be about.
func simPolicy(rnd *rand.Rand) Policy {
	limit := 800 + rnd.Int64N(4000)
	period := 700*time.Millisecond + time.Duration(rnd.Int64N(int64(3*time.Second)))
	switch rnd.IntN(7) {
	case 0:
		return Policy{Name: "p", Limit: limit, Period: time.Hour, Algorithm: FixedWindow}
	case 1:
		return Policy{Name: "p", Limit: limit, Period: period, Algorithm: FixedWindow}
	case 2:
		return Policy{Name: "p", Limit: limit, Period: period, Algorithm: SlidingWindow}
	case 3:
		return Policy{Name: "p", Limit: limit, Algorithm: FixedWindow, Align: Second}
	case 4:
		return Policy{Name: "p", Limit: limit, Period: time.Hour}
	case 5:
		return Policy{Name: "p", Limit: 8 * limit, Burst: limit, Period: period}
	}
	return Policy{Name: "p", Limit: limit, Period: period}
}

// runLeases runs one world to its end and returns it.
func runLeases(seed uint64, p Policy, faults leaseFaults, broken leaseBroken) *leaseWorld {
	rnd := rand.New(rand.NewPCG(seed, 0x1ea5e))
	if p.Name == "" {
		p = simPolicy(rnd)
	}
	w := &leaseWorld{rnd: rnd, policy: p, faults: faults, broken: broken}
	w.holder = w.newHolder()
	w.copyTo(w.holder)
	for i := range 3 {
		b := &simBorrower{w: w, id: uint64(i + 1), alive: true, policy: p}
		b.offset, b.ppm = w.newClock()
		w.members = append(w.members, b)
		w.after(int64(i)*simMs, func() { w.callers(b) })
	}
	w.after(300*simMs, w.mischief)
	const end = 2500 * simMs
	w.runUntil(end)
	w.judge()
	return w
}

const simBusy = 2000 * simMs // after it nobody asks any more

func (w *leaseWorld) callers(b *simBorrower) {
	if w.now > simBusy {
		return
	}
	cost := 1 + w.rnd.Int64N(3)*w.rnd.Int64N(2)
	switch w.rnd.IntN(2000) {
	case 0:
		cost = b.policy.capacity()
	case 1, 2, 3, 4:
		cost = 1 + w.rnd.Int64N(b.policy.capacity()/8)
	}
	b.whenAwake(func() { b.call(min(cost, b.policy.capacity())) })
	w.after(simMs/4+w.rnd.Int64N(2*simMs), func() { w.callers(b) })
}

// mischief does one bad thing now and then.
func (w *leaseWorld) mischief() {
	if w.now > simBusy {
		return
	}
	b := w.members[w.rnd.IntN(len(w.members))]
	switch w.rnd.IntN(6) {
	case 0:
		if w.faults.kills && w.takes < 2 {
			w.kill()
		}
	case 1:
		if w.faults.crashes && b.alive {
			b.crash()
		}
	case 2:
		if w.faults.stalls && b.alive {
			b.stalled = w.now + w.rnd.Int64N(600*simMs)
		}
	case 3:
		if w.faults.resets {
			w.reset(0)
		}
	case 4:
		if w.faults.changes {
			w.change()
		}
	}
	w.after(w.rnd.Int64N(200*simMs), w.mischief)
}

// reset resets the key, and again when what is out has been recalled.
func (w *leaseWorld) reset(tries int) {
	o := op{kind: opReset, flags: flagWait}
	w.do(nil, o, func(res result, ok bool) {
		if !ok || res.out == nil || tries > 3 {
			return
		}
		for _, id := range res.out.borrowers {
			w.send(func() { w.members[id-1].whenAwake(w.members[id-1].recall) })
		}
		w.after(w.rnd.Int64N(max(res.out.home, 1)), func() { w.reset(tries + 1) })
	})
}

// change changes the policy; members learn of it one after the other.
func (w *leaseWorld) change() {
	p := w.policy
	p.version++
	p.Limit = 800 + w.rnd.Int64N(4000)
	if p.Period != 0 && p.Period != time.Hour {
		p.Period = 700*time.Millisecond + time.Duration(w.rnd.Int64N(int64(2*time.Second)))
	}
	w.policy = p
	for _, b := range w.members {
		w.after(w.rnd.Int64N(30*simMs), func() { b.whenAwake(func() { b.policy = p }) })
	}
}

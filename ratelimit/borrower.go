package ratelimit

import (
	"bytes"
	"context"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/cespare/xxhash/v2"
)

// borrower decides on this member, about keys that another one holds, by what
// that one has lent or said. One goroutine for each hot key asks for the next
// slice before the present one is used up.
type borrower struct {
	table     *table
	boot      uint64 // names this member to holders
	base      time.Time
	wall      func() time.Time
	calendars *calendars

	demand  sketch
	loans   loans
	denials denials
	seq     atomic.Uint64
	counts  leaseCounts

	ctx     context.Context
	stop    context.CancelFunc
	running running
}

// leaseCounts are the figures of [LeaseStats].
type leaseCounts struct {
	granted, returned, expired, handedOut, recalled atomic.Uint64
	denied                                          [16]struct {
		n atomic.Uint64
		_ [56]byte // a cache line each
	}
}

const (
	// leaseMargin is how much earlier a borrower stops than it had to, ns: two
	// clocks may not run at quite the same speed.
	leaseMargin = int64(time.Millisecond)
	// leaseAgain is how long it waits after a holder has lent nothing.
	leaseAgain = 50 * time.Millisecond
)

func newBorrower(t *table, boot uint64, wall func() time.Time, c *calendars) *borrower {
	b := &borrower{table: t, boot: boot, base: time.Now(), wall: wall, calendars: c}
	// A limiter of this process that was closed just now may have slices out.
	b.seq.Store(rand.Uint64())
	b.ctx, b.stop = context.WithCancel(context.Background())
	return b
}

// now is the borrower's clock, ns.
func (b *borrower) now() int64 { return int64(time.Since(b.base)) }

// close gives all slices back and waits until that is done.
func (b *borrower) close() {
	b.loans.close()
	b.stop()
	b.running.close()
}

// lends reports whether a decision may be made by a borrower at all.
func lends(p *Policy, kind opKind, cost int64) bool {
	return kind == opTake && cost > 0 && !p.NoLeases && !p.Synchronous
}

// ask is what a borrower needs to know of a decision that went to the holder.
type ask struct {
	hash uint64
	at   int64 // borrower's clock, from before it went; 0: the key is held here
	loan *loan
}

// decide fills d in if the decision can be made here and now. Else a says what
// to tell learn once the holder has answered.
func (b *borrower) decide(key []byte, p *Policy, cost int64, d *Decision, a *ask) bool {
	a.hash = xxhash.Sum64(key)
	if b.table.Here(a.hash) {
		return false
	}
	a.at = b.now()
	a.loan = b.loans.find(a.hash, key)
	if a.loan != nil {
		if s := a.loan.slice.Load(); s != nil && s.terms.of(p) {
			if left, low, ok := s.take(a.at, cost); ok {
				if low {
					a.loan.nudge()
				}
				s.figures.fill(d, p, a.at)
				d.Allowed, d.RetryAfter = true, 0
				d.Remaining += left
				return true
			}
		}
	}
	v := b.denials.find(a.hash, key, cost, a.at)
	if v == nil || !v.terms.of(p) {
		return false
	}
	v.figures.fill(d, p, a.at)
	d.Allowed = false
	d.RetryAfter = time.Duration(v.figures.retry - (a.at - v.figures.asked))
	d.shadow(p)
	b.counts.denied[a.hash>>40%16].n.Add(1)
	return true
}

func (ln *loan) nudge() {
	select {
	case ln.wake <- struct{}{}:
	default:
	}
}

// learn takes a holder's answer in.
func (b *borrower) learn(key []byte, p *Policy, o *op, res *result, a *ask) {
	if a.at == 0 {
		return
	}
	if !res.allowed() {
		if res.flags&resultSoon == 0 && res.retry >= denialShortest {
			b.denials.put(&denial{
				hash: a.hash, key: string(key), cost: o.cost, until: a.at + min(res.retry, denialFor),
				terms: terms{o.rule, p.Location}, figures: figuresOf(res, a.at),
			}, a.at)
		}
		return
	}
	switch {
	case a.loan != nil:
		if a.loan.terms.of(p) { // else it ends when nobody uses it any more
			a.loan.missed.Add(o.cost)
		}
	case p.capacity() < leasePart*leaseLeast: // nothing would be lent
	case b.demand.count(a.hash, a.at) >= hotAfter:
		b.open(a.hash, key, &terms{o.rule, p.Location})
	}
}

// open begins a loan, if there is room.
func (b *borrower) open(hash uint64, key []byte, t *terms) {
	if !b.loans.room(hash) {
		return
	}
	ln := &loan{hash: hash, key: bytes.Clone(key), terms: *t, wake: make(chan struct{}, 1)}
	if !b.loans.add(ln) {
		return
	}
	if !b.running.begin() {
		b.loans.remove(ln)
		return
	}
	go func() {
		defer b.running.end()
		b.serve(ln)
	}()
}

// serve keeps a loan supplied until its key is no longer hot.
func (b *borrower) serve(ln *loan) {
	defer func() {
		b.loans.remove(ln)
		b.giveBack(ln, ln.withdraw(true))
	}()
	timer := time.NewTimer(0)
	defer timer.Stop()
	want := int64(firstWant)
	for {
		s := b.supply(ln, want)
		since, pause := b.now(), int64(leaseAgain)
		if s != nil {
			// Three quarters of its time: so it is home before its time is over.
			pause = max((s.end-s.figures.asked)*3/4-(since-s.figures.asked), 0)
		}
		ln.missed.Store(0)
		timer.Reset(time.Duration(pause))
		if !b.await(ln, s, timer) {
			return
		}
		used, last := ln.missed.Load(), int64(0)
		if s != nil {
			used, last = used+s.handedOut(), s.permits
		}
		elapsed := b.now() - since
		if cool(used, max(elapsed, leaseFor/2)) || b.table.Here(ln.hash) {
			return
		}
		want = wanted(used, elapsed, last)
	}
}

// await returns when the timer has run out or s has few permits left; false
// when the borrower closes.
func (b *borrower) await(ln *loan, s *slice, timer *time.Timer) bool {
	for {
		select {
		case <-b.ctx.Done():
			return false
		case <-timer.C:
			return true
		case <-ln.wake:
			// It may be about the slice before.
			if s != nil && ln.slice.Load() == s && s.left.Load() <= s.low {
				return true
			}
		}
	}
}

// supply asks for a slice, hands it out, and gives the one before back. It
// returns nil where nothing was lent.
func (b *borrower) supply(ln *loan, want int64) *slice {
	recalls := ln.recalled()
	s := b.borrow(ln, want)
	before, ok := ln.install(s, recalls)
	if !ok {
		b.giveBack(ln, s)
		return nil
	}
	b.giveBack(ln, before)
	return s
}

// borrow asks the holder for a slice.
func (b *borrower) borrow(ln *loan, want int64) *slice {
	asked := b.now()
	o := op{kind: opLease, rule: ln.terms.rule, cost: want, id: b.boot, seq: b.seq.Add(1)}
	if o.rule.calendar != nil {
		o.rule.calendar = b.calendars.get(o.rule.align, ln.terms.location, b.wall())
	}
	res, err := b.table.Do(context.Background(), ln.key, o)
	if err != nil || !res.allowed() {
		return nil
	}
	s := &slice{
		terms: &ln.terms, figures: figuresOf(&res, asked), seq: o.seq, permits: res.granted,
		low: res.granted / 2, end: asked + min(res.lasts, leaseFor) - leaseMargin,
	}
	s.left.Store(res.granted)
	b.counts.granted.Add(uint64(res.granted))
	return s
}

// giveBack ends a slice and tells the holder what was not used of it. What
// can't be told in time stays spent.
func (b *borrower) giveBack(ln *loan, s *slice) {
	if s == nil {
		return
	}
	unused := s.close()
	b.counts.handedOut.Add(uint64(s.permits - unused))
	o := op{kind: opReturn, rule: ln.terms.rule, cost: unused, id: b.boot, seq: s.seq}
	res, err := b.table.Do(context.Background(), ln.key, o)
	if err != nil || !res.allowed() {
		b.counts.expired.Add(uint64(unused))
		return
	}
	b.counts.returned.Add(uint64(unused))
}

// recall gives back what is lent of a key, before it returns.
func (b *borrower) recall(key []byte) {
	if ln := b.loans.find(xxhash.Sum64(key), key); ln != nil {
		b.counts.recalled.Add(1)
		b.giveBack(ln, ln.withdraw(false))
	}
}

// forget drops what is remembered of a key.
func (b *borrower) forget(key []byte) { b.denials.forget(xxhash.Sum64(key)) }

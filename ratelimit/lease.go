package ratelimit

import (
	"slices"
	"time"
)

// Leases of permits, at the holder of a key. A member that sees a key often is
// lent a slice of its permits and hands them out by itself: in the manner of
// leases (Gray and Cheriton, 1989), a promise that ends by itself.
//
//	a slice is spent, and the backup knows it, before the borrower is told
//	it ends 100 ms after the grant, or with its window, whichever is first;
//	    the borrower counts from before it asked, so it stops earlier
//	what is not used comes back, once, also for a while after that; of what
//	    does not come back all counts as used
//
// In a window a slice is charged when it is granted and what comes back is
// given back, all within that window. A bucket's slice is set aside, and what was
// used of it is charged when it comes back or ends: charged before it is used
// it would have begun to come back by then, and burst permits could be used at
// once right after a slice.

// Bounds of a slice.
const (
	// leaseFor is how long a slice can be used at most, ns.
	leaseFor = int64(100 * time.Millisecond)
	// leaseKept is how long a slice that has ended may still come back, ns: a
	// borrower that got no processor for a while knows what it has not used.
	leaseKept = int64(900 * time.Millisecond)
	// leaseShortest is what must be left of a window for a slice to be worth
	// its messages, ns.
	leaseShortest = int64(10 * time.Millisecond)
	// leaseLeast is the fewest permits that are worth their messages.
	leaseLeast = 8
	// leaseShare: a slice is at most that part of what is left, so that slices
	// shrink as the limit comes near and every member gets one.
	leaseShare = 4
	// leasePart: a slice is at most that part of what can be had at once, so
	// that a borrower which is lost costs little; see leasesEach.
	leasePart = 100
	// leasesEach bounds the slices of a borrower for one key: the one in use
	// and the one before, which is on its way back.
	leasesEach = 2
	// leasesOut bounds the slices of a key, which are copied with each grant.
	leasesOut = 64
)

// How long after a recall nothing is lent, ns.
const (
	// quietAfterDenial also keeps recalls of a key apart.
	quietAfterDenial = int64(50 * time.Millisecond)
	// quietBeforeChange lasts until what waits for all slices has been tried
	// again.
	quietBeforeChange = int64(250 * time.Millisecond)
)

// lent is what is out of a key's permits. It is never changed once a state
// points to it.
type lent struct {
	rule  rule  // under which all of it was granted
	quiet int64 // holder's monotonic clock, ns: nothing is lent before
	out   []lease
}

// lease is one slice, named by its borrower and the borrower's count of slices.
type lease struct {
	borrower uint64 // boot ID
	seq      uint64
	permits  int64
	// On the holder's monotonic clock, ns: it can be used until, and comes back
	// before kept.
	until, kept int64
}

func (x *extra) lentOrNil() *lent {
	if x == nil {
		return nil
	}
	return x.lent
}

// withLent returns x with another lent.
func (x *extra) withLent(l *lent) *extra {
	var y extra
	if x != nil {
		y = *x
	}
	y.lent = l
	if y.reserved == nil && y.places == nil && l == nil {
		return nil
	}
	return &y
}

func (l *lent) find(borrower, seq uint64) int {
	if l == nil {
		return -1
	}
	return slices.IndexFunc(l.out, func(v lease) bool { return v.borrower == borrower && v.seq == seq })
}

// last is when the last slice ends, and when nothing can come back any more.
func (l *lent) last() (until, kept int64) {
	if l != nil {
		for i := range l.out {
			until, kept = max(until, l.out[i].until), max(kept, l.out[i].kept)
		}
	}
	return until, kept
}

// usable reports whether a borrower may hand out permits at now.
func (l *lent) usable(now int64) bool {
	until, _ := l.last()
	return now < until
}

// permits is how many are out.
func (l *lent) permits() (n int64) {
	for i := range l.out {
		n += l.out[i].permits
	}
	return n
}

// same reports whether two rules are one, whoever brought them.
func (r *rule) same(o *rule) bool {
	if r.algorithm != o.algorithm || r.align != o.align || r.version != o.version ||
		r.limit != o.limit || r.burst != o.burst || r.period != o.period {
		return false
	}
	return r.calendar == o.calendar || r.calendar != nil && o.calendar != nil && *r.calendar == *o.calendar
}

// lapse ends the slices that can't come back any more: all, when their window is
// over. Their own time does not say so where another member has taken over, for
// with each copy it gains the time that the copy was under way, and a calendar's
// window does not.
func lapse(s *state, m moment) {
	over := windowOver(s, m)
	lapseWhere(s, m, func(v lease) bool { return over || v.kept <= m.now })
}

// windowOver reports whether the window that s was last charged in is over.
func windowOver(s *state, m moment) bool {
	switch s.kind {
	case kindFixed, kindSliding:
		return m.now-s.a >= s.d
	case kindCalendar:
		return m.wall >= s.c
	}
	return false
}

func lapseWhere(s *state, m moment, over func(lease) bool) {
	old := s.extra.lent
	if !slices.ContainsFunc(old.out, over) && (len(old.out) > 0 || m.now < old.quiet) {
		return
	}
	var kept []lease
	for _, v := range old.out {
		switch {
		case !over(v):
			kept = append(kept, v)
		case s.kind == kindBucket:
			bucketSpend(s, moment{now: v.until}, v.permits)
		}
	}
	setOut(s, m, old, kept)
}

// setOut replaces what is out. Where that is nothing, nothing is kept of it but
// for how long to be quiet.
func setOut(s *state, m moment, old *lent, out []lease) {
	if len(out) == 0 {
		if m.now >= old.quiet {
			s.extra = s.extra.withLent(nil)
			return
		}
		out = nil
	}
	s.extra = s.extra.withLent(&lent{old.rule, old.quiet, out})
}

// bucketSpend charges a bucket by the rule that it was last charged with.
func bucketSpend(s *state, m moment, n int64) {
	if s.c > 0 {
		bucketCharge(s, &rule{limit: s.c, period: s.d}, m, n)
	}
}

// leaseGrant lends at most o.cost of avail permits to the borrower o.id, and
// writes how many into o.cost. Sent again it answers the same.
func leaseGrant(s *state, r *rule, m moment, o *op, avail int64) (lasts int64, granted bool) {
	if s.kind == kindInFlight {
		return 0, false
	}
	old := s.extra.lentOrNil()
	if i := old.find(o.id, o.seq); i >= 0 {
		o.cost = old.out[i].permits
		return old.out[i].until - m.now, true
	}
	var out []lease
	quiet := int64(0)
	if old != nil {
		each := 0
		for i := range old.out {
			if old.out[i].borrower == o.id {
				each++
			}
		}
		if m.now < old.quiet || each >= leasesEach || len(old.out) >= leasesOut {
			return 0, false
		}
		out, quiet = old.out, old.quiet
	}
	n := min(o.cost, avail/leaseShare, r.burst/leasePart)
	if n < leaseLeast {
		return 0, false
	}
	after := *s
	if s.kind != kindBucket {
		charge(&after, r, m, n)
	}
	left := windowLeft(&after, m)
	lasts = min(leaseFor, left)
	kept := min(leaseFor+leaseKept, left)
	if lasts < leaseShortest {
		return 0, false
	}
	*s = after
	o.cost = n
	next := make([]lease, len(out), len(out)+1)
	copy(next, out)
	next = append(next, lease{o.id, o.seq, n, m.now + lasts, m.now + kept})
	s.extra = s.extra.withLent(&lent{*r, quiet, next})
	return lasts, true
}

// windowLeft returns how long the window lasts that permits charged now are
// charged to, ns.
func windowLeft(s *state, m moment) int64 {
	switch s.kind {
	case kindFixed, kindCalendar:
		return whole(s, m)
	case kindSliding:
		return slidingLeft(s, m)
	}
	return leaseFor + leaseKept
}

// leaseBack takes a slice back of which o.cost permits were not used. One that
// is not out, because it ended, came back before or was reset, changes nothing.
func leaseBack(s *state, r *rule, m moment, o *op) bool {
	old := s.extra.lentOrNil()
	i := old.find(o.id, o.seq)
	if i < 0 {
		return false
	}
	v := old.out[i]
	o.cost = min(o.cost, v.permits)
	if s.kind == kindBucket {
		bucketSpend(s, moment{now: min(m.now, v.until)}, v.permits-o.cost)
	} else {
		giveBack(s, r, m, o.cost)
	}
	setOut(s, m, old, slices.Delete(slices.Clone(old.out), i, i+1))
	return true
}

// wholeWithLent is whole as it will be if all that is out of a bucket is used.
func wholeWithLent(s *state, m moment) int64 {
	l := s.extra.lentOrNil()
	if l == nil || len(l.out) == 0 || s.kind != kindBucket {
		return whole(s, m)
	}
	after := *s
	for _, v := range l.out {
		bucketSpend(&after, moment{now: v.until}, v.permits)
	}
	return whole(&after, m)
}

// outstanding is what a result says of slices that are out.
type outstanding struct {
	home int64 // until the last of them has ended, ns
	// borrowers are to be asked for them by whoever gets the result; none where
	// somebody was told to just before.
	borrowers []uint64
}

// recall returns what is out, and orders it back unless that was done just
// now. ordered says that s has changed.
func recall(s *state, m moment, quiet int64) (out *outstanding, ordered bool) {
	l := s.extra.lentOrNil()
	if !l.usable(m.now) {
		return nil, false
	}
	until, _ := l.last()
	out = &outstanding{home: until - m.now}
	if m.now < l.quiet {
		return out, false
	}
	for i := range l.out {
		if b := l.out[i].borrower; l.out[i].until > m.now && !slices.Contains(out.borrowers, b) {
			out.borrowers = append(out.borrowers, b)
		}
	}
	s.extra = s.extra.withLent(&lent{l.rule, m.now + quiet, l.out})
	return out, true
}

// mergeLent joins what two members that served apart have lent. Of a window's
// slices only those that both know of may give back: the others may be missing
// from the count that was kept.
func mergeLent(x, y *lent, k kind) *lent {
	if x == nil {
		x, y = y, nil
	}
	if x == nil {
		return nil
	}
	merged := &lent{rule: x.rule, quiet: x.quiet}
	if y != nil {
		merged.quiet = max(x.quiet, y.quiet)
	}
	add := func(v lease, other *lent) {
		if merged.find(v.borrower, v.seq) >= 0 || len(merged.out) >= 2*leasesOut {
			return
		}
		if i := other.find(v.borrower, v.seq); i >= 0 {
			v.until, v.kept = max(v.until, other.out[i].until), max(v.kept, other.out[i].kept)
			v.permits = min(v.permits, other.out[i].permits)
		} else if k != kindBucket {
			v.permits = 0
		}
		merged.out = append(merged.out, v)
	}
	for _, v := range x.out {
		add(v, y)
	}
	if y != nil {
		for _, v := range y.out {
			add(v, x)
		}
	}
	return merged
}

package ratelimit

// state is what the table keeps of one (policy, key): 48 bytes. Its zero value
// is a key of which nothing is used. Instants are on the holder's monotonic
// clock in nanoseconds unless said otherwise.
//
// What the four words mean belongs to the algorithm named by kind and is said
// in its file.
type state struct {
	a, b, c, d int64

	// version of the stored policy that judged last, 0 for a caller's own.
	version uint32
	// reset counts resets of the key. Of two states that were served apart
	// while the network was split the one with the later reset counts.
	reset uint16
	kind  kind

	extra *extra // nil unless something is reserved, in flight or lent
}

// kind names the algorithm that the words of a state belong to.
type kind uint8

const (
	kindNone kind = iota // nothing used
	kindBucket
	kindSliding
	kindFixed
	kindCalendar
	kindInFlight
	kindGone // was reset; remembered so that an older state can't come back
)

// extra is the rare part of a state. It is never changed once a state points to
// it: states are values, and copies of them are read elsewhere.
type extra struct {
	reserved []reservation
	places   []place
	lent     *lent
}

func kindOf(r *rule) kind {
	switch r.algorithm {
	case SlidingWindow:
		return kindSliding
	case FixedWindow:
		if r.align != Unaligned {
			return kindCalendar
		}
		return kindFixed
	case Concurrency:
		return kindInFlight
	}
	return kindBucket
}

// rule is the numeric part of a policy, as it travels with an operation.
type rule struct {
	algorithm Algorithm
	align     Alignment
	version   uint32
	limit     int64 // permits
	burst     int64 // permits; limit where the algorithm has none
	period    int64 // ns; 0 where align is set
	calendar  *windows
}

// moment is when an operation runs, by the holder's clocks.
type moment struct {
	now  int64 // monotonic, ns
	wall int64 // ns since 1970
}

// settle brings s up to now and to the caller's rule. What was used is kept
// when limit, burst or period changed; when the algorithm changed it is carried
// over, rounded up to whole permits.
func settle(s *state, r *rule, m moment) {
	want := kindOf(r)
	if s.kind != want {
		if s.kind == kindNone || s.kind == kindGone {
			s.a, s.b, s.c, s.d = 0, 0, 0, 0
			s.kind = want
		} else {
			convert(s, r, m, want)
			return
		}
	}
	switch want {
	case kindBucket:
		bucketSettle(s, r, m)
	case kindSliding:
		slidingSettle(s, r, m)
	case kindFixed:
		fixedSettle(s, r, m)
	case kindCalendar:
		calendarSettle(s, r, m)
	case kindInFlight:
		placesSettle(s, m)
	}
}

// convert carries what was used over to another algorithm.
func convert(s *state, r *rule, m moment, want kind) {
	used := usedOf(s, m)
	s.a, s.b, s.c, s.d = 0, 0, 0, 0
	s.kind = want
	if s.extra != nil && want != kindInFlight {
		s.extra = s.extra.with(s.extra.reserved, nil)
	}
	settle(s, r, m)
	if used > 0 && want != kindInFlight {
		charge(s, r, m, used)
	}
}

// usedOf returns the permits in use by s under the rule that it was last
// settled with, rounded up.
func usedOf(s *state, m moment) int64 {
	switch s.kind {
	case kindBucket:
		return bucketUsed(s, m)
	case kindSliding:
		return slidingUsed(s, m)
	case kindFixed:
		return fixedUsed(s, m)
	case kindCalendar:
		return calendarUsed(s, m)
	}
	return 0
}

// free returns how many permits could be had now; never negative.
func free(s *state, r *rule, m moment) int64 {
	switch s.kind {
	case kindBucket:
		return bucketFree(s, r, m)
	case kindSliding:
		return slidingFree(s, r, m)
	case kindFixed, kindCalendar:
		return max(r.limit-s.b, 0)
	case kindInFlight:
		return max(r.limit-s.b, 0)
	}
	return r.burst
}

// charge spends n permits, whether they are free or not.
func charge(s *state, r *rule, m moment, n int64) {
	switch s.kind {
	case kindBucket:
		bucketCharge(s, r, m, n)
	case kindSliding:
		slidingCharge(s, m, n)
	case kindFixed:
		fixedCharge(s, m, n)
	case kindCalendar:
		calendarCharge(s, n)
	}
}

// giveBack returns n spent permits, at most those in use.
func giveBack(s *state, r *rule, m moment, n int64) {
	switch s.kind {
	case kindBucket:
		bucketGiveBack(s, r, m, n)
	case kindSliding:
		slidingGiveBack(s, n)
	case kindFixed, kindCalendar:
		s.b = max(s.b-n, 0)
	}
}

// wait returns how long it takes, in ns, until n permits are free if nobody
// else spends any. n is at most the rule's burst.
func wait(s *state, r *rule, m moment, n int64) int64 {
	switch s.kind {
	case kindBucket:
		return bucketWait(s, r, m, n)
	case kindSliding:
		return slidingWait(s, r, m, n)
	case kindFixed, kindCalendar:
		if n <= r.limit-s.b {
			return 0
		}
		return whole(s, m)
	case kindInFlight:
		return placesWait(s, r, m, n)
	}
	return 0
}

// whole returns how long it takes, in ns, until nothing is used any more.
func whole(s *state, m moment) int64 {
	switch s.kind {
	case kindBucket:
		return bucketWhole(s, m)
	case kindSliding:
		return slidingWhole(s, m)
	case kindFixed:
		return fixedWhole(s, m)
	case kindCalendar:
		return calendarWhole(s, m)
	case kindInFlight:
		return placesWhole(s, m)
	}
	return 0
}

package ratelimit

// Sliding window: two counters, the current window's and the last one's, of
// which the share counts that a window ending now still overlaps (described as
// "sliding window counter" by Cloudflare, "How we built rate limiting capable
// of scaling to millions of domains", 2017).
//
//	used    = current + previous × (period − elapsed) / period
//	allowed when used + cost ≤ limit
//
// It errs by taking the previous window as evenly spread: traffic that came in
// a burst at its end is forgotten too early, at its start too late. Over any
// stretch of one period at most 2 × limit get through, and only for the worst
// of bursts; for even traffic it is exact. The sum is computed without
// rounding.
//
// Windows are laid end to end from the first permit spent. A changed period
// keeps both counts and the share of the current window that has passed.
//
//	a  start of the current window     b  permits spent in it
//	d  period, ns                      c  permits spent in the one before

func slidingSettle(s *state, r *rule, m moment) {
	if s.b == 0 && s.c == 0 {
		s.a, s.d = m.now, r.period
		return
	}
	slidingRoll(s, m)
	if s.d != r.period {
		elapsed, _ := mul(max(m.now-s.a, 0), r.period).div(s.d, r.period)
		s.a, s.d = m.now-elapsed, r.period
	}
}

// slidingRoll goes on to the window that now lies in.
func slidingRoll(s *state, m moment) {
	elapsed := m.now - s.a
	if elapsed < s.d {
		return
	}
	if elapsed < 2*s.d && s.b > 0 {
		s.a, s.b, s.c = s.a+s.d, 0, s.b
		return
	}
	s.a, s.b, s.c = m.now, 0, 0
}

// slidingLeft returns how much of the current window is still to come, ns.
func slidingLeft(s *state, m moment) int64 {
	return s.d - min(max(m.now-s.a, 0), s.d)
}

// slidingEarly returns how long it takes until the current window begins: more
// than 0 only when the clock was set back, or another member's is behind.
func slidingEarly(s *state, m moment) int64 { return max(s.a-m.now, 0) }

// slidingDebt returns what is used in 1/period permits.
func slidingDebt(s *state, m moment) u128 {
	return mul(s.b, s.d).add(mul(s.c, slidingLeft(s, m)))
}

func slidingUsed(s *state, m moment) int64 {
	if s.d == 0 {
		return 0
	}
	slidingRoll(s, m)
	return slidingDebt(s, m).divUp(s.d)
}

func slidingFree(s *state, r *rule, m moment) int64 {
	n, _ := mul(r.limit, s.d).sub(slidingDebt(s, m)).div(s.d, r.limit)
	return n
}

func slidingCharge(s *state, m moment, n int64) {
	if s.b == 0 && s.c == 0 {
		s.a = m.now
	}
	s.b = addPermits(s.b, n)
}

// slidingGiveBack takes from the current window first: permits spent in the
// one before already count for less.
func slidingGiveBack(s *state, n int64) {
	fromCurrent := min(n, s.b)
	s.b -= fromCurrent
	s.c = max(s.c-(n-fromCurrent), 0)
}

func slidingWait(s *state, r *rule, m moment, n int64) int64 {
	room := r.limit - n // what may be in use for n to fit
	left := slidingLeft(s, m)
	var t int64
	if room >= s.b {
		t = fade(s.c, left, room-s.b, s.d)
	} else {
		// Not within this window: in the next one its own count fades.
		t = left + fade(s.b, s.d, room, s.d)
	}
	if t > 0 {
		t += slidingEarly(s, m)
	}
	return t
}

// fade returns how long it takes until count permits of a window that still
// overlaps by left of period count for at most room.
func fade(count, left, room, period int64) int64 {
	if count == 0 {
		return 0
	}
	over := mul(count, left).sub(mul(room, period))
	return over.divUp(count)
}

func slidingWhole(s *state, m moment) int64 {
	switch {
	case s.b > 0:
		return slidingEarly(s, m) + slidingLeft(s, m) + s.d
	case s.c > 0:
		return slidingEarly(s, m) + slidingLeft(s, m)
	}
	return 0
}

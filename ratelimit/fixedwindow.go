package ratelimit

// Fixed window: a window starts with the first permit spent and ends a period
// later, whatever happens in between; then the whole limit is there again.
//
//	allowed when count + cost ≤ limit
//
// It errs at the seam: who spends everything at the end of one window and again
// at the start of the next gets up to 2 × limit within one period. It never
// errs the other way. A changed period moves the end of the open window, not
// its start.
//
//	a  start of the window     b  permits spent in it
//	c  –                       d  period, ns

func fixedSettle(s *state, r *rule, m moment) {
	s.d = r.period
	if s.b > 0 && m.now-s.a >= s.d {
		s.a, s.b = 0, 0
	}
}

func fixedUsed(s *state, m moment) int64 {
	if m.now-s.a >= s.d {
		return 0
	}
	return s.b
}

func fixedCharge(s *state, m moment, n int64) {
	if s.b == 0 {
		s.a = m.now
	}
	s.b = addPermits(s.b, n)
}

func fixedWhole(s *state, m moment) int64 {
	if s.b == 0 {
		return 0
	}
	return s.a + s.d - m.now
}

// addPermits adds two counts. Counts beyond twice MaxLimit say no more than
// that does.
func addPermits(a, b int64) int64 { return min(a+b, 2*MaxLimit) }

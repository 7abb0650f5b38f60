package ratelimit

// Token bucket, as the generic cell rate algorithm in its virtual-scheduling
// form (ITU-T I.371, ATM Forum TM 4.0 section 4.4.2): state is the theoretical
// arrival time, the instant at which the bucket is full again.
//
//	T    = period / limit                 one permit comes back every T
//	debt = max(TAT − now, 0)              what is used, as time
//	allowed when debt + cost × T ≤ burst × T, and then TAT = now + debt + cost × T
//
// It is exact: T is kept as a fraction, so no rounding adds up. Over any
// stretch of time at most burst + limit/period × length permits are granted.
// That is also how it errs on purpose: a full bucket lets burst permits through
// at once and the ordinary rate after that, so a period that begins with a full
// bucket sees up to burst + limit.
//
//	a  TAT, whole ns       c  limit that the state was charged with
//	b  TAT, in 1/c ns      d  period that the state was charged with, ns

// maxDebt bounds how far ahead a TAT can be: 146 years, more than MaxPeriod. It
// is reached only when a limit is lowered by orders of magnitude.
const maxDebt = 1 << 62

// bucketDebt returns what is used in 1/limit ns of the state's own limit.
func bucketDebt(s *state, m moment) u128 {
	if s.a < m.now || s.c == 0 {
		return u128{}
	}
	return mul(s.a-m.now, s.c).add(u128{lo: uint64(s.b)})
}

// setDebt writes the debt, given in 1/limit ns.
func setDebt(s *state, r *rule, m moment, debt u128) {
	ns, part := debt.div(r.limit, maxDebt)
	s.a, s.b, s.c, s.d = m.now+ns, part, r.limit, r.period
}

// bucketSettle keeps the permits in use, not the time, when the rule changed:
// a debt of n permits is n × period in units of 1/limit ns whatever the limit.
func bucketSettle(s *state, r *rule, m moment) {
	if s.c == r.limit && s.d == r.period {
		return
	}
	debt := bucketDebt(s, m)
	if s.d != r.period && !debt.isZero() {
		permits, part := debt.div(s.d, MaxLimit)
		debt = mul(permits, r.period).add(u128{lo: uint64(mul(part, r.period).divUp(s.d))})
	}
	setDebt(s, r, m, debt)
}

func bucketUsed(s *state, m moment) int64 {
	if s.d == 0 {
		return 0
	}
	return bucketDebt(s, m).divUp(s.d)
}

func bucketFree(s *state, r *rule, m moment) int64 {
	n, _ := mul(r.burst, r.period).sub(bucketDebt(s, m)).div(r.period, r.burst)
	return n
}

func bucketCharge(s *state, r *rule, m moment, n int64) {
	setDebt(s, r, m, bucketDebt(s, m).add(mul(n, r.period)))
}

func bucketGiveBack(s *state, r *rule, m moment, n int64) {
	setDebt(s, r, m, bucketDebt(s, m).sub(mul(n, r.period)))
}

func bucketWait(s *state, r *rule, m moment, n int64) int64 {
	over := bucketDebt(s, m).add(mul(n, r.period)).sub(mul(r.burst, r.period))
	return over.divUp(r.limit)
}

func bucketWhole(s *state, m moment) int64 {
	if s.a < m.now {
		return 0
	}
	if s.b > 0 {
		return s.a - m.now + 1
	}
	return s.a - m.now
}

package ratelimit

import "time"

// fake makes a limiter answer without counting.
type fake uint8

const (
	realLimiter fake = iota
	allowing
	denying
)

// AlwaysAllow and AlwaysDeny are limiters for the tests of handlers and other
// callers: they count nothing, and refuse no policy.
var (
	AlwaysAllow = &Limiter{fake: allowing}
	AlwaysDeny  = &Limiter{fake: denying}
)

func (f fake) decide(p *Policy, cost int64, d *Decision) (granted int64) {
	*d = Decision{Limit: max(p.Limit, 0), Policy: p.Name}
	if f == allowing {
		d.Allowed, d.Remaining = true, max(p.capacity(), 0)
		return cost
	}
	d.RetryAfter, d.ResetAfter, d.NextAfter = time.Second, time.Second, time.Second
	return 0
}

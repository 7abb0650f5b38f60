package ratelimit

import (
	"cmp"
	"context"
	"fmt"
	"time"
)

// decide is the way that every decision about one key goes. It fills d in unless
// it returns an error.
func (l *Limiter) decide(ctx context.Context, p *Policy, key string, kind opKind, cost int64, from *source, d *Decision) (granted int64, err error) {
	if l.observer == nil {
		return l.decideQuietly(ctx, p, key, kind, cost, from, d)
	}
	start := time.Now()
	granted, err = l.decideQuietly(ctx, p, key, kind, cost, from, d)
	if err == nil && kind != opStatus {
		l.observe(ctx, key, d, p.capacity(), cost, start)
	}
	return granted, err
}

func (l *Limiter) decideQuietly(ctx context.Context, p *Policy, key string, kind opKind, cost int64, from *source, d *Decision) (granted int64, err error) {
	if l.fake != realLimiter {
		return l.fake.decide(p, cost, d), nil
	}
	if err := l.resolve(p, key); err != nil {
		return 0, err
	}
	if p.Algorithm == Concurrency && kind != opStatus {
		return 0, needsAcquire(p)
	}
	if kind == opAtMost {
		if cost < 0 || cost > MaxLimit {
			return 0, badField("cost", "must be 0 to %d, is %d", int64(MaxLimit), cost)
		}
	} else if err := p.checkCost(cost); err != nil {
		return 0, err
	}
	if p.Unlimited {
		d.unlimited(p)
		return cost, nil
	}
	var buf [keyBuffer]byte
	tk := tableKey(buf[:0], p.Name, key)
	var a ask
	borrows := l.borrower != nil && lends(p, kind, cost)
	if borrows && l.borrower.decide(tk, p, cost, d, &a) {
		if d.Allowed {
			granted = cost
		}
		return granted, nil
	}
	o := op{kind: kind, cost: cost}
	l.setRule(&o.rule, p)
	if p.Synchronous {
		o.flags = flagWait
	}
	if from != nil && l.newKeys.over(from, p.Name) {
		o.flags |= flagKnown
	}
	var res result
	err = l.table.DoInto(ctx, tk, &o, &res)
	if err == nil && res.out != nil {
		res, err = l.doAgain(ctx, tk, o, res)
	}
	if err != nil {
		return l.undecided(ctx, p, tk, o, err, d)
	}
	if borrows && res.flags&resultUnknown == 0 {
		l.borrower.learn(tk, p, &o, &res, &a)
	}
	if from != nil {
		if res.flags&resultUnknown != 0 {
			return l.decideShared(ctx, p, o, from, d)
		}
		l.newKeys.saw(from, p.Name, &res)
	}
	l.degraded.leave(p.Name)
	d.set(p, &res, "")
	return res.granted, nil
}

func needsAcquire(p *Policy) error {
	return badField("algorithm", "of policy %s is concurrency: its places are taken by Acquire", p.Name)
}

// decideShared decides for a key that its source may not create any more.
func (l *Limiter) decideShared(ctx context.Context, p *Policy, o op, from *source, d *Decision) (granted int64, err error) {
	o.flags &^= flagKnown
	key := from.key(p.Name)
	l.newKeys.capped.Add(1)
	res, err := l.do(ctx, key, o)
	if err != nil {
		return l.undecided(ctx, p, key, o, err, d)
	}
	d.set(p, &res, ReasonNewKeys)
	return res.granted, nil
}

// undecided lets the failure mode decide, unless err is the end of the caller's
// own context.
func (l *Limiter) undecided(ctx context.Context, p *Policy, key []byte, o op, err error, d *Decision) (granted int64, _ error) {
	reason := reasonOf(ctx, err)
	if reason == "" {
		return 0, fmt.Errorf("ratelimit: policy %s: %w", p.Name, ctx.Err())
	}
	return l.unavailable(ctx, p, key, o, reason, err, d), nil
}

// setRule takes over the numeric part of a valid policy.
func (l *Limiter) setRule(r *rule, p *Policy) {
	r.algorithm = p.Algorithm
	r.align = p.Align
	r.version = p.version
	r.limit = p.Limit
	r.burst = p.capacity()
	r.period = int64(p.Period)
	if p.Align != Unaligned {
		r.calendar = l.calendars.get(p.Align, p.Location, l.now())
	}
}

// keyBuffer holds most table keys without allocating.
const keyBuffer = 128

// tableKey appends the key under which (policy, key) is kept. A name has no
// zero byte, so no two pairs share one.
func tableKey(b []byte, policy, key string) []byte {
	b = append(b, policy...)
	b = append(b, 0)
	return append(b, key...)
}

// set makes d the decision that a holder's result says.
func (d *Decision) set(p *Policy, r *result, reason string) {
	d.Allowed = r.flags&resultAllowed != 0
	d.Limit = p.Limit
	d.Remaining = r.remaining
	d.RetryAfter = time.Duration(r.retry)
	d.ResetAfter = time.Duration(r.whole)
	d.NextAfter = time.Duration(r.next)
	d.Policy = p.Name
	d.Degraded = false
	d.Reason = cmp.Or(reason, r.reason())
	d.shadow(p)
}

// shadow lets a denial of a shadow policy pass.
func (d *Decision) shadow(p *Policy) {
	if p.Shadow && !d.Allowed {
		d.Allowed, d.Reason, d.RetryAfter = true, ReasonShadow, 0
	}
}

func (d *Decision) unlimited(p *Policy) {
	*d = Decision{Allowed: true, Limit: MaxLimit, Remaining: MaxLimit, Policy: p.Name, Reason: ReasonUnlimited}
}

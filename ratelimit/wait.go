package ratelimit

import (
	"context"
	"fmt"
	"time"
)

// Wait spends one permit, waiting for it if it must. It returns nil once the
// permit is spent, the context's error when that ends first, and at once, with
// an error that is both the decision's [*ExceededError] and
// [context.DeadlineExceeded], when the permit can't be there before the
// context's deadline. Those who wait for one key are served in no particular
// order.
func (l *Limiter) Wait(ctx context.Context, policy Policy, key string) error {
	return l.WaitN(ctx, policy, key, 1)
}

// WaitN is Wait with a cost.
func (l *Limiter) WaitN(ctx context.Context, policy Policy, key string, cost int64) error {
	var timer *time.Timer
	for {
		d, err := l.AllowN(ctx, policy, key, cost)
		if err != nil {
			return err
		}
		if d.Allowed {
			return nil
		}
		// Never spin, whatever a clock says.
		pause := max(d.RetryAfter, time.Millisecond)
		if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) < pause {
			return fmt.Errorf("%w: %w", &ExceededError{Decision: d}, context.DeadlineExceeded)
		}
		if timer == nil {
			timer = time.NewTimer(pause)
			defer timer.Stop()
		} else {
			timer.Reset(pause)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
		}
	}
}

// Refund gives cost spent permits back, at most those in use: for work that was
// paid for and not done. Where it can't be known whether a refund arrived it
// may be lost; it never counts twice. Refunds do not say from when a permit is:
// one that has come back by itself since is not given twice, because what is in
// use never falls below zero.
func (l *Limiter) Refund(ctx context.Context, policy Policy, key string, cost int64) error {
	if l.fake != realLimiter {
		return nil
	}
	p := &policy
	if err := l.resolve(p, key); err != nil {
		return err
	}
	if cost < 0 || cost > MaxLimit {
		return badField("cost", "must be 0 to %d, is %d", int64(MaxLimit), cost)
	}
	if p.Unlimited || cost == 0 {
		return nil
	}
	o := op{kind: opRefund, flags: flagKnown, cost: cost}
	l.setRule(&o.rule, p)
	if p.Synchronous {
		o.flags |= flagWait
	}
	var buf [keyBuffer]byte
	tk := tableKey(buf[:0], p.Name, key)
	if _, err := l.table.Do(ctx, tk, o); err != nil {
		return fmt.Errorf("ratelimit: refund of policy %s: %w", p.Name, err)
	}
	if l.borrower != nil {
		l.borrower.forget(tk)
	}
	return nil
}

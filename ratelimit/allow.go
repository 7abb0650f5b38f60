package ratelimit

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
)

// Allow spends one permit of policy for key, if there is one. The error is a
// [*FieldError] for bad input, [ErrClosed], or the context's; a denial is not
// an error.
func (l *Limiter) Allow(ctx context.Context, policy Policy, key string) (Decision, error) {
	var d Decision
	_, err := l.decide(ctx, &policy, key, opTake, 1, nil, &d)
	return d, err
}

// AllowN spends cost permits, or none where there are not as many. A cost of 0
// is always allowed; one above the policy's burst could never be, and is a
// [*FieldError].
func (l *Limiter) AllowN(ctx context.Context, policy Policy, key string, cost int64) (Decision, error) {
	var d Decision
	_, err := l.decide(ctx, &policy, key, opTake, cost, nil, &d)
	return d, err
}

// AllowAtMost spends as many permits as there are, at most cost, and returns
// how many it spent. The decision is a denial where that is none.
func (l *Limiter) AllowAtMost(ctx context.Context, policy Policy, key string, cost int64) (int64, Decision, error) {
	var d Decision
	granted, err := l.decide(ctx, &policy, key, opAtMost, cost, nil, &d)
	if d.Reason == ReasonShadow {
		granted = cost
	}
	return granted, d, err
}

// Limit is Allow for those who want an error: nil, or an [*ExceededError] with
// the decision, or one of Allow's errors.
func (l *Limiter) Limit(ctx context.Context, policy Policy, key string) error {
	return l.LimitN(ctx, policy, key, 1)
}

// LimitN is Limit with a cost.
func (l *Limiter) LimitN(ctx context.Context, policy Policy, key string, cost int64) error {
	var d Decision
	_, err := l.decide(ctx, &policy, key, opTake, cost, nil, &d)
	if err == nil && !d.Allowed {
		err = &ExceededError{Decision: d}
	}
	return err
}

// Status returns what Allow would, and spends nothing.
func (l *Limiter) Status(ctx context.Context, policy Policy, key string) (Decision, error) {
	return l.StatusN(ctx, policy, key, 1)
}

// StatusN returns what AllowN would, except that Remaining is what there is
// now, and spends nothing.
func (l *Limiter) StatusN(ctx context.Context, policy Policy, key string, cost int64) (Decision, error) {
	var d Decision
	_, err := l.decide(ctx, &policy, key, opStatus, cost, nil, &d)
	return d, err
}

// Reset forgets what was used of policy for key, on every member when it
// returns. Only the policy's name counts.
func (l *Limiter) Reset(ctx context.Context, policy Policy, key string) error {
	if l.fake != realLimiter {
		return nil
	}
	if !validName(policy.Name) {
		return Policy{Name: policy.Name}.Validate()
	}
	if err := checkKey(key); err != nil {
		return err
	}
	tk := tableKey(nil, policy.Name, key)
	if _, err := l.reset(ctx, tk); err != nil {
		return fmt.Errorf("ratelimit: reset of policy %s: %w", policy.Name, err)
	}
	l.forgetDenials(ctx, tk)
	return nil
}

func (l *Limiter) reset(ctx context.Context, key []byte) (bool, error) {
	if l.closed.Load() {
		return false, ErrClosed
	}
	if l.local != nil {
		_, _ = l.local.Do(ctx, key, op{kind: opReset})
	}
	res, err := l.do(ctx, key, op{kind: opReset, flags: flagWait})
	return res.allowed(), err
}

const (
	resetBatch  = 10_000 // keys that ResetAll asks for at a time
	resetAtOnce = 64     // keys that it resets at a time
)

// ResetAll resets every key of policy that begins with prefix, all of them
// where it is empty, and returns how many there were. Keys that come into being
// while it runs may be missed.
func (l *Limiter) ResetAll(ctx context.Context, policy Policy, prefix string) (int, error) {
	if l.fake != realLimiter {
		return 0, nil
	}
	if !validName(policy.Name) {
		return 0, Policy{Name: policy.Name}.Validate()
	}
	if len(prefix) > MaxKeyLen {
		return 0, badField("prefix", "must be at most %d bytes, is %d", MaxKeyLen, len(prefix))
	}
	from := string(tableKey(nil, policy.Name, prefix))
	defer l.forgetDenials(ctx, nil)
	removed := 0
	for {
		keys, err := l.table.Keys(ctx, from, resetBatch)
		if err != nil {
			return removed, fmt.Errorf("ratelimit: keys of policy %s: %w", policy.Name, err)
		}
		n, err := l.resetEach(ctx, keys)
		removed += n
		// A member may have left keys out to keep its answer short; so ask until
		// there is nothing left.
		if err != nil || n == 0 {
			return removed, err
		}
	}
}

// resetEach resets these keys, some at a time, for each may have to travel. It
// goes on after a failure, and returns the first.
func (l *Limiter) resetEach(ctx context.Context, keys []string) (int, error) {
	var next, removed atomic.Int64
	var failure onceError
	work := func() {
		for {
			i := int(next.Add(1)) - 1
			if i >= len(keys) || ctx.Err() != nil {
				return
			}
			done, err := l.reset(ctx, []byte(keys[i]))
			if err != nil {
				failure.set(err)
			}
			if done {
				removed.Add(1)
			}
		}
	}
	if l.local == nil {
		work()
	} else {
		var wg sync.WaitGroup
		for range min(len(keys), resetAtOnce) {
			wg.Go(work)
		}
		wg.Wait()
	}
	failure.set(ctx.Err())
	return int(removed.Load()), failure.err
}

// onceError keeps the first error.
type onceError struct {
	once sync.Once
	err  error
}

func (e *onceError) set(err error) {
	if err != nil {
		e.once.Do(func() { e.err = fmt.Errorf("ratelimit: reset: %w", err) })
	}
}

// Size returns how many keys have something used, over all members.
func (l *Limiter) Size(ctx context.Context) (int, error) {
	if l.fake != realLimiter {
		return 0, nil
	}
	if l.closed.Load() {
		return 0, ErrClosed
	}
	return l.table.Count(ctx)
}

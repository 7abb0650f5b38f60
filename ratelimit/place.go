package ratelimit

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"
)

// Place is one call in flight under a concurrency policy. Its methods may be
// called on a nil *Place, which is what a caller gets who may go ahead without
// holding one, and may be called concurrently.
type Place struct {
	limiter *Limiter
	table   *table
	name    string
	key     []byte
	op      op

	mu       sync.Mutex
	released bool        // guarded by mu
	renewal  *time.Timer // guarded by mu; nil unless kept
}

// Acquire takes one place of a [Concurrency] policy for key, if there is one.
// The caller must release it; a place that is neither released nor renewed for
// the policy's period is free again.
//
// The place is nil where the decision is a denial, and also where it allows
// without counting: an unlimited or shadow policy, or FailOpen.
func (l *Limiter) Acquire(ctx context.Context, policy Policy, key string) (*Place, Decision, error) {
	return l.AcquireN(ctx, policy, key, 1)
}

// AcquireN takes cost places at once, or none.
func (l *Limiter) AcquireN(ctx context.Context, policy Policy, key string, cost int64) (*Place, Decision, error) {
	return l.acquireObserved(ctx, &policy, key, cost)
}

func (l *Limiter) acquireObserved(ctx context.Context, p *Policy, key string, cost int64) (*Place, Decision, error) {
	if l.fake != realLimiter {
		var d Decision
		l.fake.decide(p, cost, &d)
		return nil, d, nil
	}
	start := time.Now()
	place, d, err := l.acquire(ctx, p, key, cost)
	if l.observer != nil && err == nil {
		l.observe(ctx, key, &d, p.capacity(), cost, start)
	}
	return place, d, err
}

func (l *Limiter) acquire(ctx context.Context, p *Policy, key string, cost int64) (*Place, Decision, error) {
	if err := l.resolve(p, key); err != nil {
		return nil, Decision{}, err
	}
	if p.Algorithm != Concurrency {
		return nil, Decision{}, badField("algorithm", "of policy %s must be concurrency, is %s", p.Name, p.Algorithm)
	}
	if err := p.checkCost(cost); err != nil {
		return nil, Decision{}, err
	}
	if cost == 0 {
		return nil, Decision{}, badField("cost", "must be at least 1 to take a place")
	}
	var d Decision
	if p.Unlimited {
		d.unlimited(p)
		return nil, d, nil
	}
	place := &Place{limiter: l, table: l.table, name: p.Name, key: tableKey(nil, p.Name, key)}
	place.op = op{kind: opAcquire, cost: cost, id: rand.Uint64()}
	l.setRule(&place.op.rule, p)
	if p.Synchronous {
		place.op.flags = flagWait
	}
	res, err := l.do(ctx, place.key, place.op)
	if err != nil {
		granted, err := l.undecided(ctx, p, place.key, place.op, err, &d)
		if err == nil && l.modeOf(p) == FailLocal && granted > 0 && l.local != nil {
			place.table = l.local
			return place, d, nil
		}
		return nil, d, err
	}
	l.degraded.leave(p.Name)
	d.set(p, &res, "")
	if !res.allowed() {
		return nil, d, nil
	}
	return place, d, nil
}

// Release gives the place back. Further calls do nothing. Where the error says
// that nobody could be told, the place runs out by itself.
func (p *Place) Release(ctx context.Context) error {
	if p == nil {
		return nil
	}
	p.mu.Lock()
	if p.released {
		p.mu.Unlock()
		return nil
	}
	p.released = true
	if p.renewal != nil {
		p.renewal.Stop()
	}
	p.mu.Unlock()
	o := p.op
	o.kind = opLeave
	if _, err := p.table.Do(ctx, p.key, o); err != nil {
		return fmt.Errorf("ratelimit: release of policy %s: %w", p.name, err)
	}
	return nil
}

// Renew holds on to the place for another period. It returns false when the
// place had run out, or was reset, and may be another's by now.
func (p *Place) Renew(ctx context.Context) (bool, error) {
	if p == nil {
		return true, nil
	}
	p.mu.Lock()
	released := p.released
	p.mu.Unlock()
	if released {
		return false, nil
	}
	o := p.op
	o.kind = opRenew
	res, err := p.table.Do(ctx, p.key, o)
	if err != nil {
		return false, fmt.Errorf("ratelimit: renewal of policy %s: %w", p.name, err)
	}
	return res.allowed(), nil
}

// Keep renews the place at every third of its period until it is released or
// the limiter is closed, for calls that may outlive it.
func (p *Place) Keep() {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.released && p.renewal == nil {
		p.renewal = time.AfterFunc(p.interval(), p.keep)
	}
}

func (p *Place) interval() time.Duration { return time.Duration(p.op.rule.period) / 3 }

func (p *Place) keep() {
	if !p.limiter.running.begin() {
		return
	}
	defer p.limiter.running.end()
	ctx, cancel := context.WithTimeout(context.Background(), p.interval())
	defer cancel()
	if held, err := p.Renew(ctx); err == nil && !held {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.released {
		p.renewal.Reset(p.interval())
	}
}

// running counts what a limiter has under way by itself, so that Close can wait
// for it. Its zero value is open.
type running struct {
	mu     sync.Mutex
	closed bool // guarded by mu
	work   sync.WaitGroup
}

// begin reports whether work may begin; if so end must follow.
func (r *running) begin() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return false
	}
	r.work.Add(1)
	return true
}

func (r *running) end() { r.work.Done() }

// close lets nothing begin any more and waits for what has begun.
func (r *running) close() {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.work.Wait()
}

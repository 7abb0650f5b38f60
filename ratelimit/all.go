package ratelimit

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"
)

// Check is one part of an all-or-nothing decision.
type Check struct {
	Policy Policy
	Key    string
	Cost   int64 // permits; 0 is always allowed
}

// All is the answer to several checks at once.
type All struct {
	// Allowed: every check was, and every cost is spent. Otherwise nothing is.
	Allowed bool
	// Decisions are in the order of the checks. Where All is denied, those of
	// checks that by themselves would have been allowed say so.
	Decisions []Decision
}

// MaxChecks is how many checks AllowAll takes at once.
const MaxChecks = 100

// confirmWithin is how long after the first reservation was sent confirmations
// may still be sent: they have to arrive while the reservations live.
const confirmWithin = reserveFor / 2

// AllowAll spends the costs of all checks or none of them, also where their
// keys have different holders. Each holder first sets the cost aside for a
// second; once all have, it is spent. What a caller that dies on the way had
// set aside is free again within that second. Errors are Allow's, and name the
// check.
//
// A check whose holder can't be reached counts by its failure mode.
func (l *Limiter) AllowAll(ctx context.Context, checks ...Check) (All, error) {
	if len(checks) == 0 || len(checks) > MaxChecks {
		return All{}, badField("checks", "must be 1 to %d, are %d", MaxChecks, len(checks))
	}
	if len(checks) == 1 {
		c := &checks[0]
		d, _, err := l.decide(ctx, &c.Policy, c.Key, opTake, c.Cost)
		return All{d.Allowed, []Decision{d}}, err
	}
	start := time.Now()
	parts := make([]part, len(checks))
	for i := range checks {
		if err := parts[i].prepare(l, &checks[i]); err != nil {
			return All{}, inCheck(i, err)
		}
	}
	each(parts, func(p *part) { p.reserve(ctx, l) })
	all := All{Allowed: true, Decisions: make([]Decision, len(checks))}
	for i := range parts {
		if parts[i].err != nil {
			each(parts, func(p *part) { p.settle(ctx, l, opRelease) })
			return All{}, inCheck(i, parts[i].err)
		}
		all.Allowed = all.Allowed && parts[i].decision.Allowed
	}
	if all.Allowed && time.Since(start) < confirmWithin {
		each(parts, func(p *part) { p.settle(ctx, l, opConfirm) })
	} else {
		each(parts, func(p *part) { p.settle(ctx, l, opRelease) })
	}
	for i := range parts {
		all.Decisions[i] = parts[i].decision
		all.Allowed = all.Allowed && parts[i].decision.Allowed
		if l.observer != nil {
			l.observe(ctx, &all.Decisions[i], parts[i].policy.capacity(), checks[i].Cost, start)
		}
	}
	return all, nil
}

func inCheck(i int, err error) error {
	if f, ok := err.(*FieldError); ok {
		return &FieldError{Field: fmt.Sprintf("checks[%d].%s", i, f.Field), Detail: f.Detail}
	}
	return fmt.Errorf("check %d: %w", i, err)
}

// each calls f for every part at the same time, and returns when all are done.
func each(parts []part, f func(*part)) {
	var wg sync.WaitGroup
	for i := range parts[1:] {
		wg.Go(func() { f(&parts[i+1]) })
	}
	f(&parts[0])
	wg.Wait()
}

// part is one check on its way.
type part struct {
	policy   Policy
	key      []byte
	op       op
	reserved bool
	decision Decision
	err      error
}

func (p *part) prepare(l *Limiter, c *Check) error {
	p.policy = c.Policy
	if l.fake != realLimiter {
		p.decision, _, _ = l.fake.decide(&p.policy, c.Cost)
		return nil
	}
	if err := l.resolve(&p.policy, c.Key); err != nil {
		return err
	}
	if p.policy.Algorithm == Concurrency {
		return badField("algorithm", "of policy %s is concurrency: its places are taken by Acquire", p.policy.Name)
	}
	if err := p.policy.checkCost(c.Cost); err != nil {
		return err
	}
	if p.policy.Unlimited {
		p.decision = unlimited(&p.policy)
		return nil
	}
	p.key = tableKey(nil, p.policy.Name, c.Key)
	p.op = op{rule: l.rule(&p.policy), cost: c.Cost, id: rand.Uint64()}
	return nil
}

func (p *part) reserve(ctx context.Context, l *Limiter) {
	if p.key == nil {
		return
	}
	p.op.kind, p.op.flags = opReserve, flagWait
	res, err := l.table.Do(ctx, p.key, p.op)
	if err != nil {
		reason := reasonOf(ctx, err)
		if reason == "" {
			p.err = fmt.Errorf("ratelimit: policy %s: %w", p.policy.Name, ctx.Err())
			// It may have been set aside all the same; then it runs out.
			return
		}
		take := p.op
		take.kind = opTake
		p.decision, _ = l.unavailable(ctx, &p.policy, p.key, take, reason)
		p.decision = shadowed(&p.policy, p.decision)
		return
	}
	l.degraded.leave(p.policy.Name)
	p.reserved = res.allowed()
	p.decision = Decision{Limit: p.policy.Limit, Policy: p.policy.Name}
	p.decision.fill(&res)
	p.decision = shadowed(&p.policy, p.decision)
}

// settle confirms or releases what was set aside.
func (p *part) settle(ctx context.Context, l *Limiter, kind opKind) {
	if !p.reserved {
		return
	}
	ctx = context.WithoutCancel(ctx)
	o := p.op
	o.kind, o.flags = kind, 0
	if p.policy.Synchronous {
		o.flags = flagWait
	}
	res, err := l.table.Do(ctx, p.key, o)
	if err != nil {
		return
	}
	if kind == opConfirm && !res.allowed() {
		// It ran out on the way, or its key was reset: spend what is left.
		o.kind = opTake
		if res, err = l.table.Do(ctx, p.key, o); err != nil {
			return
		}
	}
	allowed := p.decision.Allowed
	p.decision.fill(&res)
	p.decision.Allowed = allowed
}

package ratelimit

import (
	"context"
)

// Admission is the answer to [Limiter.Admit]. It has to be released.
type Admission struct {
	// Allowed: every check was, and every cost is spent. Otherwise nothing is.
	Allowed bool
	// Unavailable: denied by FailClosed, because nobody could decide.
	Unavailable bool
	// Decisions are those that were made, first those of concurrency policies,
	// and Policies the policies that were in force for them. Of a check whose
	// turn did not come there is none.
	Decisions []Decision
	Policies  []Policy

	places []*Place
}

// Admit is AllowAll for work that takes a while: it takes checks of
// [Concurrency] policies too, and holds their places, for as long as it takes,
// until the admission is released. It is what a middleware is made of.
func (l *Limiter) Admit(ctx context.Context, checks ...Check) (*Admission, error) {
	if len(checks) > MaxChecks {
		return nil, badField("checks", "must be at most %d, are %d", MaxChecks, len(checks))
	}
	a := &Admission{
		Allowed:   true,
		Decisions: make([]Decision, 0, len(checks)),
		Policies:  make([]Policy, 0, len(checks)),
	}
	parts := make([]part, 0, len(checks))
	for i := range checks {
		c := &checks[i]
		if c.Policy.Algorithm != Concurrency {
			parts = append(parts, partOf(c))
			continue
		}
		if !a.Allowed {
			continue
		}
		if err := a.take(ctx, l, c); err != nil {
			a.Release(ctx)
			return nil, inCheck(i, err)
		}
	}
	if a.Allowed && len(parts) > 0 {
		allowed, err := l.allowAll(ctx, parts)
		if err != nil {
			a.Release(ctx)
			return nil, err
		}
		a.Allowed = allowed
		for i := range parts {
			a.add(l, &parts[i].policy, &parts[i].decision)
		}
	}
	if !a.Allowed {
		a.Release(ctx)
	}
	return a, nil
}

// take takes a place.
func (a *Admission) take(ctx context.Context, l *Limiter, c *Check) error {
	policy := c.Policy
	if c.Cost == 0 {
		return policy.validate() // in flight, and weighs nothing
	}
	place, d, err := l.acquireObserved(ctx, &policy, c.Key, c.Cost)
	if err != nil {
		return err
	}
	if place != nil {
		place.Keep()
		a.places = append(a.places, place)
	}
	a.Allowed = d.Allowed
	a.add(l, &policy, &d)
	return nil
}

func (a *Admission) add(l *Limiter, p *Policy, d *Decision) {
	a.Policies = append(a.Policies, *p)
	a.Decisions = append(a.Decisions, *d)
	if d.Degraded && !d.Allowed && l.modeOf(p) == FailClosed {
		a.Unavailable = true
	}
}

// Release gives the places back. The work may have ended because ctx did; they
// are given back all the same. It may be called twice, and on nil.
func (a *Admission) Release(ctx context.Context) {
	if a == nil {
		return
	}
	for _, place := range a.places {
		// A place that can't be given back runs out by itself.
		_ = place.Release(context.WithoutCancel(ctx))
	}
	a.places = nil
}

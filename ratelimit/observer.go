package ratelimit

import (
	"context"
	"time"
)

// Outcome sorts decisions.
type Outcome string

// The outcomes.
const (
	OutcomeAllowed         Outcome = "allowed"
	OutcomeDenied          Outcome = "denied"
	OutcomeShadowDenied    Outcome = "shadow_denied"
	OutcomeDegradedAllowed Outcome = "degraded_allowed"
	OutcomeDegradedDenied  Outcome = "degraded_denied"
)

// Observer is told of every decision. It lets metrics and traces be fed without
// this package knowing of either. It is called by the goroutine that asked, and
// must not block. ctx is the caller's.
type Observer interface {
	Decided(ctx context.Context, o Observation)
}

// Observation is one decision, seen from outside.
type Observation struct {
	// Key is what was decided about, under the policy that Decision names. It
	// may name a person, or be a secret where the caller limits by one: who
	// shows or stores it shortens or hashes it.
	Key      string
	Decision Decision
	Outcome  Outcome
	Cost     int64 // permits asked for
	// NearLimit: allowed, with at least 80 % of what can be had at once in use.
	NearLimit bool
	// Start and Took are when the decision was asked for and how long it took.
	Start time.Time
	Took  time.Duration
}

func (l *Limiter) observe(ctx context.Context, key string, d *Decision, capacity, cost int64, start time.Time) {
	l.observer.Decided(ctx, Observation{
		Key:       key,
		Decision:  *d,
		Outcome:   d.Outcome(),
		Cost:      cost,
		NearLimit: d.nearLimit(capacity),
		Start:     start,
		Took:      time.Since(start),
	})
}

// Outcome sorts d.
func (d *Decision) Outcome() Outcome {
	switch {
	case d.Degraded && d.Allowed:
		return OutcomeDegradedAllowed
	case d.Degraded:
		return OutcomeDegradedDenied
	case d.Reason == ReasonShadow:
		return OutcomeShadowDenied
	case d.Allowed:
		return OutcomeAllowed
	}
	return OutcomeDenied
}

func (d *Decision) nearLimit(capacity int64) bool {
	return d.Allowed && !d.Degraded && (d.Reason == "" || d.Reason == ReasonUnprotected) && d.Remaining <= capacity/5
}

package ratelimit

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/peerlimit/peerlimit/cluster"
)

// FailureMode says what is decided while nobody who may decide answers: the
// holder of a key and its backup are both gone or out of reach. The zero value
// means the default: in a Policy that of its limiter, in a Config FailOpen.
type FailureMode uint8

const (
	// FailOpen allows.
	FailOpen FailureMode = iota + 1
	// FailClosed denies.
	FailClosed
	// FailLocal lets this member alone enforce the limit divided by the
	// number of members, with counters that start empty.
	FailLocal
)

// String returns the name that YAML and flags use.
func (f FailureMode) String() string {
	switch f {
	case FailOpen:
		return "open"
	case FailClosed:
		return "closed"
	case FailLocal:
		return "local"
	}
	return ""
}

// ParseFailureMode is the inverse of String; an empty string is the default.
func ParseFailureMode(s string) (FailureMode, error) {
	switch s {
	case "":
		return 0, nil
	case "open":
		return FailOpen, nil
	case "closed":
		return FailClosed, nil
	case "local":
		return FailLocal, nil
	}
	return 0, badField("on_unavailable", "must be open, closed or local, is %.40q", s)
}

// recoverAfter is how long no decision of a policy may have been degraded for
// it to count as recovered: some keys' holders may answer while others' don't.
const recoverAfter = time.Second

// degradation knows which policies are degraded. Reading it costs one atomic
// load while none is.
type degradation struct {
	logger *slog.Logger
	count  atomic.Int64 // policies that are degraded

	mu       sync.Mutex
	policies map[string]degraded // guarded by mu
	members  int                 // most members seen since the first policy degraded; guarded by mu
}

type degraded struct {
	reason string
	last   time.Time // of a degraded decision
}

// enter notes a degraded decision, and returns the number of members that a
// local limit is divided by.
func (g *degradation) enter(policy, reason string, mode FailureMode, members int, err error) int {
	g.mu.Lock()
	if g.policies == nil {
		g.policies = make(map[string]degraded)
	}
	if len(g.policies) == 0 {
		g.members = 1
	}
	// Members that are out of reach drop off the list, and each side of a
	// split would take a growing share: the most that were seen count.
	g.members = max(g.members, members)
	members = g.members
	old := g.policies[policy]
	g.policies[policy] = degraded{reason, time.Now()}
	g.count.Store(int64(len(g.policies)))
	g.mu.Unlock()
	if old.reason != reason {
		g.logger.Warn("limiter degraded", "policy", policy, "reason", reason, "mode", mode.String(), "error", err)
	}
	return members
}

// leave notes an ordinary decision.
func (g *degradation) leave(policy string) {
	if g.count.Load() == 0 {
		return
	}
	g.mu.Lock()
	old, ok := g.policies[policy]
	recovered := ok && time.Since(old.last) >= recoverAfter
	if recovered {
		delete(g.policies, policy)
		g.count.Store(int64(len(g.policies)))
	}
	g.mu.Unlock()
	if recovered {
		g.logger.Info("limiter recovered", "policy", policy, "reason", old.reason)
	}
}

// reasonOf says why err means that nobody decided; "" where it does not: the
// caller's context ended.
func reasonOf(ctx context.Context, err error) string {
	switch {
	case ctx.Err() != nil:
		return ""
	case errors.Is(err, cluster.ErrBusy):
		return ReasonBusy
	}
	return ReasonUnavailable
}

func (l *Limiter) modeOf(p *Policy) FailureMode {
	if p.OnUnavailable != 0 {
		return p.OnUnavailable
	}
	return l.onUnavailable
}

// unavailable decides by the failure mode, because of err.
func (l *Limiter) unavailable(ctx context.Context, p *Policy, key []byte, o op, reason string, err error, d *Decision) (granted int64) {
	mode := l.modeOf(p)
	members := l.degraded.enter(p.Name, reason, mode, l.members(), err)
	*d = Decision{Limit: p.Limit, Policy: p.Name, Degraded: true, Reason: reason}
	switch {
	case mode == FailLocal && l.local != nil:
		share := *p
		share.Limit = max(p.Limit/int64(members), 1)
		if p.Burst != 0 {
			share.Burst = max(p.Burst/int64(members), 1)
		}
		o.rule.limit, o.rule.burst = share.Limit, share.capacity()
		o.flags &^= flagWait
		res, err := l.local.Do(context.WithoutCancel(ctx), key, o)
		if err == nil {
			d.set(&share, &res, reason)
			d.Degraded = true
			return res.granted
		}
	case mode == FailOpen:
		d.Allowed, d.Remaining = true, p.capacity()
		return o.cost
	}
	d.RetryAfter = degradedRetry
	d.shadow(p)
	return 0
}

// degradedRetry is the RetryAfter of a decision that was denied because nobody
// could decide: by then a backup has taken over, or a member has joined.
const degradedRetry = time.Second

package ratelimit

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"
)

// Check is one part of an all-or-nothing decision.
type Check struct {
	Policy Policy
	Key    string
	Cost   int64 // permits; 0 is always allowed

	// Source is where the request comes from, for the cap on new keys; see
	// Config.NewKeysPerMinute. The zero value is not capped.
	Source netip.Addr
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
	parts := make([]part, len(checks))
	for i := range checks {
		parts[i] = partOf(&checks[i])
	}
	allowed, err := l.allowAll(ctx, parts)
	if err != nil {
		return All{}, err
	}
	all := All{Allowed: allowed, Decisions: make([]Decision, len(parts))}
	for i := range parts {
		all.Decisions[i] = parts[i].decision
	}
	return all, nil
}

// part is one check on its way.
type part struct {
	policy Policy // the one in force, once prepared
	key    string
	cost   int64
	from   source

	tableKey []byte // nil: decided without one
	op       op
	reserved bool
	decision Decision
	err      error
}

func partOf(c *Check) part {
	return part{policy: c.Policy, key: c.Key, cost: c.Cost, from: source{addr: c.Source}}
}

func (l *Limiter) allowAll(ctx context.Context, parts []part) (bool, error) {
	if len(parts) == 1 {
		p := &parts[0]
		var err error
		_, err = l.decide(ctx, &p.policy, p.key, opTake, p.cost, &p.from, &p.decision)
		if err != nil {
			return false, inCheck(0, err)
		}
		return p.decision.Allowed, nil
	}
	start := time.Now()
	for i := range parts {
		if err := l.prepare(&parts[i]); err != nil {
			return false, inCheck(i, err)
		}
	}
	if l.local == nil {
		return l.allowAllHere(ctx, parts, start)
	}
	l.each(parts, func(p *part) { l.reserve(ctx, p) })
	allowed := true
	for i := range parts {
		if parts[i].err != nil {
			l.each(parts, func(p *part) { l.settle(ctx, p, opRelease) })
			return false, inCheck(i, parts[i].err)
		}
		allowed = allowed && parts[i].decision.Allowed
	}
	if allowed && time.Since(start) > confirmWithin {
		// Too slow to be sure of what was set aside.
		l.each(parts, func(p *part) { l.settle(ctx, p, opRelease); l.tooSlow(ctx, p) })
		allowed = true
		for i := range parts {
			allowed = allowed && parts[i].decision.Allowed
		}
	} else if allowed {
		l.each(parts, func(p *part) { l.settle(ctx, p, opConfirm) })
	} else {
		l.each(parts, func(p *part) { l.settle(ctx, p, opRelease) })
	}
	l.observeAll(ctx, parts, start)
	return allowed, nil
}

// allowAllHere is allowAll for a limiter of this process alone: one part after
// the other, and the last one's cost is spent at once, for by then nothing else
// can go wrong.
func (l *Limiter) allowAllHere(ctx context.Context, parts []part, start time.Time) (bool, error) {
	allowed := true
	last := len(parts) - 1
	for i := range parts {
		p := &parts[i]
		if i == last && allowed {
			p.op.kind = opTake
		} else {
			p.op.kind = opReserve
		}
		l.reserve(ctx, p)
		if p.err != nil {
			for j := range parts[:i] {
				l.settle(ctx, &parts[j], opRelease)
			}
			return false, inCheck(i, p.err)
		}
		allowed = allowed && p.decision.Allowed
	}
	kind := opRelease
	if allowed {
		kind = opConfirm
		parts[last].reserved = false
	}
	for i := range parts {
		l.settle(ctx, &parts[i], kind)
	}
	l.observeAll(ctx, parts, start)
	return allowed, nil
}

func (l *Limiter) observeAll(ctx context.Context, parts []part, start time.Time) {
	if l.observer == nil {
		return
	}
	for i := range parts {
		l.observe(ctx, parts[i].key, &parts[i].decision, parts[i].policy.capacity(), parts[i].cost, start)
	}
}

func inCheck(i int, err error) error {
	var f *FieldError
	if errors.As(err, &f) {
		return &FieldError{Field: fmt.Sprintf("checks[%d].%s", i, f.Field), Detail: f.Detail}
	}
	return fmt.Errorf("check %d: %w", i, err)
}

// each calls f for every part at the same time, for their holders may be
// elsewhere, and returns when all are done.
func (l *Limiter) each(parts []part, f func(*part)) {
	var wg sync.WaitGroup
	for i := range parts[1:] {
		wg.Go(func() { f(&parts[i+1]) })
	}
	f(&parts[0])
	wg.Wait()
}

func (l *Limiter) prepare(p *part) error {
	if l.fake != realLimiter {
		l.fake.decide(&p.policy, p.cost, &p.decision)
		return nil
	}
	if err := l.resolve(&p.policy, p.key); err != nil {
		return err
	}
	if p.policy.Algorithm == Concurrency {
		return needsAcquire(&p.policy)
	}
	if err := p.policy.checkCost(p.cost); err != nil {
		return err
	}
	if p.policy.Unlimited {
		p.decision.unlimited(&p.policy)
		return nil
	}
	p.tableKey = tableKey(nil, p.policy.Name, p.key)
	p.op = op{kind: opReserve, flags: flagWait, cost: p.cost, id: rand.Uint64()}
	l.setRule(&p.op.rule, &p.policy)
	return nil
}

func (l *Limiter) reserve(ctx context.Context, p *part) {
	if p.tableKey == nil {
		return
	}
	o := p.op
	from, name := &p.from, p.policy.Name
	if l.newKeys.over(from, name) {
		o.flags |= flagKnown
	}
	reason := ""
	res, err := l.do(ctx, p.tableKey, o)
	if err == nil && res.flags&resultUnknown != 0 {
		o.flags &^= flagKnown
		p.tableKey, reason = from.key(name), ReasonNewKeys
		l.newKeys.capped.Add(1)
		res, err = l.do(ctx, p.tableKey, o)
	} else if err == nil {
		l.newKeys.saw(from, name, &res)
	}
	if err != nil {
		l.cannotReserve(ctx, p, err)
		return
	}
	l.degraded.leave(p.policy.Name)
	p.reserved = res.allowed()
	p.decision.set(&p.policy, &res, reason)
}

// cannotReserve lets the failure mode decide, or notes the caller's own end.
// What may have been set aside all the same runs out.
func (l *Limiter) cannotReserve(ctx context.Context, p *part, err error) {
	reason := reasonOf(ctx, err)
	if reason == "" {
		p.err = fmt.Errorf("ratelimit: policy %s: %w", p.policy.Name, ctx.Err())
		return
	}
	l.decideAlone(ctx, p, reason, err)
}

func (l *Limiter) decideAlone(ctx context.Context, p *part, reason string, err error) {
	take := p.op
	take.kind = opTake
	l.unavailable(ctx, &p.policy, p.tableKey, take, reason, err, &p.decision)
}

var errTooSlow = errors.New("ratelimit: setting aside took too long")

// tooSlow decides as if the part's holder had not answered.
func (l *Limiter) tooSlow(ctx context.Context, p *part) {
	if p.reserved {
		l.decideAlone(ctx, p, ReasonUnavailable, errTooSlow)
	}
}

// settle confirms or releases what was set aside. It runs to its end though the
// caller's context may not.
func (l *Limiter) settle(ctx context.Context, p *part, kind opKind) {
	if !p.reserved {
		return
	}
	ctx = context.WithoutCancel(ctx)
	o := p.op
	o.kind, o.flags = kind, 0
	if kind == opConfirm || p.policy.Synchronous {
		o.flags = flagWait // or a holder that dies takes the confirmation along, and what was allowed is given back
	}
	res, err := l.do(ctx, p.tableKey, o)
	if err != nil {
		return
	}
	if kind == opConfirm && !res.allowed() {
		// It ran out on the way, or its key was reset: spend what there is.
		o.kind = opAtMost
		if res, err = l.do(ctx, p.tableKey, o); err != nil {
			return
		}
	}
	p.decision.Remaining = res.remaining
	p.decision.ResetAfter = time.Duration(res.whole)
	p.decision.NextAfter = time.Duration(res.next)
}

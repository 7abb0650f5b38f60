package auth

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// maxTries bounds how often one verification reads the store because its key was changed meanwhile.
const maxTries = 8

type clientKey struct{}

// WithClient returns a context whose verifications count for that client with Config.FailureLimit. The middleware
// does it; callers of Verify may.
func WithClient(ctx context.Context, client string) context.Context {
	return context.WithValue(ctx, clientKey{}, client)
}

// Verify judges a presented key. A nil error comes with a verdict about the key, an error with Unavailable: it wraps
// ErrUnavailable and the cause (ctx's error among them), or is a *ThrottledError. Only Valid lets anyone in.
//
// A key that is cached here is judged without blocking or allocating. Otherwise Verify takes at most twice
// Config.StoreTimeout and a second, and not longer than ctx.
func (a *Authenticator) Verify(ctx context.Context, key string) (Result, error) {
	if len(key) == 0 || len(key) > MaxKeyLength {
		return a.malformed(ctx), nil
	}
	d := DigestOf(key)
	e, now, confirmed := a.find(&d)
	if e != nil && confirmed && !e.disabled && now.wall < e.expires && now.mono < e.fresh {
		a.used(e, now)
		a.near.hit(&d)
		return e.valid, nil
	}
	return a.verifySlow(ctx, key, &d)
}

// find returns what is cached of a key, the time, and whether it is confirmed, all in the order that confirmation.load
// asks for.
func (a *Authenticator) find(d *Digest) (e *entry, now moment, confirmed bool) {
	since := a.confirmed.load()
	e = a.near.get(d)
	now = a.clock.read()
	return e, now, since.fresh(now)
}

// used notes a verification and, now and then, the key's use.
func (a *Authenticator) used(e *entry, now moment) {
	a.active(now)
	if a.usage.every > 0 && now.wall-e.used.Load() >= int64(a.usage.every) {
		e.used.Store(now.wall)
		a.usage.note(e.valid.Principal.ID, now.wall)
	}
}

func (a *Authenticator) verifySlow(ctx context.Context, key string, d *Digest) (Result, error) {
	if !a.format.wellFormed(key) {
		return a.malformed(ctx), nil
	}
	ctx, cancel := context.WithTimeout(ctx, 2*a.cfg.StoreTimeout+time.Second)
	defer cancel()
	arrived := a.flights.arrive()
	asked, waited := false, false // whether the client may try; whether a confirmation was waited for
	for range maxTries {
		e, now, confirmed := a.find(d)
		a.active(now)
		if e == nil && a.unknown.has(d, now) {
			return a.refuse(ctx, NotFound, FromNear), nil
		}
		if e != nil {
			r, settled := a.cached(e, confirmed, now)
			if settled {
				return a.answer(ctx, e, r, now), nil
			}
			if r.Verdict == Valid && !waited {
				waited = true // it would do, if it were confirmed
				if a.confirm(ctx) {
					continue
				}
			}
		} else if !asked {
			asked = true
			if wait := a.mayTry(ctx); wait > 0 {
				a.stats.throttled.Add(1)
				a.stats.count(Unavailable, FromKey)
				return Result{Verdict: Unavailable}, &ThrottledError{wait}
			}
		}
		o, own, err := a.read(ctx, d, arrived, e != nil)
		switch {
		case err != nil:
			return a.unavailable(FromStore, err)
		case o.changed, o.shared, !own && o.err == nil:
			continue // look in the cache again, or read again
		case o.err != nil:
			r, ok := a.fallback(ctx, d)
			if !ok && e != nil && !waited {
				// Nothing was confirmed while nobody asked, or not since the store went away.
				waited = true
				if a.confirm(ctx) {
					r, ok = a.fallback(ctx, d)
				}
			}
			if ok {
				return r, nil
			}
			return a.unavailable(FromStore, o.err)
		case o.missing:
			return a.refuse(ctx, NotFound, FromStore), nil
		default:
			now = a.clock.read()
			r := Result{Verdict: o.entry.verdict(now), Source: FromStore, Principal: o.entry.valid.Principal}
			return a.answer(ctx, o.entry, r, now), nil
		}
	}
	return a.unavailable(FromStore, errors.New("the key was changed again and again while it was read"))
}

// cached judges by a cached entry. settled is false where the store has to be asked; then a Valid one only lacks its
// confirmation.
func (a *Authenticator) cached(e *entry, confirmed bool, now moment) (r Result, settled bool) {
	r = Result{Verdict: e.verdict(now), Source: FromNear, Cached: true}
	switch {
	case r.Verdict != Valid:
		// To refuse needs no confirmation.
		return r, now.mono < e.fresh
	case now.mono < e.fresh:
		r = e.valid
	case now.mono < e.stale && a.confirmed.storeDown():
		r = a.stale(e, now)
	default:
		return Result{}, false
	}
	return r, confirmed
}

// fallback answers from the cache after the store failed.
func (a *Authenticator) fallback(ctx context.Context, d *Digest) (Result, bool) {
	e, now, confirmed := a.find(d)
	if e == nil || !confirmed || e.verdict(now) != Valid || now.mono >= e.stale {
		return Result{}, false
	}
	return a.answer(ctx, e, a.stale(e, now), now), true
}

// stale is the answer by an entry while the store is down.
func (a *Authenticator) stale(e *entry, now moment) Result {
	r := e.valid
	r.Stale = now.mono >= e.fresh
	return r
}

// answer finishes a verdict about a known key.
func (a *Authenticator) answer(ctx context.Context, e *entry, r Result, now moment) Result {
	if r.Verdict != Valid {
		return a.refuse(ctx, r.Verdict, r.Source)
	}
	a.used(e, now)
	a.stats.count(Valid, r.Source)
	if r.Stale {
		a.stats.stale.Add(1)
	}
	return r
}

func (a *Authenticator) malformed(ctx context.Context) Result {
	return a.refuse(ctx, Malformed, FromKey)
}

// refuse finishes a verdict other than Valid and lets the client pay for it.
func (a *Authenticator) refuse(ctx context.Context, v Verdict, from Source) Result {
	a.stats.count(v, from)
	if a.cfg.FailureLimit != nil {
		if client, ok := ctx.Value(clientKey{}).(string); ok {
			a.cfg.FailureLimit(ctx, client, 1)
		}
	}
	return Result{Verdict: v, Source: from, Cached: from == FromNear}
}

func (a *Authenticator) mayTry(ctx context.Context) time.Duration {
	if a.cfg.FailureLimit == nil {
		return 0
	}
	client, ok := ctx.Value(clientKey{}).(string)
	if !ok {
		return 0
	}
	return a.cfg.FailureLimit(ctx, client, 0)
}

func (a *Authenticator) unavailable(from Source, cause error) (Result, error) {
	a.stats.count(Unavailable, from)
	return Result{Verdict: Unavailable, Source: from}, fmt.Errorf("%w: %w", ErrUnavailable, cause)
}

package auth

import (
	"context"
	"errors"
	"time"
)

var errBusy = errors.New("too many look-ups are waiting for the store")

// read reads a key from the shared cache or the store, or waits for a reading that is under way. own says that the
// reading began after the caller arrived, so that its outcome is as good as the caller's own. The error is ctx's, or
// ErrClosed.
func (a *Authenticator) read(ctx context.Context, d *Digest, arrived uint64, known bool) (o outcome, own bool, err error) {
	fl, lead := a.flights.join(d)
	if lead {
		digest := *d
		// In a goroutine of its own: others may wait for the outcome when this caller has given up.
		if !a.spawn(func() { a.fly(digest, fl, known) }) {
			a.flights.land(d, fl, outcome{err: ErrClosed})
		}
	} else {
		a.stats.coalesced.Add(1)
	}
	select {
	case <-fl.done:
		return fl.outcome, fl.began > arrived, nil
	case <-ctx.Done():
		return outcome{}, false, ctx.Err()
	}
}

// fly is one reading. What it has to keep for later is done after those who wait have their answer.
func (a *Authenticator) fly(d Digest, fl *flight, known bool) {
	ctx, cancel := context.WithTimeout(a.ctx, a.cfg.StoreTimeout)
	defer cancel()
	if !a.confirmed.begun() {
		// What is read before the first confirmation would be dropped by it.
		a.confirm(ctx)
	}
	if a.shared != nil && a.confirmed.load().fresh(a.clock.read()) && a.readShared(ctx, &d) {
		a.flights.land(&d, fl, outcome{shared: true})
		return
	}
	slots := a.calls
	if known {
		slots = a.callsKnown
	}
	select {
	case slots <- struct{}{}:
		defer func() { <-slots }()
	case <-ctx.Done():
		a.flights.land(&d, fl, outcome{err: errBusy})
		return
	}
	// The order matters: what is known is noted, then the store is read. A change that is learnt of after this line
	// is later than the note, and keeps the reading out of the caches.
	at, before := a.clock.read(), a.view.now()
	a.stats.storeReads.Add(1)
	k, err := a.store.Lookup(ctx, d)
	changed := func() bool { return a.view.changed(d.fingerprint(), before.clock) }
	switch {
	case errors.Is(err, ErrNotFound):
		kept := a.unknown.put(&d, at, changed)
		if kept {
			a.near.remove(d.fingerprint())
		}
		a.flights.land(&d, fl, outcome{missing: true, changed: !kept})
	case err != nil:
		a.stats.storeErrors.Add(1)
		a.storeRead.ask() // is it down? Nobody waits here for the answer
		a.flights.land(&d, fl, outcome{err: err})
	case !k.Digest.Equal(&d):
		// A store that compares loosely must not let in a key that merely resembles one.
		a.flights.land(&d, fl, outcome{missing: true})
	default:
		e := newEntry(&k, at, a.cfg.PositiveTTL, a.cfg.StaleTTL)
		kept := a.near.put(e, changed)
		a.flights.land(&d, fl, outcome{entry: e, changed: !kept})
		if kept {
			a.writeShared(&d, &k, at, before)
		}
	}
}

// readShared puts what the shared cache has of a key into the near one. It reports whether that is new enough to be
// used while the store is up; what is older is kept for when it is down.
func (a *Authenticator) readShared(ctx context.Context, d *Digest) bool {
	ctx, cancel := context.WithTimeout(ctx, sharedTimeout)
	defer cancel()
	b, ok, err := a.shared.Get(ctx, a.sharedKey(d))
	if err != nil {
		a.stats.sharedErrors.Add(1)
	}
	if !ok || err != nil {
		return false
	}
	k, read, known, err := decodeShared(b, d)
	if err != nil {
		a.stats.sharedErrors.Add(1)
		return false
	}
	at := a.clock.read()
	at.mono -= max(0, at.wall-read.UnixNano()) // a clock ahead of ours makes it new, not young
	e := newEntry(&k, at, a.cfg.PositiveTTL, a.cfg.StaleTTL)
	now := a.clock.read().mono
	if now >= e.stale {
		return false
	}
	f := d.fingerprint()
	if !a.near.fits(e) || !a.near.put(e, func() bool { return !a.view.vouches(f, known) }) {
		return false
	}
	a.stats.sharedHits.Add(1)
	return now < e.fresh
}

// writeShared hands a key to the other members.
func (a *Authenticator) writeShared(d *Digest, k *Key, at moment, known knowledge) {
	ttl := a.cfg.PositiveTTL + a.cfg.StaleTTL
	if !k.ExpiresAt.IsZero() {
		ttl = min(ttl, k.ExpiresAt.Sub(time.Unix(0, at.wall)))
	}
	if a.shared == nil || ttl < time.Millisecond {
		return
	}
	b, err := encodeShared(k, time.Unix(0, at.wall), known)
	if err == nil {
		ctx, cancel := context.WithTimeout(a.ctx, sharedTimeout)
		defer cancel()
		err = a.shared.Set(ctx, a.sharedKey(d), b, ttl)
	}
	if err != nil {
		a.stats.sharedErrors.Add(1)
	}
}

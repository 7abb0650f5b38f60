package cache

import (
	"context"
	"errors"
	"time"
)

// Loader loads a value. It returns [ErrNotFound], or an error that wraps it,
// where there is none.
type Loader[V any] func(ctx context.Context) (V, error)

// GetOrLoad returns what key holds, or else what load returns, which is then
// stored for ttl. Of the callers of one key on a member one loads, the others
// wait for it; the load's context is its own, bounded by Config.LoadTimeout, and
// ends early when nobody waits any more.
//
// A load that says [ErrNotFound] is remembered on this member for
// Config.NegativeTTL; other errors are not, they are given to all that waited.
//
// A write or delete while the load is under way wins: the loaded value is
// returned to those who waited for it already, and not stored.
func (c *Cache[V]) GetOrLoad(ctx context.Context, key string, ttl time.Duration, load Loader[V]) (v V, err error) {
	if v, ok := c.nearby(key); ok {
		c.stats.nearHits.Add(1)
		return v, nil
	}
	if err := c.check(key); err != nil {
		return v, err
	}
	if err := checkTTL(ttl); err != nil {
		return v, err
	}
	if _, ok := c.negative.Get(key); ok {
		c.stats.negativeHits.Add(1)
		return v, ErrNotFound
	}
	defer c.observe("load", time.Now())
	v, shared, err := c.loads.do(ctx, key, c.cfg.Timeout+c.cfg.LoadTimeout, func(ctx context.Context) (V, error) {
		return c.loadShared(ctx, key, ttl, load)
	})
	if shared {
		c.stats.coalesced.Add(1)
	}
	return v, err
}

// loadShared runs once for all callers of a key.
func (c *Cache[V]) loadShared(ctx context.Context, key string, ttl time.Duration, load Loader[V]) (v V, err error) {
	// Both are taken before the store is asked, which is before the loader
	// looks: whatever is written from here on differs from them.
	gen, negativeGen := c.near.Generation(key), c.negative.Generation(key)
	since := c.kv.Now()
	if _, ok := c.negative.Get(key); ok {
		c.stats.negativeHits.Add(1)
		return v, ErrNotFound
	}
	// Half of the time for each of the two calls, so that a load that is quick
	// is not held up for longer than Config.Timeout in all.
	g, err := c.ask(ctx, key, c.cfg.Timeout/2)
	if err != nil || g.ok {
		return g.v, err
	}
	c.stats.loads.Add(1)
	lctx, cancel := context.WithTimeout(ctx, c.cfg.LoadTimeout)
	defer cancel()
	if v, err = load(lctx); err != nil {
		if errors.Is(err, ErrNotFound) {
			c.negative.Put(key, negativeGen, struct{}{}, 0, c.cfg.NegativeTTL)
		} else {
			c.stats.loadErrors.Add(1)
		}
		return v, err
	}
	b, err := c.encode(v)
	if err != nil {
		return v, err
	}
	c.negative.Drop(key)
	if !g.failed { // or it is known not to answer
		fctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout/2)
		defer cancel()
		if err := c.kv.Fill(fctx, c.stored(key), b, ttl, since); err != nil {
			if err := c.swallow(fctx, err); errors.Is(err, ErrWrongKind) {
				return v, err
			}
		}
	}
	c.near.Put(key, gen, v, len(b), min(ttl, c.cfg.NearTTL))
	return v, nil
}

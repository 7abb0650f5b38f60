package cache

import "sync/atomic"

type counters struct {
	nearHits, hits, misses, errors, open    atomic.Uint64
	negativeHits, loads, loadErrors         atomic.Uint64
	coalesced, sets, deletes, droppedWrites atomic.Uint64
	invalidations, unreached, nearDropped   atomic.Uint64
	undecodable                             atomic.Uint64
}

// Stats counts what a cache did on this member since it was made.
type Stats struct {
	// How reads were answered: from near, by the shared store, by it with
	// nothing; not, because it failed, or because its breaker was open.
	NearHits, Hits, Misses, Errors, Open uint64
	// NegativeHits are loads that were spared because there was nothing to load
	// a moment before; Loads and LoadErrors those that were made and that failed.
	NegativeHits, Loads, LoadErrors uint64
	// Coalesced are calls that shared another one's work.
	Coalesced uint64
	// Sets and Deletes are calls; DroppedWrites those among them that the
	// shared store did not take, and Owed how many it is still to be told of.
	Sets, Deletes, DroppedWrites uint64
	Owed                         int
	// Invalidations were heard, this member's own among them; Unreached counts
	// the members that did not acknowledge this one's.
	Invalidations, Unreached uint64
	// NearDropped is how often everything near was dropped, because this member
	// was cut off, stood still, or others came.
	NearDropped uint64
	// Undecodable are values that the codec refused.
	Undecodable uint64
	// NearKeys and NearBytes are what is near now.
	NearKeys  int
	NearBytes int64
	// Breaker is the shared store's: closed, half-open or open.
	Breaker string
}

// Stats returns what the cache did.
func (c *Cache[V]) Stats() Stats {
	s := &c.stats
	keys, bytes := c.near.Size()
	return Stats{
		NearHits: s.nearHits.Load(), Hits: s.hits.Load(), Misses: s.misses.Load(),
		Errors: s.errors.Load(), Open: s.open.Load(),
		NegativeHits: s.negativeHits.Load(), Loads: s.loads.Load(), LoadErrors: s.loadErrors.Load(),
		Coalesced: s.coalesced.Load(),
		Sets:      s.sets.Load(), Deletes: s.deletes.Load(), DroppedWrites: s.droppedWrites.Load(),
		Owed:          len(c.graves.debts()),
		Invalidations: s.invalidations.Load(), Unreached: s.unreached.Load(),
		NearDropped: s.nearDropped.Load(), Undecodable: s.undecodable.Load(),
		NearKeys: keys, NearBytes: bytes,
		Breaker: c.kv.BreakerState(),
	}
}

// Healthy tells whether the shared store answers. The cache works either way.
func (c *Cache[V]) Healthy() bool { return c.kv.Healthy() }

// BreakerState returns the state of the breaker before the shared store, which
// all caches of a member have in common: closed, half-open or open.
func (c *Cache[V]) BreakerState() string { return c.kv.BreakerState() }

// ResetBreaker closes that breaker at once.
func (c *Cache[V]) ResetBreaker() { c.kv.ResetBreaker() }

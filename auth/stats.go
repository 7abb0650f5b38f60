package auth

import "sync/atomic"

// counters count what is not on the path of a near hit; those are counted by the near cache's shards.
type counters struct {
	verdicts [verdicts][sources]atomic.Uint64

	stale, throttled, coalesced                       atomic.Uint64
	storeReads, storeErrors, sharedErrors, sharedHits atomic.Uint64
	confirmFailures, drops, changes                   atomic.Uint64
}

func (c *counters) count(v Verdict, s Source) { c.verdicts[v][s].Add(1) }

// Stats are counts since the Authenticator was made.
type Stats struct {
	// Verdicts by verdict and source; only those above zero.
	Verdicts map[Verdict]map[Source]uint64
	// StaleServed are the Valid ones that stood only because the store was down.
	StaleServed uint64
	// Throttled verifications were refused by Config.FailureLimit; they are among the Unavailable ones.
	Throttled uint64
	// Coalesced verifications waited for another's reading of the same key.
	Coalesced uint64
	// StoreErrors are look-ups that failed; SharedErrors failures of the shared cache, and unusable values in it.
	StoreErrors, SharedErrors uint64
	// ConfirmFailures are readings of the cluster's record of changes that failed.
	ConfirmFailures uint64
	// Changes is how many changes of keys this member heard of; Drops how often it had missed some and dropped all
	// that was cached (twice at the start, when it reads the records for the first time).
	Changes, Drops uint64
}

// Stats returns the counts.
func (a *Authenticator) Stats() Stats {
	c := &a.stats
	s := Stats{
		Verdicts:    map[Verdict]map[Source]uint64{},
		StaleServed: c.stale.Load(), Throttled: c.throttled.Load(), Coalesced: c.coalesced.Load(),
		StoreErrors: c.storeErrors.Load(), SharedErrors: c.sharedErrors.Load(),
		ConfirmFailures: c.confirmFailures.Load(), Changes: c.changes.Load(), Drops: c.drops.Load(),
	}
	for v := range c.verdicts {
		for from := range c.verdicts[v] {
			n := c.verdicts[v][from].Load()
			if Verdict(v) == Valid && Source(from) == FromNear {
				n += a.near.hits()
			}
			if n == 0 {
				continue
			}
			if s.Verdicts[Verdict(v)] == nil {
				s.Verdicts[Verdict(v)] = map[Source]uint64{}
			}
			s.Verdicts[Verdict(v)][Source(from)] = n
		}
	}
	return s
}

// CacheStats is the state of the caches on this member.
type CacheStats struct {
	// Known keys in the near cache, and about how many bytes they take; Evicted had to go for others.
	Known      int    `json:"known"`
	KnownBytes int64  `json:"known_bytes"`
	Evicted    uint64 `json:"evicted"`
	// Unknown keys that are remembered as such.
	Unknown int `json:"unknown"`
	// NearHits were answered from the near cache. SharedHits and StoreReads are readings for all who waited for them.
	NearHits   uint64 `json:"near_hits"`
	SharedHits uint64 `json:"shared_hits"`
	StoreReads uint64 `json:"store_reads"`
	// StaleServed stood only because the store was down.
	StaleServed uint64 `json:"stale_served"`
	// Confirmed: what is cached may be used now. It is false while nothing is verified.
	Confirmed bool `json:"confirmed"`
	// StoreDown: the store did not answer when it was last asked for changes.
	StoreDown bool `json:"store_down"`
}

// CacheStats looks at the caches.
func (a *Authenticator) CacheStats() CacheStats {
	s := CacheStats{
		Unknown: a.unknown.size(), NearHits: a.near.hits(), SharedHits: a.stats.sharedHits.Load(),
		StaleServed: a.stats.stale.Load(), Confirmed: a.confirmed.load().fresh(a.clock.read()),
		StoreDown: a.confirmed.storeDown(), StoreReads: a.stats.storeReads.Load(),
	}
	s.Known, s.KnownBytes, s.Evicted = a.near.size()
	for v := range a.stats.verdicts {
		s.NearHits += a.stats.verdicts[v][FromNear].Load()
	}
	return s
}

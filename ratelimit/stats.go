package ratelimit

// Stats is a limiter's state on this member.
type Stats struct {
	// Keys that have something used, and of which this member is the holder.
	Keys int
	// Copies are keys that this member keeps for another.
	Copies int
	// EvictedLive counts keys that were forgotten because there were more than
	// Config.MaxKeys.
	EvictedLive uint64
	// NewKeysCapped counts decisions in a bucket that made-up keys share; see
	// Config.NewKeysPerMinute.
	NewKeysCapped uint64
	// Degraded is how many policies are degraded now.
	Degraded int
	// Policies that are stored.
	Policies int
	// Leases are what this member has borrowed from others.
	Leases LeaseStats
}

// LeaseStats says what a member decided about keys that others hold. Permits of
// slices that are in use are counted when those end.
type LeaseStats struct {
	// Keys that this member hands out permits of now.
	Keys int
	// Granted permits were lent to it, HandedOut of them were used, Returned
	// went back unused, and Expired were neither, because they could not be
	// given back in time.
	Granted, HandedOut, Returned, Expired uint64
	// Recalled counts how often permits were asked back.
	Recalled uint64
	// Denied decisions were made from memory.
	Denied uint64
}

// Stats walks over all keys; it is meant for a look now and then.
func (l *Limiter) Stats() Stats {
	if l.fake != realLimiter {
		return Stats{}
	}
	t := l.table.Stats()
	return Stats{
		Keys:          t.Held,
		Copies:        t.Entries - t.Held,
		EvictedLive:   t.EvictedLive,
		NewKeysCapped: l.newKeys.capped.Load(),
		Degraded:      int(l.degraded.count.Load()),
		Policies:      len(l.StoredPolicies()),
		Leases:        l.borrower.stats(),
	}
}

func (b *borrower) stats() (s LeaseStats) {
	if b == nil {
		return s
	}
	c := &b.counts
	s = LeaseStats{
		Keys: int(b.loans.n.Load()), Granted: c.granted.Load(), HandedOut: c.handedOut.Load(),
		Returned: c.returned.Load(), Expired: c.expired.Load(), Recalled: c.recalled.Load(),
	}
	for i := range c.denied {
		s.Denied += c.denied[i].n.Load()
	}
	return s
}

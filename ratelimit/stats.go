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
	}
}

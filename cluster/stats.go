package cluster

import (
	"time"

	"github.com/peerlimit/peerlimit/cluster/internal/peer"
)

// Stats are a member's figures for monitoring. Counters count from its start.
type Stats struct {
	// Members are alive or draining, as far as this one knows; it is one of them.
	Members int
	// RingVersion is a hash of who should hold which slot: the same on all
	// members, unless they differ in whom they see.
	RingVersion uint64
	Possession
	// UnprotectedEntries are entries that no other member has a full copy of:
	// they would be lost, or taken back some changes, with this member.
	UnprotectedEntries int
	// ReplicationLag is how long the oldest change that a backup has not
	// acknowledged has waited, in the queue and on its way; 0 where there is
	// none. The Timings.CopyEvery for which changes gather before are not in it.
	ReplicationLag time.Duration
	// Breakers are those of the peers, by node ID, and "kv".
	Breakers map[string]BreakerStats
	// FramesRejected counts what was refused on the peer port, by reason; each
	// reason that there is has its place.
	FramesRejected map[string]uint64
}

// Stats gathers the figures. It counts the entries of slots that are not
// protected, so it is meant for a look every few seconds; no operation waits
// for it for longer than for a look at one slot.
func (n *Node) Stats() Stats {
	s := Stats{
		RingVersion:    n.ring.Load().Version(),
		Possession:     n.owner.possession(),
		Breakers:       make(map[string]BreakerStats),
		FramesRejected: n.peers.Stats().Rejected,
	}
	s.UnprotectedEntries, s.ReplicationLag = n.owner.copies()
	for _, reason := range peer.Reasons() {
		s.FramesRejected[reason] += 0
	}
	now := time.Now()
	for _, m := range n.Members() {
		s.Members++
		if m.Boot == n.boot {
			continue
		}
		// Two lives of one node may be listed for a moment.
		boot := peer.Boot(m.Boot)
		one := n.breakers.stats(boot, n.peers.BreakerState(boot).String(), now)
		s.Breakers[m.Name] = s.Breakers[m.Name].and(one)
	}
	s.Breakers["kv"] = n.kv.BreakerStats().BreakerStats
	return s
}

// and is what two breakers of one name did together; the later one's state
// counts.
func (s BreakerStats) and(later BreakerStats) BreakerStats {
	later.Opened += s.Opened
	later.HalfOpened += s.HalfOpened
	later.Closed += s.Closed
	later.OpenFor += s.OpenFor
	return later
}

// copies returns how many entries of this member have no full copy, and how far
// their backups are behind.
func (o *owner) copies() (unprotected int, lag time.Duration) {
	var bare map[uint16]bool
	o.mu.Lock()
	now := o.clock.now()
	o.machine.Held(func(slot uint16, _ uint64, protected bool) {
		if !protected {
			if bare == nil {
				bare = make(map[uint16]bool)
			}
			bare[slot] = true
		}
	})
	lag = time.Duration(o.machine.Lag(now))
	tables := o.tables.list
	o.mu.Unlock()
	if bare == nil {
		return 0, lag
	}
	for _, t := range tables {
		unprotected += t.Len(now, func(slot uint16) bool { return bare[slot] })
	}
	return unprotected, lag
}

package cluster

import (
	"sync"
	"time"

	"github.com/peerlimit/peerlimit/cluster/internal/peer"
)

// BreakerStats counts what a breaker did.
type BreakerStats struct {
	State string // closed, half-open or open
	// Opened, HalfOpened and Closed count changes to that state.
	Opened, HalfOpened, Closed uint64
	// OpenFor is how long it was open or half-open in all.
	OpenFor time.Duration
}

// breakerCounts gathers a BreakerStats from a breaker's changes, which come in
// order. Its owner guards it.
type breakerCounts struct {
	BreakerStats
	left time.Time // when the breaker left the state closed; zero: it is closed
}

// changed notes that the breaker is in the state of that name since at.
func (c *breakerCounts) changed(to string, at time.Time) {
	switch to {
	case "open":
		c.Opened++
		if c.left.IsZero() {
			c.left = at
		}
	case "half-open":
		c.HalfOpened++
	case "closed":
		c.Closed++
		c.OpenFor += at.Sub(c.left)
		c.left = time.Time{}
	}
}

// stats returns the counts of a breaker that is in that state now.
func (c *breakerCounts) stats(state string, now time.Time) BreakerStats {
	s := c.BreakerStats
	s.State = state
	if !c.left.IsZero() {
		s.OpenFor += now.Sub(c.left)
	}
	return s
}

// peerBreakers counts the changes of peers' breakers, while they are members.
type peerBreakers struct {
	mu    sync.Mutex
	peers map[peer.Boot]*breakerCounts // guarded by mu; those with changes
}

// note counts a change.
func (b *peerBreakers) note(c peer.BreakerChange) {
	b.mu.Lock()
	defer b.mu.Unlock()
	counts := b.peers[c.Boot]
	if counts == nil {
		if b.peers == nil {
			b.peers = make(map[peer.Boot]*breakerCounts)
		}
		counts = new(breakerCounts)
		b.peers[c.Boot] = counts
	}
	counts.changed(c.To.String(), c.At)
}

// keep forgets those that are no members any more.
func (b *peerBreakers) keep(listed map[peer.Boot]peer.Peer) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for boot := range b.peers {
		if _, ok := listed[boot]; !ok {
			delete(b.peers, boot)
		}
	}
}

func (b *peerBreakers) stats(of peer.Boot, state string, now time.Time) BreakerStats {
	b.mu.Lock()
	defer b.mu.Unlock()
	if counts := b.peers[of]; counts != nil {
		return counts.stats(state, now)
	}
	return BreakerStats{State: state}
}

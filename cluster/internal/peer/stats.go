package peer

import (
	"cmp"
	"slices"
	"sync/atomic"
)

// Stats are counters since the transport was made, and gauges.
type Stats struct {
	FramesSent, FramesReceived uint64
	BytesSent, BytesReceived   uint64
	Writes, Reads              uint64            // FramesSent / Writes is how well sends are packed
	Rejected                   map[string]uint64 // connections and frames refused, by reason (Reasons)

	Connections     int // of lanes
	Streams         int
	Unauthenticated int // have not yet said a valid hello
	Peers           []PeerStats
}

// PeerStats is how things stand with one peer.
type PeerStats struct {
	Boot      Boot
	Node      string
	Addr      string // empty: not named by membership
	Connected []Lane
	Gone      bool
	Breaker   BreakerState
	InFlight  int // calls waiting for its answer
	Queued    int // bytes waiting to be written to it
}

type counts struct {
	framesSent, framesReceived, bytesSent, bytesReceived, writes, reads atomic.Uint64
}

func (c *counts) sent(frames, bytes int) {
	c.framesSent.Add(uint64(frames))
	c.bytesSent.Add(uint64(bytes))
	c.writes.Add(1)
}

func (c *counts) received(frames, bytes int) {
	c.framesReceived.Add(uint64(frames))
	c.bytesReceived.Add(uint64(bytes))
	c.reads.Add(1)
}

// Stats returns the counters and gauges. Peers are in the order of their node IDs.
func (t *Transport) Stats() Stats {
	s := Stats{
		FramesSent: t.counts.framesSent.Load(), FramesReceived: t.counts.framesReceived.Load(),
		BytesSent: t.counts.bytesSent.Load(), BytesReceived: t.counts.bytesReceived.Load(),
		Writes: t.counts.writes.Load(), Reads: t.counts.reads.Load(),
		Rejected:        t.rejected.snapshot(),
		Streams:         t.streams.count(),
		Unauthenticated: t.gate.size(),
	}
	for _, p := range *t.peers.Load() {
		ps := p.stats()
		for _, l := range p.links {
			s.Connections += len(l.snapshot())
		}
		s.Peers = append(s.Peers, ps)
	}
	slices.SortFunc(s.Peers, func(a, b PeerStats) int {
		return cmp.Or(cmp.Compare(a.Node, b.Node), cmp.Compare(a.Boot, b.Boot))
	})
	return s
}

func (p *member) stats() PeerStats {
	info := p.info.Load()
	s := PeerStats{
		Boot: p.boot, Node: info.Node, Addr: info.Addr, Gone: p.gone.Load(),
		Breaker: p.breaker.state(), InFlight: p.calls.count(),
	}
	for _, l := range p.links {
		conns := l.snapshot()
		if len(conns) > 0 {
			s.Connected = append(s.Connected, l.lane)
		}
		for _, c := range conns {
			s.Queued += c.queued()
		}
		l.mu.Lock()
		s.Queued += l.queued
		l.mu.Unlock()
	}
	return s
}

// Connected says whether frames to the peer on that lane would leave at once.
func (t *Transport) Connected(to Boot, lane Lane) bool {
	p := t.peer(to)
	if p == nil || lane >= laneCount {
		return false
	}
	c := p.links[lane].cur.Load()
	return c != nil && !c.dead()
}

func (s *streams) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.open)
}

package cluster

import (
	"fmt"
	"time"

	"github.com/peerlimit/peerlimit/cluster/internal/peer"
	"github.com/peerlimit/peerlimit/cluster/internal/ring"
)

// Status is a member's view of its cluster, as GET /v1/cluster shows it.
type Status struct {
	Name       string            `json:"name"`       // of the cluster
	Self       string            `json:"self"`       // this member's name
	Boot       string            `json:"boot"`       // its boot ID, in hexadecimal
	Ready      bool              `json:"ready"`      // it serves
	Reason     string            `json:"reason"`     // why it does not; empty if it does
	Joined     string            `json:"joined"`     // joining, refused, alone, no seed answered, joined
	Short      bool              `json:"short"`      // fewer members than MinMembers are alive
	Members    []MemberStatus    `json:"members"`    // alive or draining, this one included, by name
	Ring       RingStatus        `json:"ring"`       // who should hold which slot
	Possession Possession        `json:"possession"` // what this member serves
	Breakers   map[string]string `json:"breakers"`   // of peers, by name: closed, half-open, open
	KV         KVStatus          `json:"kv"`         // the store of values that can be loaded again
	UptimeMS   int64             `json:"uptime_ms"`  // since Start

	// FramesRejected counts what was refused on the peer port, by reason.
	FramesRejected map[string]uint64 `json:"frames_rejected"`
}

// MemberStatus is one member in a Status.
type MemberStatus struct {
	Name       string      `json:"name"`
	Boot       string      `json:"boot"`
	State      MemberState `json:"state"`
	Zone       string      `json:"zone"`
	Version    string      `json:"version"`
	Peer       string      `json:"peer"`
	OwnedSlots int         `json:"owned_slots"`
}

// RingStatus is the ring in a Status. Members whose versions differ for long
// are split.
type RingStatus struct {
	Version string `json:"version"` // hexadecimal: it has 64 bits, more than a JSON number holds
	Slots   int    `json:"slots"`
}

// KVStatus is the key-value store in a Status.
type KVStatus struct {
	State   string `json:"state"`
	Breaker string `json:"breaker"`
	Gossip  string `json:"gossip"` // where its gossip is received
}

// Status returns this member's view of its cluster.
func (n *Node) Status() Status {
	r := n.ring.Load()
	state, _ := n.members.Join()
	s := Status{
		Name:       n.cfg.ClusterName,
		Self:       n.cfg.NodeID,
		Boot:       bootText(n.boot),
		Joined:     state.String(),
		Ring:       RingStatus{Version: fmt.Sprintf("%016x", r.Version()), Slots: ring.Slots},
		Breakers:   make(map[string]string),
		KV:         n.kvStatus(),
		Possession: n.owner.possession(),
		UptimeMS:   time.Since(n.started).Milliseconds(),

		FramesRejected: n.peers.Stats().Rejected,
	}
	if err := n.Ready(); err != nil {
		s.Reason = err.Error()
	} else {
		s.Ready = true
	}
	alive := 0
	for _, m := range n.Members() {
		if m.State == StateAlive {
			alive++
		}
		s.Members = append(s.Members, MemberStatus{
			Name: m.Name, Boot: bootText(m.Boot), State: m.State, Zone: m.Zone, Version: m.Version,
			Peer: m.Peer, OwnedSlots: r.OwnedCount(ring.Boot(m.Boot)),
		})
		if m.Boot != n.boot {
			s.Breakers[m.Name] = n.peers.BreakerState(peer.Boot(m.Boot)).String()
		}
	}
	s.Short = alive < n.cfg.MinMembers
	return s
}

package cluster

import (
	"fmt"

	"github.com/peerlimit/peerlimit/cluster/internal/membership"
)

// A Member is one process life of a node.
type Member struct {
	Name    string      // the node ID, the same after a restart
	Boot    uint64      // names this life; a process that comes back has another
	State   MemberState // as this member knows it
	Zone    string      // failure domain, may be empty
	Version string      // of its software
	Gossip  string      // host:port
	Peer    string      // host:port for calls
}

// MemberState is what a member is doing.
type MemberState string

// The states of a member.
const (
	StateAlive    MemberState = "alive"
	StateDraining MemberState = "draining" // alive, hands over and will leave
	StateLeft     MemberState = "left"     // said goodbye
	StateDead     MemberState = "dead"     // seen to have died
)

// String returns name and boot ID, which together are unique.
func (m Member) String() string { return membership.NameOf(m.Name, m.Boot) }

func memberFrom(m membership.Member) Member {
	out := Member{
		Name: m.ID, Boot: m.Boot, State: MemberState(m.State.String()),
		Zone: m.Zone, Version: m.Version, Peer: m.Peer,
	}
	if m.Gossip.IsValid() {
		out.Gossip = m.Gossip.String()
	}
	return out
}

// bootText is how logs and status show a boot ID.
func bootText(boot uint64) string { return fmt.Sprintf("%016x", boot) }

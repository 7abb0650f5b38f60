package membership

import (
	"time"

	"github.com/hashicorp/memberlist"
)

// Timings of the failure detection. They are all set here, none is inherited
// from memberlist's presets.
//
// With n members, each probes another every probeInterval. A member that has
// died is probed within (n-1) × probeInterval by each of the others, so by the
// first of them within about one interval; the probe fails one interval later;
// the suspicion then runs for suspicionMult × max(1, log10 n) intervals. That
// makes 1.6 to 2.4 s with 3 members, up to 2.7 s with 30 and 3.3 s with 100. A
// member has to be silent for at least 1.6 s to be taken for dead: a stall of
// 500 ms leaves it more than a second to hear of the suspicion and refute it.
//
// A suspicion is not made to wait for other members' confirmation
// (suspicionMaxTimeoutMult is 1): with few members there often is nobody to
// confirm, and that would double the time.
//
// At rest a member sends 2.5 probes a second and as many answers, about 100
// bytes each.
const (
	probeInterval           = 400 * time.Millisecond
	probeTimeout            = 200 * time.Millisecond
	suspicionMult           = 3
	suspicionMaxTimeoutMult = 1
	indirectChecks          = 2
	awarenessMax            = 3 // a member that is slow itself probes up to 3 times as slowly

	// News reach 30 members in about log4(30) + 2 rounds, under 200 ms. A
	// round with no news sends nothing.
	gossipInterval = 40 * time.Millisecond
	gossipNodes    = 4
	retransmitMult = 4

	// What gossip lost, a full exchange with a random member repairs.
	pushPullInterval = 10 * time.Second

	// The dead are told that they are dead for so long, so that one that was
	// only asleep can say so.
	gossipToTheDead = 30 * time.Second

	// A stream must be done in this time: a join, a full exchange, a probe by
	// TCP.
	streamTimeout = 2 * time.Second
)

func (c Config) memberlist() *memberlist.Config {
	return &memberlist.Config{
		Name:                    NameOf(c.Meta.ID, c.Boot),
		Label:                   label(c.Cluster),
		ProtocolVersion:         memberlist.ProtocolVersionMax,
		TCPTimeout:              streamTimeout,
		IndirectChecks:          indirectChecks,
		RetransmitMult:          retransmitMult,
		SuspicionMult:           suspicionMult,
		SuspicionMaxTimeoutMult: suspicionMaxTimeoutMult,
		PushPullInterval:        pushPullInterval,
		ProbeInterval:           probeInterval,
		ProbeTimeout:            probeTimeout,
		AwarenessMaxMultiplier:  awarenessMax,
		GossipInterval:          gossipInterval,
		GossipNodes:             gossipNodes,
		GossipToTheDeadTime:     gossipToTheDead,
		GossipVerifyIncoming:    true,
		GossipVerifyOutgoing:    true,
		EnableCompression:       false, // packets are small
		HandoffQueueDepth:       1024,
		UDPBufferSize:           1400,
		QueueCheckInterval:      30 * time.Second,
		DNSConfigPath:           "/etc/resolv.conf", // not read: only addresses are passed on
	}
}

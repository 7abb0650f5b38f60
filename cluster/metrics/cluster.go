package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/peerlimit/peerlimit/cluster"
)

// breakerStates are the numbers of a breaker's states.
var breakerStates = map[string]float64{"closed": 0, "half-open": 1, "open": 2}

func collectNode(to chan<- prometheus.Metric, s cluster.Stats) {
	to <- members.with(float64(s.Members))
	to <- ringVersion.with(float64(s.RingVersion >> 16)) // 48 bits are exact in a float64
	to <- possessedSlots.with(float64(s.Slots))
	to <- unprotectedEntries.with(float64(s.UnprotectedEntries))
	to <- replicationLag.with(s.ReplicationLag.Seconds())
	to <- moves.with(float64(s.Moves))
	to <- takeovers.with(float64(s.TakeOvers))
	for reason, n := range s.FramesRejected {
		to <- framesRejected.with(float64(n), reason)
	}
	for name, b := range s.Breakers {
		to <- breakerState.with(breakerStates[b.State], name)
		to <- breakerTransitions.with(float64(b.Closed), name, "closed")
		to <- breakerTransitions.with(float64(b.HalfOpened), name, "half-open")
		to <- breakerTransitions.with(float64(b.Opened), name, "open")
		to <- breakerOpenSeconds.with(b.OpenFor.Seconds(), name)
	}
}

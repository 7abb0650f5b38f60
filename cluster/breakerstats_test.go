package cluster

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/peerlimit/peerlimit/cluster/internal/peer"
)

func TestPeerBreakersAreCounted(t *testing.T) {
	start := time.Now()
	at := func(s int) time.Time { return start.Add(time.Duration(s) * time.Second) }
	var b peerBreakers
	for _, c := range []struct {
		after int
		to    peer.BreakerState
	}{
		{0, peer.BreakerOpen}, {10, peer.BreakerHalfOpen}, {11, peer.BreakerOpen}, {21, peer.BreakerHalfOpen},
		{22, peer.BreakerClosed}, {30, peer.BreakerOpen},
	} {
		b.note(peer.BreakerChange{Boot: 1, Name: "a", To: c.to, At: at(c.after)})
	}
	b.note(peer.BreakerChange{Boot: 2, Name: "b", To: peer.BreakerOpen, At: at(40)})
	assert.Equal(t, BreakerStats{State: "open", Opened: 3, HalfOpened: 2, Closed: 1, OpenFor: 27 * time.Second},
		b.stats(1, "open", at(35)), "22 s, and 5 s since it opened again")
	assert.Equal(t, BreakerStats{State: "closed"}, b.stats(3, "closed", at(35)), "one that never changed")

	b.keep(map[peer.Boot]peer.Peer{1: {}, 3: {}})
	assert.Equal(t, uint64(3), b.stats(1, "open", at(41)).Opened)
	assert.Equal(t, BreakerStats{State: "closed"}, b.stats(2, "closed", at(41)), "no member any more")

	both := BreakerStats{State: "open", Opened: 1, OpenFor: time.Second}.and(BreakerStats{State: "closed", Opened: 2, HalfOpened: 1, Closed: 2, OpenFor: time.Second})
	assert.Equal(t, BreakerStats{State: "closed", Opened: 3, HalfOpened: 1, Closed: 2, OpenFor: 2 * time.Second}, both)
}

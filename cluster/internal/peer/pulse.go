package peer

import (
	"errors"
	"time"
)

// pulseEvery is how often connections are looked at: at multiples of it by the wall clock, so that members whose
// clocks agree send their pings at the same time, and with every other beat of possession (30 ms). A member at rest is
// woken once for all of them.
const pulseEvery = 60 * time.Millisecond

func untilPulse() time.Duration {
	return pulseEvery - time.Duration(time.Now().UnixNano()%int64(pulseEvery))
}

var (
	errSilent = errors.New("silent for too long")
	errStuck  = errors.New("takes nothing for too long")
	errUnused = errors.New("unused, and not a member")
	errClung  = errors.New("was told that it is to end, and went on")
)

// watch is what the pulse remembers of a connection. Time is counted in beats of this process: a process that was
// stopped misses beats, so that its own sleep is not taken for the others' silence.
type watch struct {
	reads, writes, received uint64
	silent, stuck, unused   int // beats
	leaving                 int // since leave was taken
}

// ownGap is how late a beat of this process may be; a later one means that it did not run for a while.
const ownGap = 2 * pulseEvery

// stoodStill says whether this process did not run for a while since then, so that others may have answered what it
// had no chance to read.
func (t *Transport) stoodStill(since time.Time) bool {
	return time.Since(t.born)-time.Duration(t.lastBeat.Load()) > pulseEvery+ownGap ||
		time.Duration(t.lastGap.Load()) > since.Sub(t.born)
}

// pulse pings connections on which nothing arrives and ends those that stay silent, until the transport closes.
func (t *Transport) pulse() {
	timer := time.NewTimer(untilPulse())
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
			timer.Reset(untilPulse())
		case <-t.ctx.Done():
			return
		}
		now := int64(time.Since(t.born))
		if now-t.lastBeat.Swap(now) > int64(pulseEvery+ownGap) {
			t.lastGap.Store(now)
		}
		for _, p := range *t.peers.Load() {
			p.breaker.state() // so that an open one is half-open, and says so, when its time has come
			for _, l := range p.links {
				for _, c := range l.snapshot() {
					c.beat()
				}
			}
		}
	}
}

// beat looks at one connection.
func (c *conn) beat() {
	w, cfg := &c.watch, &c.t.cfg
	most := int(cfg.Silence / pulseEvery)
	if c.link.lane == LaneBulk || c.link.lane == LaneCalls {
		most *= 5
	}

	w.silent++
	if n := c.reads.Load(); n != w.reads {
		w.reads, w.silent = n, 0
	}
	w.stuck++
	if n := c.writes.Load(); n != w.writes || n%2 == 0 {
		w.writes, w.stuck = n, 0
	}
	w.unused++
	if n := c.received.Load(); n != w.received || c.link.peer.listed.Load() {
		w.received, w.unused = n, 0
	}

	dead := c.dead()
	if dead {
		w.leaving++
	}

	switch {
	case w.leaving > leaveBeats:
		c.fail(errClung)
	case dead: // it has its last frames to write
	case w.silent >= most:
		c.fail(errSilent)
	case w.stuck >= most:
		c.fail(errStuck)
	case w.unused >= int(cfg.UnlistedIdle/pulseEvery):
		c.fail(errUnused)
	case w.silent > 0 && w.silent%max(1, most/4) == 0:
		c.pushUrgent(typePing, 0)
	}
}

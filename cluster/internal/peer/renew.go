package peer

import (
	"context"
	"slices"
	"time"
)

// A connection whose other side is no longer accepted is replaced while it is in use. A new one is made first. Then
// each of the two sides takes leave of the old one: it says so by a ping with an ID of its own, the last frame it sends
// there, and keeps what it has to send from then on until the pong says that all before has been read. So frames keep
// their order, and none is lost. A member that does not know what the ping means answers it all the same.

// leave is the ID of the ping that takes leave, and of its pong; others have 0.
const leave = 1

// leaveBeats is how many beats of the pulse leave may take.
const leaveBeats = 3

// withdraw ends what is no longer accepted: connections once others have taken their place, streams at once.
func (t *Transport) withdraw() {
	for _, p := range *t.peers.Load() {
		for _, l := range p.links {
			l.renewIfNeeded()
		}
	}
	t.streams.closeIf(func(s *stream) bool { return !t.security.accepts(s.Conn) })
}

// renewIfNeeded has the connections replaced that are no longer accepted, unless that is under way.
func (l *link) renewIfNeeded() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if withdrawn, _ := l.byAcceptanceLocked(); len(withdrawn) > 0 && !l.renewing {
		l.renewing = l.t.spawn(l.renew)
	}
}

// byAcceptanceLocked finds the live connections that are no longer accepted, and says whether there is one that is.
func (l *link) byAcceptanceLocked() (withdrawn []*conn, accepted bool) {
	for _, c := range l.conns {
		switch {
		case c.dead():
		case l.t.security.accepts(c.nc):
			accepted = true
		default:
			withdrawn = append(withdrawn, c)
		}
	}
	return withdrawn, accepted
}

// renew replaces the connections that are no longer accepted, or ends them when that takes too long.
func (l *link) renew() {
	ctx, cancel := context.WithTimeout(l.peer.ctx, l.t.cfg.HandshakeTimeout)
	defer cancel()
	for failures := 0; l.replaceWithdrawn(ctx.Err() != nil); failures++ {
		if failures > 0 {
			select {
			case <-time.After(backoff(failures)):
			case <-ctx.Done():
				continue
			}
		}
		if c, err := l.connect(ctx, l.peer.info.Load().Addr); err == nil {
			l.t.attachDialed(c)
		}
	}
}

// replaceWithdrawn takes leave of the connections that are no longer accepted, if there is one that is, or ends them if
// it is too late for that. It says whether another has to be made first.
func (l *link) replaceWithdrawn(late bool) (wanted bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	withdrawn, accepted := l.byAcceptanceLocked()
	for _, c := range withdrawn {
		switch {
		case accepted:
			l.leaveLocked(c)
		case late:
			c.fail(errWithdrawn)
		default:
			return true
		}
	}
	l.renewing = false
	return false
}

// leave takes leave of a connection: what is sent from now on waits for another.
func (l *link) leave(c *conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.leaveLocked(c)
}

func (l *link) leaveLocked(c *conn) {
	switch err := c.add(&Message{Type: typePing, ID: leave}, true); err {
	case nil:
	case errConnClosed:
		return // it has ended, or has been left
	default:
		c.fail(err) // its queue is full
		return
	}
	l.since = time.Now() // of what waits
	l.electLocked()
}

// leaveAnswered notes that the other side has read all that was sent by c.
func (l *link) leaveAnswered(c *conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c.mu.Lock()
	c.allRead = true
	c.mu.Unlock()
	l.electLocked()
	l.dialIfNeededLocked()
}

// leavingLocked says whether frames wait for all that a connection has sent to be read.
func (l *link) leavingLocked() bool { return slices.ContainsFunc(l.conns, (*conn).leaving) }

// leaving says that not all that was sent by c is known to be read.
func (c *conn) leaving() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.left && !c.allRead && !c.closed
}

// parted says that both sides have taken leave of c and know that the other has read everything.
func (c *conn) parted() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.left && c.allRead && c.farewell
}

// hearLeave does what a ping or pong with the ID leave asks for.
func (c *conn) hearLeave(kind byte) {
	if kind == typePing {
		c.mu.Lock()
		c.farewell = true
		c.mu.Unlock()
		c.link.leave(c)
	} else {
		c.link.leaveAnswered(c)
	}
	if c.parted() {
		c.finish()
	}
}

package peer

import (
	"errors"
	"fmt"
	"maps"
	"net"
)

// newConn makes a connection of a link.
func newConn(l *link, nc net.Conn, version uint8) *conn {
	return &conn{t: l.t, link: l, nc: nc, version: version, wake: make(chan struct{}, 1)}
}

// attachDialed puts a connection to use that this member dialed.
func (t *Transport) attachDialed(c *conn) { t.use(c, c.link.add(c)) }

// attachAccepted puts a connection to use that another member dialed.
func (t *Transport) attachAccepted(h hello, nc net.Conn, version uint8) {
	t.mu.Lock() // from looking the member up to adding the connection, so that it is not forgotten in between
	p := t.peer(h.from)
	if p == nil {
		p = newMember(t, h.from, Peer{})
		next := maps.Clone(*t.peers.Load())
		next[h.from] = p
		t.peers.Store(&next)
	}
	c := newConn(p.links[h.lane], nc, version)
	c.accepted = true
	how := c.link.add(c)
	t.mu.Unlock()
	t.use(c, how)
}

// use runs a connection that was added to its link.
func (t *Transport) use(c *conn, how added) {
	p := c.link.peer
	if how != notAdded {
		p.gone.Store(false)
		p.breaker.connected()
		if how == addedLate {
			t.lose(p, Loss{Boot: p.boot, Lane: c.link.lane, Err: fmt.Errorf("%w: connected too late", ErrUnreachable)})
		}
		t.cfg.Logger.Debug("peer connected", "node", p.name(), "boot", p.boot.String(), "lane", c.link.lane.String())
		if t.spawn(c.write) && t.spawn(c.read) {
			c.link.renewIfNeeded() // what it has shown may have been withdrawn while it was made
			return
		}
		c.link.drop(c)
	}
	c.fail(ErrClosed)
	if c.accepted {
		t.leavePlace()
	}
}

// detach is the end of a connection: what was sent by it may be lost. Its reader calls it, so that all that was
// received by it has been handed on before.
func (t *Transport) detach(c *conn) {
	lost, p := c.link.drop(c), c.link.peer
	t.cfg.Logger.Debug("peer connection ended", "node", p.name(), "boot", p.boot.String(), "lane", c.link.lane.String(),
		"error", c.err.Error())
	if c.accepted {
		t.leavePlace()
	}
	if lost {
		t.lose(p, Loss{Boot: p.boot, Lane: c.link.lane, Err: fmt.Errorf("%w: %w", ErrLost, c.err)})
	}
	if !p.listed.Load() {
		t.forget(p)
	}
}

// forget removes a member that membership has not named and that has no connection left.
func (t *Transport) forget(p *member) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if p.listed.Load() || t.peer(p.boot) != p {
		return
	}
	for _, l := range p.links {
		if !l.empty() {
			return
		}
	}
	next := maps.Clone(*t.peers.Load())
	delete(next, p.boot)
	t.peers.Store(&next)
	p.cancel()
	p.calls.failAll(ErrLost)
}

// lose reports a loss to those who wait for the peer. To the breaker it is one failure, however many wait: a hundred
// calls lost with one connection say no more about the peer than one.
func (t *Transport) lose(p *member, loss Loss) {
	if !errors.Is(loss.Err, ErrUnreachable) { // that the dial has told already
		p.breaker.leave(nil, failed)
	}
	if loss.Gone || loss.Lane == LaneCalls {
		p.calls.failAll(loss.Err)
	}
	if t.cfg.Down != nil && t.ctx.Err() == nil {
		t.cfg.Down(loss)
	}
}

// markGone notes that a boot is dead, once.
func (t *Transport) markGone(p *member, err error) {
	if p.gone.CompareAndSwap(false, true) {
		t.cfg.Logger.Info("peer is gone", "node", p.name(), "boot", p.boot.String())
		t.lose(p, Loss{Boot: p.boot, Gone: true, Err: err})
	}
}

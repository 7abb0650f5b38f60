package peer

import (
	"bytes"
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// member is another member as this one sees it: its address, a link a lane, its breaker, the calls it owes answers to.
type member struct {
	boot    Boot
	breaker *breaker
	links   [laneCount]*link
	ctx     context.Context // ends when it is removed or the transport closes
	cancel  context.CancelFunc

	info   atomic.Pointer[Peer] // Addr is empty until membership names it
	listed atomic.Bool          // membership has named it
	gone   atomic.Bool          // its address belongs to another boot

	calls calls
}

// connsMost is how many connections of one lane a peer may have, but for those that are being replaced. Two are usual
// when both sides dialed at once; more are left over where the other side saw one die that this side has not.
const connsMost = 4

// phase is what a link without a connection does.
type phase int

const (
	idle    phase = iota // nothing; the next send dials
	resting              // will dial by itself soon, at once when something is sent
	dialing
	waiting // the last dial failed; the next comes after a while
)

// link is one lane to one peer. All of its live connections are read; frames are sent by one of them as long as it
// lives, so that they keep their order, whichever side dialed it.
type link struct {
	t    *Transport
	peer *member
	lane Lane

	cur atomic.Pointer[conn] // by which frames are sent; changed with mu held

	mu      sync.Mutex // guards what follows; before conn.mu
	conns   []*conn
	queue   []Message // to be sent by the connection being dialed
	queued  int       // bytes of it
	phase   phase
	since   time.Time     // when the dial that is under way began
	running bool          // the dialer
	kick    chan struct{} // the dialer should try now
	removed bool

	renewing bool // see renew.go
}

func newMember(t *Transport, boot Boot, info Peer) *member {
	p := &member{boot: boot}
	p.info.Store(&info)
	p.ctx, p.cancel = context.WithCancel(t.ctx)
	p.breaker = newBreaker(func(from, to BreakerState) { t.breakerChanged(p, from, to) })
	for lane := range p.links {
		p.links[lane] = &link{t: t, peer: p, lane: Lane(lane), kick: make(chan struct{}, 1)}
	}
	return p
}

// connected says whether there is a live connection, whoever dialed it.
func (p *member) connected() bool {
	for _, l := range p.links {
		if slices.ContainsFunc(l.snapshot(), func(c *conn) bool { return !c.dead() }) {
			return true
		}
	}
	return false
}

// name is what the peer is called in logs and metrics.
func (p *member) name() string {
	if n := p.info.Load().Node; n != "" {
		return n
	}
	return p.boot.String()
}

// send sends by the current connection, or queues and dials.
func (l *link) send(m *Message) error {
	if c := l.cur.Load(); c != nil {
		if err := c.push(m); err != errConnClosed {
			return err
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.electLocked()
	if c := l.cur.Load(); c != nil {
		if err := c.push(m); err != errConnClosed {
			return err
		}
	}
	leaving := l.leavingLocked() // until that is over there is nobody to dial
	switch {
	case l.removed:
		return ErrUnknownPeer
	case leaving:
	case l.peer.gone.Load():
		return ErrPeerGone
	case l.peer.info.Load().Addr == "":
		return ErrUnknownPeer
	case l.phase == waiting, l.phase == dialing && time.Since(l.since) > l.lane.dialPatience():
		return ErrUnreachable
	}
	switch {
	case len(m.Payload) > MaxPayload:
		return ErrTooLarge
	case l.queued+headerBytes+len(m.Payload) > l.t.cfg.MaxQueue:
		return ErrQueueFull
	}
	// Field by field: were *m copied whole, the compiler would take the caller's payload to be kept, and each caller
	// would have to allocate it.
	l.queue = append(l.queue, Message{Type: m.Type, ID: m.ID, Slot: m.Slot, Epoch: m.Epoch, Payload: bytes.Clone(m.Payload)})
	l.queued += headerBytes + len(m.Payload)
	if !leaving {
		l.dialLocked(true)
	}
	return nil
}

// electLocked makes a live connection current if the current one is not.
func (l *link) electLocked() {
	if c := l.cur.Load(); c != nil && !c.dead() {
		return
	}
	if l.leavingLocked() {
		l.cur.Store(nil)
		return
	}
	i := slices.IndexFunc(l.conns, func(c *conn) bool { return !c.dead() })
	if i < 0 {
		l.cur.Store(nil)
		return
	}
	c := l.conns[i]
	c.carried = true
	for i := range l.queue {
		if err := c.push(&l.queue[i]); err != nil {
			c.fail(err) // so that it is reported as a loss
			break
		}
	}
	l.queue, l.queued = nil, 0
	l.cur.Store(c)
}

// added is what became of a connection and of what was queued for it.
type added int

const (
	notAdded  added = iota // the link is removed
	addedWell              // all that was queued is sent
	addedLate              // what was queued is dropped: whom it was for has given up
)

// add takes a connection in.
func (l *link) add(c *conn) added {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.removed {
		return notAdded
	}
	how := addedWell
	if len(l.queue) > 0 && time.Since(l.since) > l.lane.dialPatience() {
		l.queue, l.queued = nil, 0
		how = addedLate
	}
	l.conns = append(l.conns, c)
	l.electLocked()
	if len(l.conns) > connsMost {
		l.thinLocked()
	}
	return how
}

// thinLocked ends the oldest connection that is not needed, if there are too many.
func (l *link) thinLocked() {
	var oldest *conn
	kept := 0
	for _, c := range l.conns {
		if c.dead() || !l.t.security.accepts(c.nc) {
			continue // ends by itself
		}
		if kept++; oldest == nil && c != l.cur.Load() {
			oldest = c
		}
	}
	if kept > connsMost {
		oldest.fail(refuse(reasonCrowd, errCrowded))
	}
}

// drop takes an ended connection out, and says whether frames sent by it may be lost.
func (l *link) drop(c *conn) (lost bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conns = slices.DeleteFunc(l.conns, func(o *conn) bool { return o == c })
	l.electLocked()
	l.dialIfNeededLocked()
	return c.carried && !c.parted()
}

// dialIfNeededLocked has a connection made where there should be one, or something waits for one.
func (l *link) dialIfNeededLocked() {
	if l.cur.Load() == nil && !l.leavingLocked() && (l.lane.eager() || len(l.queue) > 0) {
		l.dialLocked(len(l.queue) > 0)
	}
}

// remove ends the link for good.
func (l *link) remove(why error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.removed = true
	l.queue, l.queued = nil, 0
	for _, c := range l.conns {
		c.fail(why)
	}
}

func (l *link) snapshot() []*conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.conns)
}

func (l *link) empty() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.conns) == 0
}

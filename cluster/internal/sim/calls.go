package sim

import (
	"encoding/binary"
	"errors"

	"github.com/peerlimit/peerlimit/cluster/internal/possess"
	"github.com/peerlimit/peerlimit/cluster/internal/store"
)

// count is a key's state: what was taken of its limit.
type count struct{ Taken int64 }

// take takes one of Limit.
type take struct {
	Limit int64
	Sync  bool
	Bound int64
}

// limiter is a fixed window that does not end.
type limiter struct{}

func (limiter) Apply(c store.Call, s count, op take) (count, bool, store.Effect) {
	if s.Taken >= op.Limit {
		return s, false, store.Effect{}
	}
	s.Taken++
	return s, true, store.Effect{Changed: true, Wait: op.Sync, Spent: 1, Bound: op.Bound, Expires: c.Now + 100*3600*second}
}

func (limiter) AppendState(b []byte, s count, _ int64) []byte {
	return binary.AppendVarint(b, s.Taken)
}

func (limiter) ParseState(b []byte, _ int64) (count, error) {
	v, n := binary.Varint(b)
	if n <= 0 {
		return count{}, errors.New("bad count")
	}
	return count{v}, nil
}
func (limiter) AppendOp(b []byte, _ take) []byte     { return b }
func (limiter) ParseOp([]byte) (take, error)         { return take{}, nil }
func (limiter) AppendResult(b []byte, _ bool) []byte { return b }
func (limiter) ParseResult([]byte) (bool, error)     { return false, nil }
func (limiter) Merge(a, b count) count               { return count{max(a.Taken, b.Taken)} }

// call is one operation as its caller sees it.
type call struct {
	by      *member
	place   int // in by.calls
	id      uint64
	key     int
	started int64
	route   possess.Route
	sends   int
	over    bool
}

// request is an operation at the member it was sent to.
type request struct {
	*call
	tried   possess.ID
	arrived int64
}

const callTime = 250 * ms

func (w *World) key(i int) *key { return &w.keys[i] }

// load makes a call every now and then.
func (m *member) load() {
	if m.dead || m.w.stopped {
		return
	}
	if !m.paused && !m.draining {
		m.call(m.w.rng.IntN(len(m.w.keys)))
	}
	m.w.after(m.w.between(m.w.opt.OpEvery/2, m.w.opt.OpEvery*3/2), m.loads)
}

func (m *member) call(key int) {
	w := m.w
	w.Calls++
	k := &w.keys[key]
	holder, epoch := m.machine.Holder(k.slot)
	c := &call{by: m, place: len(m.calls), id: w.rng.Uint64(), key: key, started: w.now}
	c.route = possess.NewRoute(m.orders[k.slot], holder, epoch)
	m.calls = append(m.calls, c)
	m.send(c)
	w.seq++
	w.ends.set(timer{w.now + callTime, w.seq, c, 0})
}

// end takes a call from those under way.
func (m *member) end(c *call) {
	c.over = true
	last := m.calls[len(m.calls)-1]
	m.calls[c.place], last.place = last, c.place
	m.calls[len(m.calls)-1] = nil
	m.calls = m.calls[:len(m.calls)-1]
}

// timeout: a call's time is over, or who it was sent to is silent.
func (m *member) timeout(t timer) {
	c := t.c
	switch {
	case t.stale():
	case t.sends > 0:
		m.w.key(c.key).unknown++ // it may run there yet
		m.w.Resent++
		m.resend(c, c.route.Failed())
	default:
		m.expire(c)
	}
}

func (m *member) expire(c *call) {
	m.end(c)
	m.w.key(c.key).unknown++
	if m.w.now-c.started > callTime {
		return // the caller itself was stalled
	}
	m.w.Unavailable++
	m.w.tracef("%x: call for slot %d unanswered, target %x", m.id, m.w.key(c.key).slot, c.route.Target())
}

func (m *member) send(c *call) {
	if c.over {
		return
	}
	w := m.w
	c.sends++
	c.route.Sent(w.now)
	to, sends := c.route.Target(), c.sends
	r := &request{call: c, tried: c.route.Tried}
	if to == m.id {
		m.arrive(r)
	} else {
		dst := w.byID[to]
		w.transmit(m.id, to, dst, func() { dst.arrive(r) }, func() {
			m.receive(func() { m.timeout(timer{c: c, sends: sends}) })
		})
	}
	w.seq++
	w.silence.set(timer{c.route.Due(), w.seq, c, sends})
}

// resend sends a call again after a while, unless something else happens to it
// before.
func (m *member) resend(c *call, wait int64) {
	c.sends++ // the silence of the old target no longer counts
	sends := c.sends
	m.w.receives(wait, m, func() {
		if c.sends == sends {
			m.send(c)
		}
	})
}

// linkDown tells the calls that wait for a member that its link is lost.
func (m *member) linkDown(id possess.ID) {
	for _, c := range sortedCalls(m.calls) {
		if c.route.Target() == id {
			m.w.key(c.key).unknown++
			m.resend(c, c.route.Failed())
		}
	}
}

// arrive handles an operation at the member it was sent to.
func (m *member) arrive(r *request) {
	r.arrived = m.w.now
	m.try(r)
}

func (m *member) try(r *request) {
	w := m.w
	k := &w.keys[r.key]
	bound := max(1, w.opt.Limit/100)
	if w.opt.Broken.NoBound {
		bound = 0
	}
	now := m.clock()
	var allowed bool
	ticket, ran := m.store.Do(m.gate, k.hash, []byte(k.name), &store.Call{Now: now}, &take{w.opt.Limit, w.opt.Sync, bound}, &allowed)
	if ran == nil {
		switch v := m.machine.Verdict(now, k.slot, r.tried); v.Do {
		case possess.Moved, possess.Elsewhere:
			m.reply(r.by, func() { r.moved(v) })
		default:
			if w.now-r.arrived < callTime {
				m.parked[k.slot] = append(m.parked[k.slot], r)
				m.machine.Urge(now, k.slot)
			}
		}
		return
	}
	m.checkAlone(k.slot)
	answer := func() { r.answered(allowed) }
	if !ticket.Wait() {
		m.reply(r.by, answer)
		return
	}
	m.store.Await(k.slot, ticket, func(acknowledged bool) {
		if acknowledged {
			m.reply(r.by, answer)
		}
	})
	m.machine.Urge(now, k.slot)
}

// checkAlone: nobody else may be able to serve the slot at this moment.
func (m *member) checkAlone(slot uint16) {
	if m.w.splits > 0 {
		return
	}
	for _, o := range m.w.members {
		if o != m && !o.dead && o.gate.Open(slot, o.clock()) {
			m.w.violate("%x and %x both serve slot %d at %d ms", m.id, o.id, slot, m.w.now/ms)
		}
	}
}

func (m *member) wake(slot uint16) {
	parked := m.parked[slot]
	m.parked[slot] = nil
	for _, r := range parked {
		m.try(r)
	}
}

// reply carries an answer to a caller.
func (m *member) reply(to *member, answer func()) {
	if to == m {
		m.w.receives(0, m, answer)
		return
	}
	m.w.transmit(m.id, to.id, to, answer, func() {})
}

func (c *call) moved(v possess.Verdict) {
	if c.over {
		return
	}
	if v.Do == possess.Elsewhere {
		c.by.resend(c, c.route.Elsewhere())
		return
	}
	c.by.resend(c, c.route.MovedTo(v.To, v.Epoch))
}

func (c *call) answered(allowed bool) {
	if c.over {
		return
	}
	w := c.by.w
	c.by.end(c)
	w.Slow = max(w.Slow, w.now-c.started)
	if allowed {
		w.key(c.key).admitted++
	}
}

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
	id      uint64
	key     int
	started int64
	route   possess.Route
	sends   int
	over    bool
}

// request is an operation at the member it was sent to.
type request struct {
	id      uint64
	key     int
	from    possess.ID
	tried   possess.ID
	arrived int64
}

const verbose = false

const callTime = 250 * ms

func (w *World) key(i int) *key { return &w.keys[i] }

// noteInFlight counts what is under way for each key: so many may be lost at
// a death.
func (w *World) noteInFlight() {
	n := map[string]int{}
	for _, m := range w.members {
		for _, c := range m.calls {
			n[w.keys[c.key].name]++
		}
	}
	for k, v := range n {
		w.inFlight[k] += v
	}
}

// load makes a call every now and then.
func (m *member) load() {
	if m.dead || m.w.stopped {
		return
	}
	if !m.paused && !m.draining {
		m.call(m.w.rng.IntN(len(m.w.keys)))
	}
	m.w.after(m.w.between(m.w.opt.OpEvery/2, m.w.opt.OpEvery*3/2), m.load)
}

func (m *member) call(key int) {
	w := m.w
	w.Calls++
	k := &w.keys[key]
	holder, epoch := m.machine.Holder(k.slot)
	c := &call{id: w.rng.Uint64(), key: key, started: w.now}
	var ids []possess.ID
	for id, s := range m.view {
		if s.alive && !s.draining {
			ids = append(ids, id)
		}
	}
	c.route = possess.NewRoute(order(k.slot, sorted(ids)), holder, epoch)
	m.calls[c.id] = c
	m.send(c)
	w.after(callTime, func() { m.receive(func() { m.expire(c) }) })
}

func (m *member) expire(c *call) {
	if c.over {
		return
	}
	c.over = true
	delete(m.calls, c.id)
	m.w.key(c.key).unknown++
	if m.w.now-c.started > callTime {
		return // the caller itself was stalled
	}
	m.w.Unavailable++
	if o := m.w.byID[c.route.Target()]; o != nil && verbose {
		m.w.tracef("%x: %s", c.route.Target(), o.machine.Describe(m.w.key(c.key).slot))
	}
	m.w.tracef("%x: call for slot %d unanswered, target %x", m.id, m.w.key(c.key).slot, c.route.Target())
}

func (m *member) send(c *call) {
	if c.over {
		return
	}
	c.sends++
	c.route.Sent(m.w.now)
	to := c.route.Target()
	r := &request{id: c.id, key: c.key, from: m.id, tried: c.route.Tried}
	sent := c.sends
	silent := func() {
		if !c.over && c.sends == sent {
			m.w.key(c.key).unknown++ // it may run there yet
			m.w.Resent++
			if o := m.w.byID[to]; o != nil && verbose {
				m.w.tracef("%x: silent call to %x for slot %d: %s", m.id, to, m.w.key(c.key).slot, o.machine.Describe(m.w.key(c.key).slot))
			}
			m.resend(c, c.route.Failed())
		}
	}
	if to == m.id {
		m.arrive(r)
	} else {
		m.w.transmit(m.id, to, func(dst *member) { dst.arrive(r) }, func() { m.receive(silent) })
	}
	m.w.after(c.route.Due()-m.w.now, func() { m.receive(silent) })
}

func (m *member) resend(c *call, wait int64) {
	m.w.after(wait, func() { m.receive(func() { m.send(c) }) })
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
	allowed, ticket, ran := m.store.Do(m.gate, k.hash, []byte(k.name), store.Call{Now: now}, take{w.opt.Limit, w.opt.Sync, bound})
	if ran == nil {
		switch v := m.machine.Verdict(now, k.slot, r.tried); v.Do {
		case possess.Moved, possess.Elsewhere:
			m.reply(r, func(o *member, c *call) { o.moved(c, v) })
		default:
			if w.now-r.arrived < callTime {
				m.parked[k.slot] = append(m.parked[k.slot], r)
			}
		}
		return
	}
	m.checkAlone(k.slot)
	done := func(acknowledged bool) {
		if acknowledged {
			m.reply(r, func(o *member, c *call) { o.answered(c, allowed) })
		}
	}
	if !ticket.Wait() {
		done(true)
		return
	}
	m.store.Await(k.slot, ticket, done)
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
	delete(m.parked, slot)
	for _, r := range parked {
		m.try(r)
	}
}

func (m *member) reply(r *request, f func(o *member, c *call)) {
	deliver := func(o *member) {
		if c := o.calls[r.id]; c != nil && !c.over {
			f(o, c)
		}
	}
	if r.from == m.id {
		m.w.after(0, func() { m.receive(func() { deliver(m) }) })
		return
	}
	m.w.transmit(m.id, r.from, deliver, func() {})
}

func (m *member) moved(c *call, v possess.Verdict) {
	c.sends++ // the silence of the old target no longer counts
	if v.Do == possess.Elsewhere {
		m.resend(c, c.route.Elsewhere())
		return
	}
	m.resend(c, c.route.MovedTo(v.To, v.Epoch))
}

func (m *member) answered(c *call, allowed bool) {
	c.over = true
	delete(m.calls, c.id)
	m.w.Slow = max(m.w.Slow, m.w.now-c.started)
	if allowed {
		m.w.key(c.key).admitted++
	}
}

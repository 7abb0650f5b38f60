package sim

import (
	"slices"

	"github.com/cespare/xxhash/v2"

	"github.com/peerlimit/peerlimit/cluster/internal/possess"
	"github.com/peerlimit/peerlimit/cluster/internal/store"
)

// member is one process life.
type member struct {
	w        *World
	id       possess.ID
	machine  *possess.Machine
	store    *store.Store[count, take, bool, limiter]
	gate     *store.Gate
	marks    *store.Marks
	offset   int64   // of its clock
	drift    float64 // of its clock
	paused   bool
	dead     bool
	draining bool
	waiting  []func() // what arrived while it was paused
	parked   [nSlots][]*request
	calls    []*call // under way
	view     map[possess.ID]seen
	orders   [nSlots][4]possess.ID // of the members that view has in the ring
	ticks    func()                // m.tick
	loads    func()                // m.load
}

// seen is what a member's membership says of another.
type seen struct{ alive, draining, dead bool }

// Join starts a member, which finds the others.
func (w *World) Join() *member {
	id := w.rng.Uint64()>>16 | 1
	m := &member{
		w: w, id: id, gate: new(store.Gate), marks: new(store.Marks),
		offset: w.between(second, 3600*second), drift: (w.rng.Float64() - 0.5) * 2e-4,
		view: map[possess.ID]seen{},
	}
	m.ticks, m.loads = m.tick, m.load
	m.store = store.New[count, take, bool](limiter{}, 100000, m.marks)
	cfg := possess.DefaultConfig(id)
	cfg.Slots, cfg.Broken = nSlots, w.opt.Broken
	cfg.MoveSlots, cfg.OpenAsks = 2, 6
	m.machine = possess.New(cfg, port{m}, m.clock())
	w.members = append(w.members, m)
	w.byID[id] = m
	w.tracef("%x joins", id)
	m.view[id] = seen{alive: true}
	for _, o := range w.Up() {
		if o == m {
			continue
		}
		w.after(w.between(20*ms, 300*ms), func() { o.notice(m.id, seen{alive: true}) })
		// A newcomer learns of all at once, by its first exchange.
		m.view[o.id] = seen{alive: true, draining: o.draining}
	}
	w.after(w.between(1, tick), m.ticks)
	w.receives(w.between(5*ms, 50*ms), m, m.setView)
	if w.opt.OpEvery > 0 {
		w.after(w.between(500*ms, 600*ms), m.loads)
	}
	return m
}

func (m *member) clock() int64 {
	return m.offset + m.w.now + int64(float64(m.w.now)*m.drift)
}

// receive runs f on the member, now or when it runs again.
func (m *member) receive(f func()) {
	switch {
	case m.dead:
	case m.paused:
		m.waiting = append(m.waiting, f)
	default:
		f()
	}
}

func (m *member) tick() {
	if m.dead {
		return
	}
	if now := m.clock(); !m.paused && !m.machine.Resting(now) {
		m.machine.Tick(now)
		m.machine.Rest()
	}
	m.w.after(tick, m.ticks)
}

// notice changes what m's membership says of another.
func (m *member) notice(id possess.ID, s seen) {
	m.receive(func() {
		if m.view[id].dead && m.w.byID[id].dead {
			return // what is dead stays dead
		}
		s.draining = s.draining || m.view[id].draining
		m.view[id] = s
		m.setView()
	})
}

func (m *member) setView() {
	var alive, ring []possess.ID
	dead := map[possess.ID]bool{}
	for id, s := range m.view {
		if s.alive {
			alive = append(alive, id)
			if !s.draining {
				ring = append(ring, id)
			}
		}
		dead[id] = s.dead
	}
	slices.Sort(alive)
	slices.Sort(ring)
	for slot := range m.orders {
		m.orders[slot] = order(uint16(slot), ring)
	}
	orders := m.orders
	m.machine.SetView(m.clock(), possess.View{
		Order: func(slot uint16) [4]possess.ID { return orders[slot] },
		Alive: alive,
		Dead:  func(id possess.ID) bool { return dead[id] },
	})
}

func order(slot uint16, ids []possess.ID) (top [4]possess.ID) {
	var rank [4]uint64
	for _, id := range ids {
		h := xxhash.Sum64([]byte{byte(slot), byte(id), byte(id >> 8), byte(id >> 16), byte(id >> 24), byte(id >> 32), byte(id >> 40)})
		for i := range top {
			if top[i] == 0 || h > rank[i] {
				copy(top[i+1:], top[i:3])
				copy(rank[i+1:], rank[i:3])
				top[i], rank[i] = id, h
				break
			}
		}
	}
	return top
}

// Kill ends a member at once. Others notice by their membership after a while.
func (w *World) Kill(m *member) {
	w.tracef("%x is killed", m.id)
	m.dead = true
	m.waiting = nil
	for _, o := range w.Up() {
		w.after(w.between(second, 2500*ms), func() { o.notice(m.id, seen{dead: true}) })
		// Calls that wait for it see the connection reset.
		w.receives(8*ms+w.delay(), o, func() { o.linkDown(m.id) }) // after what it had sent
	}
	for _, c := range m.calls {
		w.key(c.key).unknown++
	}
}

// Rebirth kills a member and starts another at its address soon after, which
// tells whoever calls that the old one is gone.
func (w *World) Rebirth(m *member, after int64) {
	w.Kill(m)
	w.after(after, func() {
		w.Join()
		for _, o := range w.Up() {
			w.receives(w.between(ms, 50*ms), o, func() { o.machine.Gone(o.clock(), m.id) })
		}
	})
}

// Stall stops a member for a while.
func (w *World) Stall(m *member, d int64) {
	w.tracef("%x stalls for %d ms", m.id, d/ms)
	m.paused = true
	noticed := map[possess.ID]bool{}
	for _, o := range w.Up() {
		if o == m {
			continue
		}
		if t := w.between(1500*ms, 2500*ms); t < d {
			noticed[o.id] = true
			w.after(t, func() { o.notice(m.id, seen{dead: true}) })
			w.after(d+w.between(200*ms, second), func() { o.notice(m.id, seen{alive: true, draining: m.draining}) })
		}
	}
	w.after(d, func() {
		if m.dead {
			return
		}
		w.tracef("%x runs again", m.id)
		m.paused = false
		waiting := m.waiting
		m.waiting = nil
		// What comes first after waking is not settled: a timer or a message.
		if w.rng.IntN(2) == 0 {
			m.machine.Tick(m.clock())
		}
		for _, f := range waiting {
			f()
		}
	})
}

// Leave drains a member and stops it when it may go.
func (w *World) Leave(m *member) {
	w.tracef("%x leaves", m.id)
	m.draining = true
	m.view[m.id] = seen{alive: true, draining: true}
	m.receive(func() {
		m.machine.Drain(m.clock())
		m.setView()
	})
	for _, o := range w.Up() {
		if o != m {
			w.after(w.between(20*ms, 200*ms), func() { o.notice(m.id, seen{alive: true, draining: true}) })
		}
	}
	started := w.now
	var poll func()
	poll = func() {
		if m.dead {
			return
		}
		if !m.paused && (m.machine.Empty() && len(m.calls) == 0 || w.now-started > 10*second) {
			if w.now-started > 10*second {
				w.tracef("%x leaves with slots", m.id)
			}
			w.tracef("%x has left", m.id)
			m.dead = true
			for _, o := range w.Up() {
				w.after(w.between(20*ms, 300*ms), func() { o.notice(m.id, seen{dead: true}) })
				w.receives(8*ms+w.delay(), o, func() { o.linkDown(m.id) }) // after what it had sent
			}
			return
		}
		w.after(10*ms, poll)
	}
	w.after(tick, poll)
}

// Split cuts the network in two for a while.
func (w *World) Split(side map[possess.ID]bool, d int64) {
	w.tracef("split %v for %d ms", side, d/ms)
	w.splits++
	w.split = func(a, b possess.ID) bool { return side[a] != side[b] }
	across := func(f func(a, b *member)) {
		for _, a := range w.Up() {
			for _, b := range w.Up() {
				if side[a.id] != side[b.id] {
					f(a, b)
				}
			}
		}
	}
	across(func(a, b *member) {
		if t := w.between(1500*ms, 2500*ms); t < d {
			w.after(t, func() { a.notice(b.id, seen{dead: true}) })
		}
	})
	w.after(d, func() {
		w.tracef("healed")
		w.split = nil
		across(func(a, b *member) {
			w.after(w.between(200*ms, 3*second), func() { a.notice(b.id, seen{alive: true, draining: b.draining}) })
		})
	})
}

// port is the machine's world.
type port struct{ m *member }

func (p port) Send(to possess.ID, msg possess.Message) {
	// Through the encoding, so that it is tried too and nothing is shared.
	w, from := p.m.w, p.m.id
	b := w.encode(msg)
	dst := w.byID[to]
	w.transmit(from, to, dst, func() {
		got, err := possess.Parse(b)
		if err != nil {
			panic(err)
		}
		dst.machine.Receive(dst.clock(), from, got)
	}, nil)
}

func (p port) Open(slot uint16, epoch uint64, g *store.Grant) {
	p.m.w.tracef("%x opens %d epoch %d", p.m.id, slot, epoch)
	p.m.gate.Set(slot, &store.Reign{Epoch: epoch, Holder: p.m.id, Grant: g})
}
func (p port) Shut(slot uint16) {
	if p.m.gate.Get(slot) != nil {
		p.m.w.tracef("%x shuts %d", p.m.id, slot)
	}
	p.m.gate.Set(slot, nil)
}
func (p port) Wake(slot uint16)              { p.m.w.receives(0, p.m, func() { p.m.wake(slot) }) }
func (p port) TakeMarks(f func(slot uint16)) { p.m.marks.Take(f) }
func (p port) Acked(s uint16, l store.List)  { p.m.store.Acked(s, l) }
func (p port) Promote(s uint16)              { p.m.store.Promote(s) }
func (p port) Drop(s uint16)                 { p.m.w.tracef("%x drops %d", p.m.id, s); p.m.store.Drop(s) }
func (p port) Follow(s uint16, l store.List, has bool) {
	p.m.w.tracef("%x follow %d list %d", p.m.id, s, l)
	p.m.store.Follow(s, l, has)
}
func (p port) Owes(s uint16) (owes, awaited bool) {
	owes, awaited = p.m.store.Owes(s)
	return owes, awaited || len(p.m.parked[s]) > 0
}
func (p port) Unfollow(s uint16, l store.List, acknowledged bool) {
	p.m.store.Unfollow(s, l, acknowledged)
}
func (p port) Collect(s uint16, l store.List, b []byte, limit int) ([]byte, bool) {
	b, _, drained := p.m.store.Collect(s, l, p.m.clock(), b, limit)
	return b, drained
}
func (p port) Import(s uint16, b []byte, age int64, merge bool) error {
	p.m.w.tracef("%x import %d: %d bytes", p.m.id, s, len(b))
	return p.m.store.Import(s, b, p.m.clock()-age, merge)
}
func (p port) Note(e possess.Event) {
	p.m.w.tracef("%x note %d slot %d peer %x", p.m.id, e.Kind, e.Slot, e.Peer)
	if e.Kind == possess.TookOver {
		p.m.w.tracef("%s", p.m.machine.Describe(e.Slot))
		p.m.w.Takeovers[e.Slot]++
	}
}

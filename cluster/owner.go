package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/peerlimit/peerlimit/cluster/internal/membership"
	"github.com/peerlimit/peerlimit/cluster/internal/peer"
	"github.com/peerlimit/peerlimit/cluster/internal/possess"
	"github.com/peerlimit/peerlimit/cluster/internal/ring"
	"github.com/peerlimit/peerlimit/cluster/internal/store"
)

// owner drives the possession protocol on a member: it gives the machine its
// clock, its messages and its view of the members, and does what it orders.
// Operations run beside it: they ask only the gate, and come here when that is
// shut.
type owner struct {
	node   *Node
	self   possess.ID
	clock  *clock
	log    *slog.Logger
	gate   store.Gate
	marks  store.Marks
	calls  outcalls
	recent recent
	heard  atomic.Int64 // when the protocol's last message came
	phase  int64        // the wall clock less the own one, at the start

	// where is, for each slot, the member that operations are sent to
	// first, as far as is known; 0: the ring's first.
	where [store.Slots]atomic.Uint64

	mu         sync.Mutex // guards what follows; taken before any shard's lock
	machine    *possess.Machine
	begun      bool
	ringBefore *ring.Ring // that the machine was told of last
	tables     tables
	parked     map[uint16][]parked
	waiting    int      // operations parked
	woken      []uint16 // slots whose parked operations are to be tried again
	buf        []byte   // of the message being encoded
	news       news

	resting  atomic.Bool   // there is no tick before the next beat
	roused   chan struct{} // told when there is to be one
	attached chan struct{} // told when a table was made
	settled  chan struct{} // closed when everything that should be held is
	stop     chan struct{}
	wg       sync.WaitGroup
}

// tick is how often the machine is told the time.
const tick = 10 * time.Millisecond

// unsettledFor is how often a member that does not get its slots says which.
const unsettledFor = 5 * time.Second

// newPossessor returns what decides for n.
func newPossessor(n *Node) possessor {
	o := &owner{
		node: n, self: n.boot, clock: newClock(nil), log: n.log,
		parked: map[uint16][]parked{},
		roused: make(chan struct{}, 1), attached: make(chan struct{}, 1), settled: make(chan struct{}), stop: make(chan struct{}),
	}
	o.tables.marks, o.tables.audiences = &o.marks, o.audiences
	o.calls.init(int64(n.cfg.Timings.Call) * slowness)
	t := n.cfg.Timings
	cfg := possess.DefaultConfig(o.self)
	cfg.Grant, cfg.Beat, cfg.Suspect = int64(t.Grant), int64(t.Beat), int64(t.Suspect)
	cfg.Gap, cfg.CopyEvery = int64(t.Gap), int64(t.CopyEvery)
	cfg = cfg.Slower(slowness)
	o.phase = o.clock.wallOffset(o.clock.now())
	cfg.Phase = o.phase
	cfg.MinMembers = n.cfg.MinMembers
	o.machine = possess.New(cfg, (*ownerPort)(o), o.clock.now())
	n.owner = o
	o.handleGathering()
	return o
}

// enter runs f on the machine, then what it woke.
func (o *owner) enter(f func(now int64)) {
	o.mu.Lock()
	now := o.clock.now()
	f(now)
	run := o.takeWoken()
	if o.resting.Load() && !o.machine.Resting(now) {
		o.rouse()
	}
	o.mu.Unlock()
	for _, p := range run {
		p.again()
	}
}

func (o *owner) begin() {
	o.enter(func(now int64) {
		o.begun = true
		o.setView(now, o.node.ring.Load(), o.node.Members())
	})
	o.wg.Go(o.run)
}

func (o *owner) run() {
	timer := time.NewTimer(o.until(tick))
	defer timer.Stop()
	settled := false
	var swept time.Time
	said := time.Now() // when it was last said what is missing, or the beginning
	for {
		select {
		case <-o.stop:
			return
		case <-o.roused:
			timer.Reset(o.until(tick))
			continue
		case <-timer.C:
			o.resting.Store(false)
		}
		o.enter(func(now int64) {
			o.machine.Tick(now)
			o.expireParked(now)
			if !settled && (o.machine.Settled() || o.machine.Short()) {
				settled = true
				close(o.settled)
			}
			if !settled && time.Since(said) > slowness*unsettledFor {
				said = time.Now()
				o.log.Warn("not ready", "missing", o.machine.Unsettled())
			}
			o.news.tell(o.log, now)
		})
		o.calls.sweep(o.clock.now())
		if now := time.Now(); now.Sub(swept) > time.Second {
			swept = now
			o.mu.Lock()
			ts := o.tables.list
			o.mu.Unlock()
			for _, t := range ts {
				t.Sweep(o.clock.now(), 256)
			}
		}
		timer.Reset(o.untilTick(settled))
	}
}

// until is how long it is to the next multiple of d by the wall clock. Ticks are
// at such instants, and beats at some of them, so that members whose clocks agree
// send their beats at the same time: one at rest is woken once for all of them,
// and waking costs more than the beats do.
func (o *owner) until(d time.Duration) time.Duration {
	return d - time.Duration((o.clock.now()+o.phase)%int64(d))
}

// untilTick is how long it is to the next tick: where nothing goes on, to the
// next beat. From then on rouse ends the rest.
func (o *owner) untilTick(settled bool) time.Duration {
	o.resting.Store(true)
	o.mu.Lock()
	rests := settled && o.waiting == 0 && o.calls.n.Load() == 0 && o.machine.Rest()
	o.mu.Unlock()
	if rests {
		return o.until(slowness * o.node.cfg.Timings.Beat)
	}
	o.resting.Store(false)
	return o.until(tick)
}

// rouse has ticks go on.
func (o *owner) rouse() {
	if o.resting.Load() && o.resting.CompareAndSwap(true, false) {
		select {
		case o.roused <- struct{}{}:
		default:
		}
	}
}

func (o *owner) membersChanged(r *ring.Ring, members []Member) {
	o.enter(func(now int64) { o.setView(now, r, members) })
}

// setView tells the machine of a change of members. Before the member has
// joined it is told nothing, so that it serves nothing.
func (o *owner) setView(now int64, r *ring.Ring, members []Member) {
	if !o.begun {
		return
	}
	alive := map[uint64]bool{0: true}
	for _, m := range members {
		alive[m.Boot] = true
	}
	// A newcomer is asked only once somebody says that it holds the slot.
	for i := range o.where {
		switch at := o.where[i].Load(); {
		case at == 0 && o.ringBefore != nil:
			if first := uint64(o.ringBefore.Owner(uint16(i))); alive[first] {
				o.where[i].Store(first)
			}
		case !alive[at]:
			o.where[i].Store(0)
		}
	}
	o.ringBefore = r
	v := possess.View{
		Order: func(slot uint16) (ids [4]possess.ID) {
			for i, b := range r.Order(slot) {
				ids[i] = possess.ID(b)
			}
			return ids
		},
		Dead: func(id possess.ID) bool {
			s := o.node.members.Get(id).State
			return s == membership.Dead || s == membership.Left
		},
	}
	for _, m := range members {
		v.Alive = append(v.Alive, m.Boot)
	}
	o.machine.SetView(now, v)
}

var parsers = sync.Pool{New: func() any { return new(possess.Parser) }}

func (o *owner) message(from peer.Boot, m peer.Message) {
	if o.closed() {
		return // who serves no more speaks for no slot either
	}
	switch m.Type {
	case typeProtocol:
		o.heard.Store(o.clock.now())
		parser := parsers.Get().(*possess.Parser)
		defer parsers.Put(parser)
		msg, err := parser.Parse(m.Payload)
		if err != nil {
			o.log.Warn("bad message from a member", "boot", from.String(), "error", err)
			return
		}
		o.enter(func(now int64) {
			// What others ask is answered from the beginning; slots are
			// taken only from begin on.
			if _, slots := msg.(*possess.Sync); o.begun || !slots {
				o.machine.Receive(now, possess.ID(from), msg)
			}
		})
	case typeOp:
		o.serve(from, m)
	case typeReply:
		o.replied(from, m)
	}
}

func (o *owner) lastHeard() time.Time {
	return o.clock.base.Add(time.Duration(o.heard.Load()))
}

func (o *owner) down(l peer.Loss) {
	if l.Gone {
		o.enter(func(now int64) { o.machine.Gone(now, possess.ID(l.Boot)) })
	}
	if l.Gone || l.Lane == peer.LaneOps {
		o.calls.lost(possess.ID(l.Boot))
	}
}

// drain hands everything over.
func (o *owner) drain(ctx context.Context) error {
	o.enter(func(now int64) { o.machine.Drain(now) })
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for {
		o.mu.Lock()
		empty := o.machine.Empty()
		o.mu.Unlock()
		if empty || !o.heirs() {
			return nil
		}
		select {
		case <-ctx.Done():
			o.mu.Lock()
			kept := o.machine.Kept()
			o.mu.Unlock()
			return fmt.Errorf("hand over %s: %w", kept, ctx.Err())
		case <-o.stop:
			return ErrClosed
		case <-ticker.C:
		}
	}
}

// heirs reports whether a member is left that could take something over.
func (o *owner) heirs() bool {
	return slices.ContainsFunc(o.node.Members(), func(m Member) bool { return m.Boot != o.self && m.State == StateAlive })
}

// errSettling is why a member that has joined does not serve yet.
var errSettling = errors.New("cluster: taking over its slots")

func (o *owner) ready() error {
	select {
	case <-o.settled:
		return nil
	default:
		return errSettling
	}
}

func (o *owner) readied() <-chan struct{} { return o.settled }

func (o *owner) close() {
	close(o.stop)
	o.wg.Wait()
	o.mu.Lock()
	for slot := range uint16(store.Slots) {
		o.gate.Set(slot, nil)
	}
	run := o.takeAllParked()
	o.mu.Unlock()
	for _, p := range run {
		p.again() // finds the owner closed
	}
	o.calls.close()
}

func (o *owner) closed() bool {
	select {
	case <-o.stop:
		return true
	default:
		return false
	}
}

// ownerPort is the machine's world. Its methods are called with owner.mu held.
type ownerPort owner

// Messages with entries travel on a connection of their own, so that they
// delay neither operations nor the renewal of grants.
const bulkBytes = 8 << 10

func (p *ownerPort) Send(to possess.ID, m possess.Message) {
	p.buf = possess.Append(p.buf[:0], m)
	lane := peer.LaneControl
	if len(p.buf) > bulkBytes {
		lane = peer.LaneBulk
	}
	// A message that can't be sent counts as lost; the protocol repeats.
	_ = p.node.peers.Send(peer.Boot(to), lane, peer.Message{Type: typeProtocol, Payload: p.buf})
}

func (p *ownerPort) Open(slot uint16, epoch uint64, g *store.Grant) {
	p.gate.Set(slot, &store.Reign{Epoch: epoch, Holder: p.self, Grant: g, Unprotected: p.machine.Unprotected(slot)})
}

func (p *ownerPort) Shut(slot uint16) {
	if p.gate.Get(slot) == nil {
		return
	}
	p.gate.Set(slot, nil)
	for _, t := range p.tables.list {
		t.Flush(slot)
	}
}

func (p *ownerPort) Wake(slot uint16) {
	if len(p.parked[slot]) > 0 {
		p.woken = append(p.woken, slot)
	}
}

func (p *ownerPort) TakeMarks(f func(slot uint16)) { p.marks.Take(f) }
func (p *ownerPort) Note(e possess.Event)          { p.news.note(e) }

func (p *ownerPort) Follow(slot uint16, l store.List, has bool) { p.tables.follow(slot, l, has) }
func (p *ownerPort) Collect(slot uint16, l store.List, b []byte, limit int) ([]byte, bool) {
	return p.tables.collect(slot, l, p.clock.now(), b, limit)
}
func (p *ownerPort) Acked(slot uint16, l store.List) { p.tables.acked(slot, l) }
func (p *ownerPort) Owes(slot uint16) (owes, awaited bool) {
	owes, awaited = p.tables.owes(slot)
	return owes, awaited || len(p.parked[slot]) > 0
}
func (p *ownerPort) Promote(slot uint16) { p.tables.promote(slot) }
func (p *ownerPort) Unfollow(slot uint16, l store.List, acknowledged bool) {
	p.tables.unfollow(slot, l, acknowledged)
}
func (p *ownerPort) Import(slot uint16, b []byte, age int64, merge bool) error {
	return p.tables.take(slot, b, p.clock.now()-age, merge)
}
func (p *ownerPort) Drop(slot uint16) { p.tables.drop(slot) }

package cluster

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"github.com/peerlimit/peerlimit/cluster/internal/peer"
	"github.com/peerlimit/peerlimit/cluster/internal/possess"
	"github.com/peerlimit/peerlimit/cluster/internal/store"
)

// doSlow carries an operation through that the fast path could not: its key is
// held elsewhere or by nobody just now, or its answer has to wait for the
// backup.
func (t *Table[S, O, R, M]) doSlow(ctx context.Context, hash uint64, key []byte, id uint64, op *O, r *R, ticket store.Ticket, ran *store.Reign) error {
	o := t.owner
	slot := uint16(hash % store.Slots)
	c, err := o.calls.begin(ctx, id, slot, o.clock.now())
	if err != nil {
		return err
	}
	defer o.calls.end(c)
	o.rouse()
	if o.closed() {
		return ErrClosed
	}
	again := false // an earlier try may have run
	if ran != nil {
		ok, err := t.confirm(ctx, c, ticket, ran)
		if ok || err != nil {
			return err
		}
		again = true
	}
	holder := possess.ID(o.where[slot].Load())
	order := o.order(slot)
	if holder == 0 {
		holder = order[0]
	}
	c.route = possess.NewRoute(order, holder, 0)
	c.wire = c.wire[:0]
	for {
		if o.closed() { // nobody would tell it when its time is up
			return o.expired(again)
		}
		var ev outevent
		waits := true // the present target has it
		switch target := c.route.Target(); target {
		case o.self:
			now := o.clock.now()
			call := Call{Now: now, ID: id, Again: again, WallOffset: o.clock.wallOffset(now)}
			ticket, ran := t.store.Do(&o.gate, hash, key, &call, op, r)
			if ran != nil {
				o.where[slot].Store(o.self)
				ok, err := t.confirm(ctx, c, ticket, ran)
				if ok || err != nil {
					return err
				}
				again = true
				continue
			}
			ev = o.park(parked{slot: slot, tried: c.route.Tried, call: c, callID: id})
			if ev.kind == evAgain {
				if ev, err = c.wait(ctx); err != nil {
					return o.interrupted(err, again)
				}
			}
		default:
			if len(c.wire) == 0 {
				c.wire = appendRequest(c.wire, &request{table: t.id, key: key})
				c.wire = t.store.Machine().AppendOp(c.wire, *op)
			}
			if !o.send(c, target, again) {
				ev = outevent{kind: evUnsent, from: target}
				break // of the switch
			}
			if ev, err = c.wait(ctx); err != nil {
				return o.interrupted(err, true)
			}
		}
	event:
		wait := int64(0)
		switch ev.kind {
		case evAnswered:
			if ev.from != 0 && possess.ID(o.where[slot].Load()) != ev.from {
				o.where[slot].Store(ev.from)
			}
			*r, err = t.store.Machine().ParseResult(ev.result())
			return err
		case evMoved:
			o.where[slot].Store(ev.to)
			wait, waits = c.route.MovedTo(ev.to, ev.epoch), false
		case evElsewhere:
			wait, waits = c.route.Elsewhere(), false
		case evSilent, evLost, evUnsent:
			if ev.from != c.route.Target() {
				goto stale
			}
			again = again || ev.kind != evUnsent // it may have run there
			o.where[slot].CompareAndSwap(ev.from, 0)
			wait, waits = c.route.Failed(), false
		case evParked:
			// It waits there for the slot to be taken over or moved: no
			// silence, and sent elsewhere it might run twice.
			c.watch(ev.from, c.deadline)
			goto stale
		case evAgain:
			if c.route.Target() != o.self {
				goto stale
			}
			continue
		case evRefused:
			return fmt.Errorf("%w: fewer than %d members", ErrUnavailable, o.node.cfg.MinMembers)
		case evBusy:
			return ErrBusy
		case evBad:
			return fmt.Errorf("%w: the holder can't read the operation", ErrUnavailable)
		case evExpired:
			return o.expired(again || c.sentTo() != 0)
		}
		if wait > 0 {
			var ok bool
			if ev, ok = c.pause(ctx, time.Duration(wait)); ok {
				goto event
			}
		}
		continue
	stale: // of an earlier target, or nothing new
		if waits && !o.closed() {
			if ev, err = c.wait(ctx); err != nil {
				return o.interrupted(err, true)
			}
			goto event
		}
	}
}

// routeSilence is how long a target may be silent before another is tried.
const routeSilence = slowness * int64(100*time.Millisecond)

// sentTo returns the member whose answer is still out, 0 if none.
func (c *outcall) sentTo() possess.ID {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.due == 0 {
		return 0
	}
	return c.target
}

// expired is what a caller gets whose time is up.
func (o *owner) expired(mayHaveRun bool) error {
	switch {
	case o.closed():
		return ErrClosed
	case mayHaveRun:
		return ErrUncertain
	}
	return ErrUnavailable
}

func (o *owner) interrupted(err error, mayHaveRun bool) error {
	if mayHaveRun {
		return fmt.Errorf("%w: %w", ErrUncertain, err)
	}
	return err
}

// order returns the ring's order of a slot.
func (o *owner) order(slot uint16) (ids [4]possess.ID) {
	for i, b := range o.node.ring.Load().Order(slot) {
		ids[i] = possess.ID(b)
	}
	return ids
}

// Where the parts of a request are that change from one sending to the next.
const (
	requestTried = 8
	requestAgain = 16
)

// send sends an operation to a member; false where that is not possible.
func (o *owner) send(c *outcall, to possess.ID, again bool) bool {
	for i := range 8 {
		c.wire[requestTried+i] = byte(c.route.Tried >> (56 - 8*i))
	}
	if again {
		c.wire[requestAgain] = 1
	}
	c.watch(to, o.clock.now()+routeSilence)
	err := o.node.peers.Send(peer.Boot(to), peer.LaneOps, peer.Message{Type: typeOp, ID: c.id, Slot: c.slot, Payload: c.wire})
	if err != nil {
		c.watch(0, 0)
		return false
	}
	return true
}

// confirm waits until what ran may be answered: the backup has it, if it must,
// and the grant holds under which it ran. It returns false when
// that can't be had any more.
func (t *Table[S, O, R, M]) confirm(ctx context.Context, c *outcall, ticket store.Ticket, ran *store.Reign) (bool, error) {
	o := t.owner
	if ticket.Wait() {
		id := c.id
		t.store.Await(c.slot, ticket, func(acknowledged bool) {
			ev := outevent{kind: evUnacked}
			if acknowledged {
				ev.kind = evAcked
			}
			o.calls.deliver(id, ev)
		})
		o.urge(c.slot)
		for {
			ev, err := c.wait(ctx)
			switch {
			case err != nil:
				return false, o.interrupted(err, true)
			case ev.kind == evAcked:
				return true, nil
			case ev.kind == evUnacked:
				return false, nil
			case ev.kind == evExpired:
				return false, o.expired(true)
			}
		}
	}
	for !ran.Holds(o.clock.now()) {
		if now := o.gate.Get(c.slot); now != nil && now.Epoch == ran.Epoch && now.Holds(o.clock.now()) {
			return true, nil // the same possession under another backup's grant
		}
		if !o.holds(c.slot, ran.Epoch) {
			return false, nil
		}
		ev := o.park(parked{slot: c.slot, call: c, callID: c.id})
		var err error
		switch {
		case ev.kind != evAgain:
			return false, nil
		default:
			ev, err = c.wait(ctx)
		}
		switch {
		case err != nil:
			return false, o.interrupted(err, true)
		case ev.kind == evExpired:
			return false, o.expired(true)
		}
	}
	return true, nil
}

// holds reports whether the slot is possessed in that epoch, served or not.
func (o *owner) holds(slot uint16, epoch uint64) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.machine.Holds(slot, epoch)
}

// attach makes a table one of node's.
func attach[S, O, R any, M Machine[S, O, R]](t *Table[S, O, R, M], node *Node, m M, cfg TableConfig) error {
	o := node.owner
	t.owner, t.gate, t.clock, t.id = o, &o.gate, o.clock, tableID(cfg.Name)
	t.store = store.New[S, O, R](m, cfg.MaxEntries, &o.marks)
	return o.attach(t.id, cfg.Name, tableEntries[S, O, R, M]{t.store, t})
}

func (o *owner) attach(id uint64, name string, t entries) error {
	o.mu.Lock()
	if o.closed() {
		o.mu.Unlock()
		return ErrClosed
	}
	old := o.tables.get(id)
	kept, isKept := old.(unknown)
	if old != nil && !isKept {
		o.mu.Unlock()
		return fmt.Errorf("cluster: table %q: the name is in use", name)
	}
	if isKept {
		if err := o.inherit(t, kept); err != nil {
			o.log.Warn("entries kept for a table can't be read", "table", name, "error", err)
		}
	}
	o.audiences(t)
	o.tables.put(id, t)
	run := o.takeAllParked()
	o.mu.Unlock()
	o.tellAttached()
	for _, p := range run {
		p.again()
	}
	return nil
}

// tellAttached tells a member that starts that its program is making its tables.
func (o *owner) tellAttached() {
	select {
	case o.attached <- struct{}{}:
	default:
	}
}

// detach ends a table, but keeps what it holds: this member may hold its slots,
// or be their backup, for others that have the table.
func (o *owner) detach(id uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	old := o.tables.get(id)
	if _, kept := old.(unknown); old == nil || kept {
		return
	}
	t := o.tables.newUnknown()
	o.tables.put(id, t) // from now on its operations are parked
	_ = o.inherit(t, old)
	o.audiences(t)
}

// inherit moves the entries of old to t.
func (o *owner) inherit(t, old entries) (first error) {
	now := o.clock.now()
	for slot := range uint16(store.Slots) {
		if err := inheritSlot(t, old, slot, now); err != nil && first == nil {
			first = err
		}
	}
	return first
}

func inheritSlot(t, old entries, slot uint16, now int64) error {
	old.Follow(slot, store.Follower, false)
	b, _, _ := old.Collect(slot, store.Follower, now, nil, math.MaxInt)
	old.Drop(slot)
	return t.Import(slot, b, now, false)
}

// audiences has those who follow a slot follow it in t too. owner.mu is held.
func (o *owner) audiences(t entries) {
	for slot := range uint16(store.Slots) {
		backup, follower := o.machine.Audience(slot)
		if backup {
			t.Follow(slot, store.Backup, false)
		}
		if follower {
			t.Follow(slot, store.Follower, false)
		}
	}
}

// tableEntries is a table as others see it.
type tableEntries[S, O, R any, M Machine[S, O, R]] struct {
	*store.Store[S, O, R, M]
	t *Table[S, O, R, M]
}

func (e tableEntries[S, O, R, M]) keysHere(prefix string, limit int) []string {
	return e.t.keysHere(prefix, limit)
}

// serve runs an operation that came from another member.
func (e tableEntries[S, O, R, M]) serve(r request) bool {
	o := e.t.owner
	m := e.Machine()
	op, err := m.ParseOp(r.op)
	if err != nil {
		o.reply(r.from, r.id, evBad, nil)
		return true
	}
	if r.again {
		if result, ok := o.recent.get(r.id); ok {
			o.reply(r.from, r.id, evAnswered, result)
			return true
		}
		if o.recent.waits(r.id) {
			return true // its first sending is answered, unless the slot is lost
		}
	}
	now := o.clock.now()
	call := Call{Now: now, ID: r.id, Again: r.again, WallOffset: o.clock.wallOffset(now)}
	var result R
	ticket, ran := e.Do(&o.gate, r.hash, r.key, &call, &op, &result)
	if ran == nil {
		return false
	}
	slot := uint16(r.hash % store.Slots)
	if ticket.Wait() {
		to, id := r.from, r.id
		o.recent.wait(id)
		e.Await(slot, ticket, func(acknowledged bool) {
			if acknowledged {
				e.answer(to, id, result)
			} // else: silence; the caller asks whoever holds the slot then
			o.recent.waited(id)
		})
		o.urge(slot)
		return true
	}
	if ran.Holds(o.clock.now()) {
		e.answer(r.from, r.id, result)
	}
	return true
}

func (e tableEntries[S, O, R, M]) answer(to replyTo, id uint64, result R) {
	buf := bufPool.Get().(*[]byte)
	*buf = e.Machine().AppendResult(append((*buf)[:0], byte(evAnswered)), result)
	e.t.owner.recent.put(id, (*buf)[1:])
	_ = e.t.owner.node.peers.Reply(to.via, peer.Message{Type: typeReply, ID: id, Payload: *buf})
	bufPool.Put(buf)
}

// newID returns an operation's ID.
func newID() uint64 { return rand.Uint64() }

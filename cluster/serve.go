package cluster

import (
	"encoding/binary"
	"slices"
	"sync"

	"github.com/cespare/xxhash/v2"

	"github.com/peerlimit/peerlimit/cluster/internal/peer"
	"github.com/peerlimit/peerlimit/cluster/internal/possess"
	"github.com/peerlimit/peerlimit/cluster/internal/store"
)

// Types of the frames between owners.
const (
	typeProtocol = peer.TypeUser + iota // a message of package possess
	typeOp                              // an operation on its way to the holder
	typeReply                           // its answer
)

// A reply's payload is one byte, the event that it becomes at the caller, and
// what belongs to it: the result, or where the slot has moved.

// replyTo is where an answer goes.
type replyTo struct {
	boot peer.Boot
	via  peer.Via
}

var bufPool = sync.Pool{New: func() any { b := make([]byte, 0, 256); return &b }}

// serve handles an operation from another member. It runs on the connection's
// reader and never waits: what has to wait is parked and answered later.
func (o *owner) serve(from peer.Boot, m peer.Message) {
	r, err := parseRequest(m.Payload)
	if err != nil {
		o.reply(replyTo{from, m.Via}, m.ID, evBad, nil)
		return
	}
	r.id, r.from, r.arrived = m.ID, replyTo{from, m.Via}, o.clock.now()
	r.hash = xxhash.Sum64(r.key)
	o.tryRequest(r)
}

// tryRequest runs r if that is possible here and now, or parks it, or answers
// where to go instead.
func (o *owner) tryRequest(r request) {
	t := o.tables.get(r.table)
	if t != nil && t.serve(r) {
		return
	}
	o.parkRequest(r)
}

// parkRequest is of its own so that r stays off the heap where it is not
// parked.
func (o *owner) parkRequest(r request) {
	again := r.parked
	switch ev := o.park(parked{slot: uint16(r.hash % store.Slots), tried: r.tried, request: &r}); {
	case ev.kind == evExpired:
		// Nothing is answered any more; the link will break.
	case ev.kind != evAgain:
		o.replyEvent(&r, ev)
	case !again:
		// So that its caller does not take waiting for silence.
		o.reply(r.from, r.id, evParked, nil)
	}
}

func (o *owner) replyEvent(r *request, ev outevent) {
	var b [16]byte
	switch ev.kind {
	case evMoved:
		binary.BigEndian.PutUint64(b[:], ev.to)
		binary.BigEndian.PutUint64(b[8:], ev.epoch)
		o.reply(r.from, r.id, evMoved, b[:])
	default:
		o.reply(r.from, r.id, ev.kind, nil)
	}
}

// reply sends an answer back the way its request came.
func (o *owner) reply(to replyTo, id uint64, kind eventKind, body []byte) {
	buf := bufPool.Get().(*[]byte)
	*buf = append(append((*buf)[:0], byte(kind)), body...)
	// An answer that can't be sent counts as lost; the caller asks again.
	_ = o.node.peers.Reply(to.via, peer.Message{Type: typeReply, ID: id, Payload: *buf})
	bufPool.Put(buf)
}

// replied handles an answer.
func (o *owner) replied(from peer.Boot, m peer.Message) {
	if len(m.Payload) == 0 {
		return
	}
	ev := outevent{kind: eventKind(m.Payload[0]), from: possess.ID(from)}
	switch body := m.Payload[1:]; ev.kind {
	case evAnswered:
		ev.setResult(body)
	case evMoved:
		if len(body) != 16 {
			return
		}
		ev.to, ev.epoch = binary.BigEndian.Uint64(body), binary.BigEndian.Uint64(body[8:])
	case evRefused, evBusy, evBad, evParked, evElsewhere:
	default:
		return
	}
	o.calls.deliver(m.ID, ev)
}

// parked is an operation that waits for its slot: another member's, or one of
// this member's own callers.
type parked struct {
	slot    uint16
	tried   possess.ID
	until   int64
	request *request // another member's
	call    *outcall // an own one
	callID  uint64
	owner   *owner
}

// maxParked bounds the operations that wait here.
const maxParked = 1 << 16

// park asks the machine what is to become of an operation that the gate has
// not let through. If it is to wait, it is kept, and evAgain is returned: for
// a request that means it will be tried again; a call gets evAgain as an event
// then. Else the event says what to answer.
func (o *owner) park(p parked) outevent {
	now := o.clock.now()
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed() {
		return outevent{kind: evExpired}
	}
	v := o.machine.Verdict(now, p.slot, p.tried)
	switch {
	case v.Do == possess.Moved:
		return outevent{kind: evMoved, to: v.To, epoch: v.Epoch}
	case v.Do == possess.Refuse:
		return outevent{kind: evRefused}
	case v.Do == possess.Elsewhere:
		return outevent{kind: evElsewhere}
	case o.waiting >= maxParked:
		return outevent{kind: evBusy}
	}
	p.until, p.owner = now+o.calls.time, o
	if p.request != nil {
		r := *p.request // its memory is the connection's
		r.key, r.op = slices.Clone(r.key), slices.Clone(r.op)
		r.parked = true
		p.request = &r
		p.until = r.arrived + o.calls.time
		for i := range o.parked[p.slot] {
			if q := &o.parked[p.slot][i]; q.request != nil && q.request.id == r.id {
				*q = p // sent again: it must not run twice
				return outevent{kind: evAgain}
			}
		}
	}
	o.parked[p.slot] = append(o.parked[p.slot], p)
	o.waiting++
	o.machine.Urge(now, p.slot) // where it is the backup's word that is missing
	o.rouse()
	if o.gate.Open(p.slot, now) && (p.request == nil || o.tables.get(p.request.table) != nil) {
		o.woken = append(o.woken, p.slot) // opened in between
	}
	return outevent{kind: evAgain}
}

// again tries a parked operation once more.
func (p parked) again() {
	if p.call != nil {
		p.owner.calls.deliver(p.callID, outevent{kind: evAgain})
		return
	}
	p.owner.tryRequest(*p.request)
}

// takeWoken returns the operations whose slots were woken. owner.mu is held.
func (o *owner) takeWoken() []parked {
	if len(o.woken) == 0 {
		return nil
	}
	var run []parked
	for _, slot := range o.woken {
		run = append(run, o.parked[slot]...)
		o.waiting -= len(o.parked[slot])
		delete(o.parked, slot)
	}
	o.woken = o.woken[:0]
	return run
}

func (o *owner) takeAllParked() []parked {
	for slot := range o.parked {
		o.woken = append(o.woken, slot)
	}
	return o.takeWoken()
}

// expireParked drops what nobody waits for any more. owner.mu is held.
func (o *owner) expireParked(now int64) {
	for slot, ps := range o.parked {
		n := len(ps)
		ps = slices.DeleteFunc(ps, func(p parked) bool { return now >= p.until })
		o.waiting -= n - len(ps)
		if len(ps) == 0 {
			delete(o.parked, slot)
		} else {
			o.parked[slot] = ps
		}
	}
}

// urge sends a slot's changes to its backup at once, for somebody waits.
func (o *owner) urge(slot uint16) {
	o.enter(func(now int64) { o.machine.Urge(now, slot) })
}

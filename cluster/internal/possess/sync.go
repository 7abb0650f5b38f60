package possess

import "github.com/peerlimit/peerlimit/cluster/internal/store"

// The two kinds of items that a slot may have waiting.
const (
	toBackup = 0
	toOther  = 1 // to a follower, to the next holder, to the winner of a merge
)

// work is an item waiting to be made.
type work struct {
	slot  uint16
	to    int
	since int64 // when it was queued
}

// flight is the Sync under way to a pair, kept until it is acknowledged.
type flight struct {
	msg     *Sync
	sent    int64 // for the last time
	encoded int64
	size    int
	items   []flying
}

type flying struct {
	number  uint64
	slot    uint16
	to      int
	as      As
	epoch   uint64
	view    uint32
	drained bool
	since   int64 // when it was queued
}

func (m *Machine) queueItem(p *pair, slot uint16, to int) {
	st := &m.slots[slot]
	if st.queued[to] || st.flying[to] != 0 {
		return
	}
	st.queued[to] = true
	p.queue = append(p.queue, work{slot, to, m.now})
	if !p.busy {
		p.busy = true
		m.busy = insert(m.busy, p)
	}
}

// queueBackup queues the changes of a slot for its backup.
func (m *Machine) queueBackup(slot uint16) {
	if st := &m.slots[slot]; st.role == roleHolder && st.backup != 0 {
		m.queueItem(m.pair(st.backup), slot, toBackup)
	}
}

// smallBytes is the size of a Sync below which its loss is assumed early.
const smallBytes = 16 << 10

// syncItems is how many items a Sync has at most: those that somebody begins to
// wait for wait for the one under way first.
const syncItems = 512

// pump sends what waits for p, or what is under way once more. What somebody
// waits for goes by itself, before the rest.
func (m *Machine) pump(p *pair) {
	if p.gone {
		p.queue, p.urgent = nil, nil
		return
	}
	if f := p.flight; f != nil {
		patience := m.cfg.Suspect
		if f.size < smallBytes {
			patience /= 2
		}
		if m.now-f.sent >= patience {
			m.transmit(p, f)
		}
		return
	}
	f := m.load(p, &p.urgent) // these are in queue as well, where they will be found done
	if f == nil {
		f = m.load(p, &p.queue)
	}
	if f == nil {
		return
	}
	p.seq++
	f.msg.Seq = p.seq
	p.flight = f
	m.transmit(p, f)
}

// load makes a flight of the items that wait in from, as many as it takes. nil:
// there is no reason to send any of them any more.
func (m *Machine) load(p *pair, from *[]work) *flight {
	if len(*from) == 0 {
		return nil
	}
	most := min(len(*from), syncItems)
	f := &flight{msg: &Sync{Items: make([]SyncItem, 0, most)}, items: make([]flying, 0, most), encoded: m.now}
	for len(*from) > 0 && len(f.items) < most && f.size < m.cfg.SyncBytes {
		w := (*from)[0]
		*from = (*from)[1:]
		f.size += m.makeItem(p, w, f, m.cfg.SyncBytes-f.size)
	}
	if len(*from) == 0 {
		*from = nil
	}
	if len(f.items) == 0 {
		return nil
	}
	return f
}

func (m *Machine) transmit(p *pair, f *flight) {
	msg := *f.msg // receivers in a simulator keep what they get
	msg.Sent, msg.Term, msg.YourTerm, msg.Echo = m.now, p.term, p.myTerm, p.stamp
	msg.Age, msg.Draining = m.now-f.encoded, m.draining
	f.sent = m.now
	if f.size < smallBytes {
		p.beatSent = m.now // its acknowledgement renews the grant as well
	}
	for i := range f.items {
		if f.items[i].as == AsHolder { // which carries a grant
			p.promised = max(p.promised, m.now+m.cfg.Grant)
			break
		}
	}
	m.port.Send(p.id, &msg)
}

// makeItem adds an item to f, if there is still reason to, and returns its
// size.
func (m *Machine) makeItem(p *pair, w work, f *flight, room int) int {
	st := &m.slots[w.slot]
	if !st.queued[w.to] || st.flying[w.to] != 0 {
		return 0 // done with since
	}
	it := SyncItem{Slot: w.slot, Epoch: st.epoch, View: st.view}
	var drained bool
	switch {
	case w.to == toBackup:
		if st.role != roleHolder || st.backup != p.id {
			return 0 // meant for another since
		}
		if st.cover != 0 && st.cover != p.id && st.under == nil {
			m.freeze(w.slot, st)
		}
		it.As, it.Fresh = AsBackup, st.fresh
		it.Entries, drained = m.port.Collect(w.slot, store.Backup, nil, room)
		it.Complete = drained
	case st.merging:
		if st.holder != p.id {
			return 0
		}
		it.As = AsMerge
		it.Entries, drained = m.port.Collect(w.slot, store.Follower, nil, room)
	case st.role == roleHolder && st.follower == p.id:
		if st.toHolder && st.ffull && (m.prompt(p, st) || st.backup == p.id) {
			if !m.give(p, w.slot, st, &it) {
				st.queued[w.to] = false
				return 0
			}
			drained = true
			break
		}
		it.As, it.Fresh = AsFollower, st.ffresh
		it.Entries, drained = m.port.Collect(w.slot, store.Follower, nil, room)
	default:
		return 0
	}
	m.items++
	st.queued[w.to], st.flying[w.to] = false, m.items
	f.msg.Items = append(f.msg.Items, it)
	f.items = append(f.items, flying{m.items, w.slot, w.to, it.As, it.Epoch, it.View, drained, w.since})
	return len(it.Entries) + 24
}

// prompt reports whether p has answered quickly just now, or was waited for long
// enough: on a slow machine nobody is quick, and slots have to move all the
// same.
func (m *Machine) prompt(p *pair, st *slotState) bool {
	return p.trip <= m.cfg.Prompt || m.now-st.since > promptPatience || m.cfg.Broken.GiveWithoutGrant
}

const promptPatience = 500_000_000 // 500 ms

// giveBytes is the most that may be left to send when a slot changes hands.
const giveBytes = 512 << 10

// give makes the item that hands slot over to p, its follower: in one message
// this member gives up possession, becomes p's backup and grants. It does so
// only while its own grant holds, and to one who has answered promptly: until p
// has taken it, nobody serves the slot.
func (m *Machine) give(p *pair, slot uint16, st *slotState, it *SyncItem) bool {
	if !m.mayServe(st) && !m.cfg.Broken.GiveWithoutGrant || m.lost(p.id) || !m.prompt(p, st) {
		return false
	}
	m.port.Shut(slot)
	list := store.Follower
	if st.backup == p.id {
		list = store.Backup
	}
	entries, drained := m.port.Collect(slot, list, nil, giveBytes)
	if !drained {
		// Changes come faster than they go; what was collected counts as
		// lost, and the follower starts again.
		m.cancelFollower(slot, st)
		if list == store.Backup {
			m.restartBackup(slot, st)
		}
		m.gate(slot)
		return false
	}
	it.As, it.Epoch, it.View, it.Entries, it.Complete = AsHolder, st.epoch+1, 1, entries, true
	st.released = st.backup
	m.stir(slot)
	p.copies++
	st.epoch, st.view, st.holder, st.backup = st.epoch+1, 1, p.id, m.cfg.Self
	st.role, st.full, st.giving, st.claim = roleCopy, true, true, nil
	st.coverBy(0)
	st.follower, st.toHolder, st.ffull = 0, false, false
	st.queued[toBackup], st.flying[toBackup] = false, 0
	m.port.Note(Event{Gave, slot, p.id})
	return true
}

// restartBackup has the backup start anew.
func (m *Machine) restartBackup(slot uint16, st *slotState) {
	m.stir(slot)
	st.fresh, st.full = true, false
	m.port.Follow(slot, store.Backup, false)
}

// dropFlight gives up what is under way to p, and what waits for it. Whoever
// was to get it starts anew.
func (m *Machine) dropFlight(p *pair) {
	var items []flying
	if p.flight != nil {
		items = p.flight.items
	}
	for _, w := range p.queue {
		m.slots[w.slot].queued[w.to] = false
	}
	p.flight, p.queue, p.urgent = nil, nil, nil
	for _, it := range items {
		st := &m.slots[it.slot]
		if st.flying[it.to] != it.number {
			continue
		}
		st.flying[it.to] = 0
		m.stir(it.slot)
		switch {
		case it.to == toBackup && st.role == roleHolder && st.backup == p.id:
			m.restartBackup(it.slot, st)
		case it.to == toOther && st.role == roleHolder && st.follower == p.id:
			m.cancelFollower(it.slot, st)
		case it.to == toOther && st.merging && st.holder == p.id:
			m.port.Follow(it.slot, store.Follower, false)
		}
	}
}

func (m *Machine) onSync(p *pair, s *Sync) {
	p.stamp = max(p.stamp, s.Sent)
	m.leaving(p, s.Draining)
	if s.Term == p.myTerm {
		p.promised = max(p.promised, m.now+m.cfg.Grant)
	}
	switch {
	case p.lastAck != nil && s.Seq < p.lastSeq:
		return // an old copy
	case s.Seq == p.lastSeq && p.lastAck != nil:
		ack := *p.lastAck
		ack.Sent, ack.Now, ack.Term = s.Sent, m.now, p.myTerm
		m.port.Send(p.id, &ack)
		return
	}
	ack := &SyncAck{Seq: s.Seq, Sent: s.Sent, Now: m.now}
	for i := range s.Items {
		it := &s.Items[i]
		if !m.valid(it.Slot) {
			continue
		}
		if k, refused := m.accept(p, s, it); refused {
			ack.Refused = append(ack.Refused, k)
		}
	}
	ack.Term, ack.Draining = p.myTerm, m.draining
	p.lastSeq, p.lastAck = s.Seq, ack
	m.port.Send(p.id, ack)
}

// accept takes an item in, or says why not.
func (m *Machine) accept(p *pair, s *Sync, it *SyncItem) (Known, bool) {
	st := &m.slots[it.Slot]
	m.stir(it.Slot)
	refuse := func() (Known, bool) { return m.known(it.Slot), true }
	later := func() (Known, bool) {
		k := m.known(it.Slot)
		k.Busy = true
		return k, true
	}
	switch it.As {
	case AsBackup, AsFollower:
		sameReign := st.epoch == it.Epoch && st.holder == p.id
		switch {
		case it.Epoch < st.epoch, it.Epoch == st.epoch && st.holder > p.id, sameReign && it.View < st.view:
			return refuse()
		case st.role == roleHolder:
			m.outranked(it.Slot, st, Known{Epoch: it.Epoch, View: it.View, Holder: p.id, Stand: StandHolder})
			return later()
		case st.merging:
			// What is kept of an older reign goes to the holder first.
			m.learn(it.Slot, Known{Slot: it.Slot, Epoch: it.Epoch, View: it.View, Holder: p.id, Stand: StandHolder})
			return later()
		case m.promised(st, p.id, rank{epoch: it.Epoch, view: it.View, full: true}):
			return later()
		case !it.Fresh && (!sameReign || st.role == roleNone):
			return later() // there is nothing here to add to
		}
		if st.giving && sameReign {
			m.given(it.Slot, st) // it holds what it was given; the acknowledgement is late
		}
		if it.Fresh || !sameReign {
			m.drop(it.Slot, st)
		}
		if m.port.Import(it.Slot, it.Entries, s.Age, false) != nil {
			m.drop(it.Slot, st)
			return later()
		}
		st.epoch, st.view, st.holder = it.Epoch, it.View, p.id
		st.claim, st.since = nil, m.now
		if it.As == AsBackup {
			if st.role != roleCopy {
				p.copies++
			}
			st.role, st.backup = roleCopy, m.cfg.Self
			st.full = st.full || it.Complete
			// Whether the sender knows this member's term or not: it was
			// heard, and nobody takes over from it before it is silent.
			p.promised = max(p.promised, m.now+m.cfg.Grant)
		} else {
			st.role, st.full = roleFollower, false
		}
		m.port.Wake(it.Slot)
	case AsHolder:
		switch {
		case st.epoch >= it.Epoch:
			return refuse()
		case st.epoch != it.Epoch-1, st.holder != p.id, st.role != roleFollower && (st.role != roleCopy || !st.full),
			m.draining, m.promised(st, p.id, rank{epoch: it.Epoch, full: true}),
			m.port.Import(it.Slot, it.Entries, s.Age, false) != nil:
			// Refused for good: that epoch will not be held here.
			m.forsake(it.Slot, st, it.Epoch)
			return later()
		}
		m.granted(p, s.Echo, s.YourTerm)
		st.role, st.epoch, st.view, st.holder = roleHolder, it.Epoch, it.View, m.cfg.Self
		st.backup, st.full, st.fresh, st.claim, st.giving = p.id, true, false, nil, false
		st.queued, st.flying = [2]bool{}, [2]uint64{}
		st.follower, st.ffull = 0, false
		p.backs++
		m.port.Follow(it.Slot, store.Backup, true) // the giver has it all
		if s.YourTerm == p.term {
			p.grant.Extend(s.Echo + m.cfg.Grant)
			st.coverBy(p.id)
		}
		m.port.Note(Event{Received, it.Slot, p.id})
		m.gate(it.Slot)
	case AsMerge:
		if st.role != roleHolder || it.Epoch > st.epoch {
			return refuse()
		}
		if m.port.Import(it.Slot, it.Entries, s.Age, true) != nil {
			return Known{}, false // nothing that would be better another time
		}
		m.port.Note(Event{Merged, it.Slot, p.id})
	}
	return Known{}, false
}

// promised reports whether a promise to another stands in the way of rank r.
func (m *Machine) promised(st *slotState, id ID, r rank) bool {
	pr := &st.promise
	return pr.to != 0 && pr.to != id && m.now < pr.until && r.less(pr.rank) && !m.dead(pr.to)
}

// forsake remembers that epoch was offered to this member and not taken.
func (m *Machine) forsake(slot uint16, st *slotState, epoch uint64) {
	m.drop(slot, st)
	st.epoch, st.view, st.holder, st.backup = epoch, 0, 0, 0
}

// leaving notes that p says of itself that it leaves.
func (m *Machine) leaving(p *pair, says bool) {
	if says && !p.draining {
		p.draining = true
		m.leavers++
		m.reorder()
	}
}

func (m *Machine) onSyncAck(p *pair, a *SyncAck) {
	p.stamp = max(p.stamp, a.Now)
	m.leaving(p, a.Draining)
	m.granted(p, a.Sent, a.Term)
	f := p.flight
	if f == nil || a.Seq != f.msg.Seq {
		return
	}
	p.flight = nil
	refused := map[uint16]Known{}
	for _, k := range a.Refused {
		refused[k.Slot] = k
	}
	for _, it := range f.items {
		k, no := refused[it.slot]
		m.landed(p, it, k, no)
	}
}

// landed handles the fate of one item.
func (m *Machine) landed(p *pair, it flying, k Known, refused bool) {
	st := &m.slots[it.slot]
	if st.flying[it.to] != it.number {
		return // of no interest any more
	}
	st.flying[it.to] = 0
	m.stir(it.slot)
	switch it.as {
	case AsBackup:
		if refused {
			m.learn(it.slot, k)
			if st.role == roleHolder && st.backup == p.id {
				m.restartBackup(it.slot, st)
				if st.cover == p.id {
					st.coverBy(0)
					m.gate(it.slot)
				}
			}
			return // asked again by the next scan
		}
		m.port.Acked(it.slot, store.Backup)
		st.fresh = false
		if st.cover != p.id || st.under != nil {
			old := st.cover
			st.coverBy(p.id)
			m.gate(it.slot)
			if old != p.id {
				m.announce(old, it.slot)
			}
		}
		st.full = st.full || it.drained
		switch owes, awaited := m.port.Owes(it.slot); {
		case !it.drained || owes && awaited:
			m.queueItem(p, it.slot, toBackup)
		case owes:
			m.later = append(m.later, it.slot)
		}
	case AsFollower:
		if refused {
			m.learn(it.slot, k)
			if st.role == roleHolder {
				m.cancelFollower(it.slot, st)
			}
			return
		}
		m.port.Acked(it.slot, store.Follower)
		st.ffresh = false
		st.ffull = st.ffull || it.drained
		switch {
		case !st.ffull || st.toHolder:
			m.queueItem(p, it.slot, toOther)
		case it.drained && !m.mayServe(st):
			// Perhaps the backup has taken over: nobody else is named
			// without asking. The next scan sees.
		case it.drained:
			m.promote(it.slot, st)
		default:
			m.queueItem(p, it.slot, toOther)
		}
	case AsHolder:
		if refused {
			st.giving = false
			m.learn(it.slot, k)
			if st.role == roleCopy && st.epoch == it.epoch {
				// It will never hold that epoch: take the slot back.
				m.reign(it.slot, st)
			}
			return
		}
		m.given(it.slot, st)
	case AsMerge:
		switch {
		case refused:
			m.learn(it.slot, k)
			m.port.Follow(it.slot, store.Follower, false) // all of it, to whoever holds it
		case it.drained:
			m.drop(it.slot, st)
			m.port.Wake(it.slot)
		default:
			m.port.Acked(it.slot, store.Follower)
			m.queueItem(p, it.slot, toOther)
		}
	}
}

// given ends a hand-over: the new holder has acknowledged it.
func (m *Machine) given(slot uint16, st *slotState) {
	m.stir(slot)
	st.giving = false
	m.port.Unfollow(slot, store.Follower, true)
	m.port.Unfollow(slot, store.Backup, true)
	m.announce(st.released, slot)
	m.port.Wake(slot)
}

// drop forgets the entries of a slot that is not possessed here, not what is
// known of it.
func (m *Machine) drop(slot uint16, st *slotState) {
	m.stir(slot)
	m.port.Drop(slot)
	st.role, st.follower, st.full, st.giving, st.merging, st.claim = roleNone, 0, false, false, false, nil
	st.queued, st.flying = [2]bool{}, [2]uint64{}
}

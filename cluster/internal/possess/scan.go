package possess

import (
	"math/bits"

	"github.com/peerlimit/peerlimit/cluster/internal/store"
)

// scan looks slots over: who should hold and back them, and what has fallen
// silent. That is those that are restless, all when somebody that matters falls
// silent or is back, and all now and then: what is settled changes only with the
// view, by a message, or with time.
func (m *Machine) scan() {
	stirred := false
	for _, p := range m.peers {
		lost := m.lostPair(p)
		if lost {
			p.silentAt = m.now
		}
		fallen := [...]bool{p.backs > 0 && lost, p.copies > 0 && m.silentHolder(p)}
		stirred = stirred || fallen != p.fallen
		p.fallen, p.moving = fallen, 0
	}
	if stirred || m.scanned == 0 || m.now-m.scanned >= scanAllEvery {
		m.scanned = m.now
		m.count()
		if !stirred && len(m.claims) == 0 {
			m.slim()
		}
		for s := range m.slots {
			m.stir(uint16(s))
		}
	}
	m.eachRestless(func(slot uint16, st *slotState) {
		if st.role == roleHolder && st.follower != 0 {
			m.pair(st.follower).moving++
		}
	})
	m.eachRestless(func(slot uint16, st *slotState) {
		if m.settled(slot, st) && !m.onLost(st) {
			m.rest(slot)
			return
		}
		switch st.role {
		case roleHolder:
			m.scanHeld(slot, st)
		case roleCopy, roleFollower:
			m.scanCopy(slot, st)
		default:
			m.scanNone(slot, st)
		}
	})
}

// scanAllEvery is how often all slots are looked over though nothing stirs.
const scanAllEvery = 1_000_000_000 // 1 s

// stir has the next scan look at slot. Whoever changes what a slot is here calls
// it.
func (m *Machine) stir(slot uint16) { m.restless[slot/64] |= 1 << (slot % 64) }

func (m *Machine) rest(slot uint16) { m.restless[slot/64] &^= 1 << (slot % 64) }

func (m *Machine) eachRestless(f func(slot uint16, st *slotState)) {
	for i := range m.restless {
		for w := m.restless[i]; w != 0; w &= w - 1 {
			slot := i*64 + bits.TrailingZeros64(w)
			f(uint16(slot), &m.slots[slot])
		}
	}
}

// count counts anew what pairs back and have copies of here. In between they
// are counted up only.
func (m *Machine) count() {
	for _, p := range m.peers {
		p.backs, p.copies = 0, 0
	}
	for s := range m.slots {
		switch st := &m.slots[s]; st.role {
		case roleCopy:
			m.pair(st.holder).copies++
		case roleHolder:
			if st.backup != 0 {
				m.pair(st.backup).backs++
			}
			if st.cover != 0 && st.cover != st.backup && st.cover != m.cfg.Self {
				m.pair(st.cover).backs++
			}
		}
	}
}

// silentHolder reports whether p, a holder, is dead or has sent no beat for too
// long.
func (m *Machine) silentHolder(p *pair) bool { return m.now > m.suspectAt(p) || m.deadPair(p) }

// onLost reports whether slot's other copy is with somebody silent.
func (m *Machine) onLost(st *slotState) bool {
	switch st.role {
	case roleHolder:
		return st.backup != 0 && m.lost(st.backup)
	case roleCopy:
		return m.silentHolder(m.pair(st.holder))
	}
	return false
}

// settled reports whether slot is held and backed as the ring says, so that
// only somebody's silence, or time, could change that.
func (m *Machine) settled(slot uint16, st *slotState) bool {
	order := m.order(slot)
	switch st.role {
	case roleHolder:
		if order[0] == m.cfg.Self && order[1] == 0 {
			return st.cover == m.cfg.Self && st.backup == 0 && st.follower == 0 // there is nobody else
		}
		return order[0] == m.cfg.Self && st.backup != 0 && order[1] == st.backup && st.cover == st.backup && st.full && st.follower == 0
	case roleCopy:
		return order[0] == st.holder && order[1] == m.cfg.Self && st.full && !st.giving && m.now-st.since <= checkAfter
	case roleNone:
		return order[0] != m.cfg.Self && !st.merging
	}
	return false
}

func (m *Machine) scanHeld(slot uint16, st *slotState) {
	order := m.order(slot)
	if st.follower != 0 && (m.lost(st.follower) || !m.wants(slot, st)) {
		m.cancelFollower(slot, st)
	}
	switch {
	case st.cover == m.cfg.Self && st.backup == 0: // alone
		if st.follower == 0 {
			to := m.firstOther(order)
			m.follow(slot, st, to, to == order[0])
		} else {
			m.queueItem(m.pair(st.follower), slot, toOther)
		}
		return
	case st.backup == 0 || m.lost(st.backup):
		if m.replaceable(st.backup) {
			m.startClaim(slot, ClaimRename)
		}
		return
	case m.firstOther(order) == 0 && order[0] == m.cfg.Self:
		// The backup is leaving, and nobody else is there.
		old := st.backup
		m.goAlone(slot, st)
		m.announce(old, slot)
		return
	case st.cover != st.backup || !st.full:
		m.queueItem(m.pair(st.backup), slot, toBackup)
		return
	}
	if st.follower != 0 {
		m.queueItem(m.pair(st.follower), slot, toOther)
		return
	}
	switch to := order[0]; {
	case to != m.cfg.Self && to != 0 && !m.lost(to):
		m.follow(slot, st, to, true)
	default:
		// A backup that leaves waits for whoever is there.
		if to := m.firstOther(order); to != 0 && to != st.backup && (m.steady(to) || m.pair(st.backup).draining) {
			m.follow(slot, st, to, false)
		}
	}
}

// wants reports whether the follower still is who it should be.
func (m *Machine) wants(slot uint16, st *slotState) bool {
	order := m.order(slot)
	if st.toHolder {
		return order[0] == st.follower
	}
	return order[0] == m.cfg.Self && m.firstOther(order) == st.follower || st.cover == m.cfg.Self ||
		m.lost(order[0])
}

// steady reports whether id has not been silent lately, so that slots don't
// go to and fro with one that comes and goes.
func (m *Machine) steady(id ID) bool {
	p := m.pair(id)
	return p.silentAt == 0 || m.now-p.silentAt > m.cfg.Steady
}

// firstOther returns the first of a slot's order that can be its backup.
func (m *Machine) firstOther(order [4]ID) ID {
	for _, id := range order {
		if id != 0 && id != m.cfg.Self && !m.lost(id) {
			return id
		}
	}
	return 0
}

// follow starts to bring a member up to date, so that it can become holder or
// backup without the slot ever being without a full copy.
func (m *Machine) follow(slot uint16, st *slotState, id ID, toHolder bool) {
	if id == 0 {
		return
	}
	p, most := m.pair(id), m.cfg.MoveSlots
	if st.backup == 0 {
		most *= 4 // nobody else has the slot: that is more urgent than that calls wait less
	}
	if p.moving >= most {
		return
	}
	p.moving++
	st.follower, st.toHolder, st.since = id, toHolder, m.now
	if toHolder && id == st.backup {
		st.ffull = true // it has everything already
	} else {
		st.ffresh, st.ffull = true, false
		m.port.Follow(slot, store.Follower, false)
	}
	st.queued[toOther], st.flying[toOther] = false, 0
	m.queueItem(p, slot, toOther)
	m.foretell(slot, st, p)
}

// foretell tells a slot's backup of a member that may soon be in its place, or
// hold the slot, and that it may not know yet. Where that has come about, and
// this member falls silent before the backup has heard of it, the backup has
// somebody more to ask.
func (m *Machine) foretell(slot uint16, st *slotState, next *pair) {
	if st.backup != next.id && m.now-next.met <= m.cfg.Steady {
		m.say(st.backup, Known{Slot: slot, Epoch: st.epoch, View: st.view, Holder: m.cfg.Self, Backup: next.id, Stand: StandCopy})
	}
}

// foretold takes note of what a holder foretells.
func (m *Machine) foretold(holder *pair, k Known) bool {
	st := &m.slots[k.Slot]
	if k.Stand != StandCopy || k.Holder != holder.id || k.Backup == m.cfg.Self {
		return false
	}
	if st.role == roleCopy && k.Holder == st.holder && k.Epoch == st.epoch && k.View == st.view {
		st.follower = k.Backup
	}
	return true
}

func (m *Machine) cancelFollower(slot uint16, st *slotState) {
	m.port.Unfollow(slot, store.Follower, false)
	st.follower, st.toHolder, st.ffresh, st.ffull = 0, false, false, false
	st.queued[toOther], st.flying[toOther] = false, 0
}

// promote makes the follower, which has everything, the backup. Until it has
// acknowledged that, the slot goes on under the grant of the one before.
func (m *Machine) promote(slot uint16, st *slotState) {
	m.port.Promote(slot)
	st.backup, st.view = st.follower, st.view+1
	st.fresh, st.full = false, true
	st.follower, st.toHolder, st.ffull = 0, false, false
	st.queued, st.flying = [2]bool{}, [2]uint64{}
	p := m.pair(st.backup)
	if p.backs == 0 {
		p.beatSent, p.acked = 0, m.now
	}
	p.backs++
	m.queueItem(p, slot, toBackup)
}

func (m *Machine) scanCopy(slot uint16, st *slotState) {
	h := m.pair(st.holder)
	switch {
	case m.dead(st.holder), st.role == roleCopy && m.now > m.suspectAt(h):
		m.startClaim(slot, ClaimTake)
	case st.role == roleFollower && m.now-st.since > staleAfter:
		m.drop(slot, st) // the holder has thought better of it
	case st.role == roleCopy && !st.giving && (m.now-st.since > checkAfter || m.now-st.since > staleAfter && !m.expected(slot)):
		// Perhaps the word that another was named got lost, or the holder
		// is none any more. Ask it, sooner where a copy is not expected.
		st.since, st.follower = m.now, 0
		m.ask(h, slot, ClaimTake)
	}
}

const (
	staleAfter = 1_000_000_000 // 1 s
	checkAfter = 5_000_000_000 // 5 s
)

// expected reports whether this member is first or second in ring order.
func (m *Machine) expected(slot uint16) bool {
	order := m.order(slot)
	return !m.draining && (order[0] == m.cfg.Self || order[1] == m.cfg.Self)
}

func (m *Machine) scanNone(slot uint16, st *slotState) {
	if st.merging {
		switch {
		case m.now-st.since > mergePatience:
			m.drop(slot, st) // nobody holds it who would take it
		case !m.dead(st.holder) && st.holder != m.cfg.Self:
			m.queueItem(m.pair(st.holder), slot, toOther)
		}
		return
	}
	if m.first(slot) != m.cfg.Self {
		return
	}
	wait := m.cfg.Grant
	switch {
	case st.epoch == 0, m.cfg.Broken.EmptyBesideCopy:
		wait = m.cfg.Suspect
	case !m.dead(st.holder):
		wait = staleAfter // it will hand the slot over
	}
	if st.since == 0 {
		st.since = m.now
	}
	if m.now-st.since >= wait || len(m.view.Alive) == 1 {
		m.startClaim(slot, ClaimFound)
	}
}

const mergePatience = 10_000_000_000 // 10 s

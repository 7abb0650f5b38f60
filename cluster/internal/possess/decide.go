package possess

import (
	"slices"

	"github.com/peerlimit/peerlimit/cluster/internal/store"
)

// decideTake: a backup takes over when its promise to the holder has run out
// and, of all that it asked, at most one is silent and nobody objects.
func (m *Machine) decideTake(slot uint16, st *slotState) {
	if st.role != roleCopy && st.role != roleFollower {
		st.claim = nil
		return
	}
	h := m.pair(st.holder)
	dead := m.dead(st.holder)
	if !dead && !st.claim.favours(st.holder, m.now-m.cfg.Fresh) { // it has not said that it holds nothing
		switch {
		case m.now < m.suspectAt(h): // it is back
			st.claim = nil
			m.port.Wake(slot)
			return
		case m.now < h.promised, m.now-h.heard <= m.cfg.Suspect:
			return
		}
	}
	if !m.cfg.Broken.StaleBackupTakes {
		ok, not, silent, pending := m.tally(st.claim, st.holder)
		switch {
		case not > 0 || pending > 0:
			return
		case !st.full && silent > 0:
			return // what it has is not all: only where nobody can have more
		case silent > 1 && (ok > 0 || m.now-st.claim.from < 2*m.cfg.Suspect || !m.cutOff(st.claim)):
			return
		}
	}
	from := st.holder
	m.endGrant(h)
	if st.giving {
		m.dropFlight(h) // no hand-over under way may carry the new term
	}
	m.port.Note(Event{TookOver, slot, from})
	m.reign(slot, st)
}

// suspectAt returns when a holder whose last beat is that old is suspected.
func (m *Machine) suspectAt(p *pair) int64 {
	return p.promised - m.cfg.Grant + m.cfg.Beat + m.cfg.Suspect
}

// decideRename: a holder names another backup when the one it has is silent
// and nobody, but for one more at most, knows of a later reign or view.
func (m *Machine) decideRename(slot uint16, st *slotState) {
	if st.role != roleHolder {
		st.claim = nil
		return
	}
	for _, a := range st.claim.asks {
		if a.to == st.backup && a.answered != 0 && !m.pair(a.to).gone {
			m.pair(a.to).acked = m.now // it is back
			st.claim = nil
			return
		}
	}
	switch b := m.lookup(st.backup); {
	case b == nil || m.deadPair(b):
	case !m.silent(b): // it is back
		st.claim = nil
		return
	case m.now-b.acked < m.cfg.Replace:
		return // it may be back before its grant runs out
	}
	ok, not, silent, pending := m.tally(st.claim, st.backup)
	switch {
	case not > 0 || pending > 0:
	case ok > 0 && silent <= 1:
		m.chooseBackup(slot, st)
	case ok == 0 && (silent == 0 || m.now-st.claim.from >= m.cfg.Suspect && m.now-st.claim.from >= int64(silent)*m.cfg.Suspect && m.cutOff(st.claim)):
		m.goAlone(slot, st)
	}
}

// decideFound: a slot's first starts it empty when every living member, and
// everybody named in an answer, has neither possession nor copy.
func (m *Machine) decideFound(slot uint16, st *slotState) {
	if st.role != roleNone || st.merging || m.first(slot) != m.cfg.Self || m.short {
		st.claim = nil
		return
	}
	for _, a := range st.claim.asks {
		if a.answered != 0 && a.stand != StandNone && !m.cfg.Broken.EmptyBesideCopy {
			// It is held or will be taken over; whoever does hands it over.
			st.claim, st.since = nil, m.now
			return
		}
	}
	_, not, silent, pending := m.tally(st.claim, 0)
	if not > 0 || silent > 0 || pending > 0 {
		return
	}
	// A named member that is neither in the view nor known to be dead may
	// be beyond a split; it is waited for, but not for ever.
	for _, id := range []ID{st.holder, st.backup} {
		if id != 0 && id != m.cfg.Self && !m.alive[id] && !m.dead(id) && m.now-st.since < foundPatience {
			return
		}
	}
	m.port.Note(Event{Started, slot, st.holder})
	m.reign(slot, st)
}

const foundPatience = 3_000_000_000 // 3 s

// reign makes this member the holder at the next epoch and names a backup.
func (m *Machine) reign(slot uint16, st *slotState) {
	m.stir(slot)
	c := st.claim
	st.role, st.epoch, st.view, st.holder = roleHolder, st.epoch+1, 0, m.cfg.Self
	st.backup, st.follower, st.full, st.giving = 0, 0, false, false
	st.coverBy(0)
	st.promise = promise{}
	st.queued, st.flying = [2]bool{}, [2]uint64{}
	m.chooseBackup(slot, st)
	if c != nil {
		for _, a := range c.asks {
			if a.to != st.backup { // which hears it with its copy
				m.announce(a.to, slot)
			}
		}
	}
}

// chooseBackup names the next in ring order of those who answered the claim in
// favour; without a claim, of those who are not known to be silent. Somebody may
// be waiting for the backup's answer, so one that is busy starting comes after
// the others. Where the claim had nobody to ask, or nobody answered, it goes
// alone; else it asks again.
func (m *Machine) chooseBackup(slot uint16, st *slotState) {
	c := st.claim
	newcomer := ID(0)
	for _, id := range m.order(slot) {
		if id == 0 || id == m.cfg.Self || m.lost(id) || c != nil && !c.favours(id, m.now-m.cfg.Fresh) {
			continue
		}
		if m.now-m.pair(id).met > m.cfg.Steady {
			m.name(slot, st, id)
			return
		}
		if newcomer == 0 {
			newcomer = id
		}
	}
	if newcomer != 0 {
		m.name(slot, st, newcomer)
		return
	}
	st.claim = nil
	if c != nil && c.unheard() || len(m.view.Alive) <= 1 {
		m.goAlone(slot, st)
		return
	}
	m.startClaim(slot, ClaimRename)
}

func (c *claim) favours(id ID, since int64) bool {
	for _, a := range c.asks {
		if a.to == id {
			return a.ok && a.answered >= since
		}
	}
	return false
}

// unheard reports that nobody has answered, or there was nobody to ask.
func (c *claim) unheard() bool {
	return !slices.ContainsFunc(c.asks, func(a ask) bool { return a.answered != 0 })
}

// name makes id the backup, which has nothing yet. The slot goes on under the
// grant of the one before as long as that runs.
func (m *Machine) name(slot uint16, st *slotState, id ID) {
	m.stir(slot)
	st.claim = nil
	st.backup, st.view = id, st.view+1
	st.fresh, st.full = true, false
	st.queued[toBackup], st.flying[toBackup] = false, 0
	if st.follower == id {
		m.cancelFollower(slot, st)
	}
	m.port.Follow(slot, store.Backup, false)
	m.port.Note(Event{Unprotected, slot, id})
	p := m.pair(id)
	if p.backs == 0 {
		p.beatSent, p.acked = 0, m.now
	}
	p.backs++
	m.queueItem(p, slot, toBackup)
	if _, awaited := m.port.Owes(slot); awaited {
		m.hurry(p, slot) // since the one before fell silent
	}
}

// goAlone serves without a backup, until the next gap of the own clock.
func (m *Machine) goAlone(slot uint16, st *slotState) {
	if m.short {
		return
	}
	m.stir(slot)
	st.claim = nil
	st.backup, st.view, st.full = 0, st.view+1, false
	st.queued[toBackup], st.flying[toBackup] = false, 0
	st.coverBy(m.cfg.Self)
	m.port.Unfollow(slot, store.Backup, true)
	m.port.Note(Event{Alone, slot, 0})
	m.gate(slot)
}

// learn takes in what somebody knows of a slot, if it is later than what this
// member knows: by epoch, then by the holder's boot ID, then by view.
func (m *Machine) learn(slot uint16, k Known) {
	st := &m.slots[slot]
	m.stir(slot)
	if k.Holder == 0 || k.Holder == m.cfg.Self && st.role != roleHolder {
		// Nobody, or this member, to which it is under way.
		if st.role == roleNone && k.Epoch > st.epoch {
			st.epoch, st.view, st.holder, st.backup = k.Epoch, k.View, 0, 0
		}
		return
	}
	switch {
	case k.Epoch > st.epoch || k.Epoch == st.epoch && k.Holder > st.holder:
		if st.role == roleHolder {
			m.outranked(slot, st, k)
			return
		}
		if st.giving {
			m.ungiven(slot, st, k)
		}
		if st.role != roleNone {
			m.drop(slot, st)
		}
	case k.Epoch == st.epoch && k.Holder == st.holder && k.View > st.view:
		if st.role == roleHolder {
			return
		}
		if st.giving {
			m.given(slot, st) // it has named another since
		}
		if st.role == roleCopy && k.Backup != m.cfg.Self {
			m.drop(slot, st) // another has been named
		}
	case k.Epoch == st.epoch && k.Holder == st.holder && k.View == st.view && k.Stand == StandHolder && k.Backup != st.backup && st.role != roleHolder:
		// The holder itself says who its backup is in this view; this member
		// knew the view from its question only.
		if st.giving {
			m.given(slot, st)
		}
		if st.role == roleCopy && k.Backup != m.cfg.Self {
			m.drop(slot, st)
		}
	default:
		if k.Stand == StandHolder && k.Holder != m.cfg.Self && k.Holder != st.holder {
			m.announce(k.Holder, slot) // it has not heard
		}
		return
	}
	st.epoch, st.view, st.holder, st.backup = k.Epoch, k.View, k.Holder, k.Backup
	st.since = m.now
	if st.claim != nil && st.claim.kind != ClaimFound {
		st.claim = nil
	}
	if st.merging && st.holder != m.cfg.Self {
		m.merge(slot, st)
	}
	m.port.Wake(slot)
}

// ungiven ends a hand-over of which the acknowledgement has not come and will
// not matter: a later epoch proves that it was taken, another holder of its own
// epoch has won against it, and then the taker must not live by this member's
// grant.
func (m *Machine) ungiven(slot uint16, st *slotState, k Known) {
	if k.Epoch > st.epoch {
		m.given(slot, st)
		return
	}
	h := m.pair(st.holder)
	m.endGrant(h)
	m.dropFlight(h) // which carries the grant
}

// merge has the entries of a reign that has lost go to the holder, all of them.
func (m *Machine) merge(slot uint16, st *slotState) {
	st.merging = true
	st.queued[toOther], st.flying[toOther] = false, 0
	m.port.Follow(slot, store.Follower, false)
	m.queueItem(m.pair(st.holder), slot, toOther)
}

// outranked ends a reign that has lost against k's: its entries go there.
func (m *Machine) outranked(slot uint16, st *slotState, k Known) {
	m.stir(slot)
	m.port.Note(Event{Outranked, slot, k.Holder})
	st.role, st.full, st.claim = roleNone, false, nil
	st.coverBy(0)
	st.follower, st.toHolder, st.ffull = 0, false, false
	st.queued, st.flying = [2]bool{}, [2]uint64{}
	m.gate(slot)
	m.port.Unfollow(slot, store.Backup, false)
	st.epoch, st.view, st.holder, st.backup = k.Epoch, k.View, k.Holder, k.Backup
	st.since = m.now
	m.merge(slot, st)
	m.port.Wake(slot)
}

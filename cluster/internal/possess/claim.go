package possess

import "slices"

// claim is a round of questions about a slot: does anything speak against it?
type claim struct {
	kind     Claim
	from     int64
	targeted int64 // when asks were last brought up to date with the view
	asks     []ask
	few      [4]ask // the memory of asks, mostly
}

type ask struct {
	to       ID
	first    int64 // when it was first asked since it answered
	again    int64 // … and when for the second time, or the first where it had been silent before; 0: not yet
	sent     int64 // … and last
	answered int64 // the instant at which the question was sent that it answered; 0: none
	ok       bool  // nothing speaks against it
	stand    Stand
}

func (c *claim) restart(now int64) {
	c.from = now
	for i := range c.asks {
		c.asks[i] = ask{to: c.asks[i].to}
	}
}

// rank orders claims: by what they claim, then by how good the copy is.
type rank struct {
	epoch uint64
	view  uint32
	base  uint32 // view of the claimant's copy
	full  bool
}

func (r rank) less(o rank) bool {
	if r.epoch != o.epoch {
		return r.epoch < o.epoch
	}
	if r.view != o.view {
		return r.view < o.view
	}
	if r.full != o.full {
		return o.full
	}
	return r.base < o.base
}

func rankOf(it AskItem) rank {
	switch it.Claim {
	case ClaimTake:
		return rank{it.Epoch + 1, 0, it.View, it.Full}
	case ClaimRename:
		return rank{it.Epoch, it.View + 1, it.View, true}
	default:
		return rank{} // anybody who has something goes before
	}
}

func (m *Machine) askItem(slot uint16, kind Claim) AskItem {
	st := &m.slots[slot]
	return AskItem{Slot: slot, Claim: kind, Epoch: st.epoch, View: st.view, Full: st.full && st.role == roleCopy}
}

// startClaim begins to ask, unless that is under way.
func (m *Machine) startClaim(slot uint16, kind Claim) {
	st := &m.slots[slot]
	m.stir(slot)
	if st.claim != nil {
		if st.claim.kind == kind {
			return
		}
	}
	if !st.claiming {
		st.claiming = true
		m.claims = append(m.claims, slot)
	}
	if len(m.unused) == 0 {
		m.unused = make([]claim, 64) // they come by the thousand
	}
	st.claim, m.unused = &m.unused[0], m.unused[1:]
	st.claim.kind, st.claim.from = kind, m.now
	m.retarget(slot)
}

// retarget brings the members asked up to date with the view: the slot's first
// four, those named and who was foretold, or all to found.
func (m *Machine) retarget(slot uint16) {
	st := &m.slots[slot]
	if m.cfg.Broken.StaleBackupTakes && st.claim.kind == ClaimTake {
		return
	}
	c := st.claim
	c.targeted = m.now
	var few [8]ID
	ids := few[:0]
	add := func(id ID) {
		if id != 0 && id != m.cfg.Self && !m.dead(id) && !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	if c.kind == ClaimFound {
		for _, id := range m.view.Alive {
			add(id)
		}
	} else {
		for _, id := range m.order(slot) {
			add(id)
		}
	}
	add(st.holder)
	add(st.backup)
	if st.role == roleCopy {
		add(st.follower)
	}
	if slices.EqualFunc(c.asks, ids, func(a ask, id ID) bool { return a.to == id }) {
		return // as nearly always
	}
	old, asks := c.asks, c.few[:0]
	if len(old) > 0 {
		asks = nil
	}
	for _, id := range ids {
		a := ask{to: id}
		if at := slices.IndexFunc(old, func(a ask) bool { return a.to == id }); at >= 0 {
			a = old[at]
		}
		asks = append(asks, a)
	}
	c.asks = asks
}

// runClaims asks what is to be asked and carries through what may be.
func (m *Machine) runClaims() {
	claims := m.claims
	m.claims, m.open = nil, 0
	for _, slot := range claims {
		st := &m.slots[slot]
		if m.open >= m.cfg.OpenAsks && st.patient() {
			m.claims = append(m.claims, slot) // its turn comes
			continue
		}
		st.claiming = false
		if st.claim != nil {
			m.decide(slot)
		}
		if st.claim != nil {
			m.askAround(slot)
			if !st.claiming {
				st.claiming = true
				m.claims = append(m.claims, slot)
			}
		}
	}
}

// patient reports whether the slot's claim is one of those of which there may be
// many at any time, and not of those that a death brings about: those are soon
// over, and calls wait for them.
func (st *slotState) patient() bool {
	return st.claim != nil && (st.claim.kind == ClaimFound || st.claim.kind == ClaimRename && st.backup == 0)
}

func (m *Machine) askAround(slot uint16) {
	c, patient := m.slots[slot].claim, m.slots[slot].patient()
	every := m.cfg.Reask
	if c.kind == ClaimFound {
		every *= 3
	}
	if m.now-c.targeted >= every {
		m.retarget(slot)
	}
	for i := range c.asks {
		a := &c.asks[i]
		if patient && a.first != 0 && m.hears(a.to) {
			m.open++
		}
		wait := every
		if a.first != 0 && a.again == 0 && m.paused() {
			wait = m.cfg.Trip
		}
		if a.sent != 0 && m.now-a.sent < wait || a.answered != 0 && m.now-a.answered < m.cfg.Fresh-every {
			continue
		}
		if a.answered == 0 && m.tooNew(a.to, c, m.lostOf(slot)) {
			continue // it has enough to do
		}
		p := m.pair(a.to)
		switch {
		case a.first == 0 && m.unheard(p):
			// It has been silent for long enough as it is, unless it has had
			// no reason to speak.
			a.first, a.again = p.heard, m.now
		case a.first == 0:
			a.first = m.now
		case a.again == 0 && m.paused():
			a.again = m.now
		}
		if a.sent = m.now; patient && a.first == m.now {
			m.open++
		}
		m.ask(p, slot, c.kind)
	}
}

func (m *Machine) ask(p *pair, slot uint16, kind Claim) {
	if p.gone {
		return
	}
	p.asks = append(p.asks, m.askItem(slot, kind))
	m.telling = true
}

// announce tells a member what is known of a slot here.
func (m *Machine) announce(to ID, slot uint16) { m.say(to, m.known(slot)) }

func (m *Machine) say(to ID, k Known) {
	if to != 0 && to != m.cfg.Self && !m.dead(to) {
		p := m.pair(to)
		p.announcements = append(p.announcements, k)
		m.telling = true
	}
}

// askChunk is how many items a message has at most.
const askChunk = 4096

// keep empties the memory of items for the next ones, unless it is large.
func keep[T any](items []T) []T {
	if items == nil || cap(items) > 2*askChunk {
		return []T{}
	}
	return items[:0]
}

// slim gives back the memory that a burst of questions took, when it is over.
func (m *Machine) slim() {
	const usual = 128
	for _, p := range m.peers {
		if cap(p.asks) > usual && len(p.asks) == 0 {
			p.asks = nil
		}
		if cap(p.announcements) > usual && len(p.announcements) == 0 {
			p.announcements = nil
		}
	}
	if cap(m.answer) > usual {
		m.answer = nil
	}
}

// tell sends the questions and announcements that have gathered.
func (m *Machine) tell() {
	if !m.telling {
		return // as nearly always
	}
	m.telling = false
	for _, p := range m.peers {
		for items := range slices.Chunk(p.asks, askChunk) {
			m.port.Send(p.id, &Ask{Sent: m.now, Items: items})
		}
		for items := range slices.Chunk(p.announcements, askChunk) {
			m.port.Send(p.id, &Announce{Items: items})
		}
		p.asks, p.announcements = keep(p.asks), keep(p.announcements)
	}
}

func (m *Machine) onAsk(p *pair, a *Ask) {
	items := m.answer[:0]
	for _, it := range a.Items {
		if m.valid(it.Slot) {
			items = append(items, m.judge(p, it))
		}
	}
	m.port.Send(p.id, &Answer{Sent: a.Sent, Items: items})
	m.answer = keep(items)
}

// judge says what speaks against a claim of p's. Nothing: it is a promise.
func (m *Machine) judge(p *pair, it AskItem) Known {
	st := &m.slots[it.Slot]
	r := rankOf(it)
	k := m.known(it.Slot)
	if it.Claim == ClaimRename && (it.Epoch > st.epoch || it.Epoch == st.epoch && it.View >= st.view) {
		// The claimant holds the slot; learn it, also where this member
		// thought otherwise.
		m.learn(it.Slot, Known{Slot: it.Slot, Epoch: it.Epoch, View: it.View, Holder: p.id, Backup: st.backup, Stand: StandHolder})
		k = m.known(it.Slot)
	}
	if m.against(p.id, m.cfg.Self, it, k) {
		return k
	}
	if own := st.claim; own != nil && it.Claim != ClaimRename {
		// Two claim at once: the better copy, then the higher boot ID.
		mine := rankOf(m.askItem(it.Slot, own.kind))
		if r.less(mine) || !mine.less(r) && m.cfg.Self > p.id {
			k.Busy = true
			return k
		}
	}
	pr := &st.promise
	if pr.to != p.id && m.now < pr.until && !pr.rank.less(r) && !m.dead(pr.to) {
		k.Busy = true
		return k
	}
	*pr = promise{p.id, r, m.now + m.cfg.Grant}
	return k
}

// against reports whether what answerer knows and is speaks against the claim
// of claimant.
func (m *Machine) against(claimant, answerer ID, it AskItem, k Known) bool {
	later := k.Epoch > it.Epoch || k.Epoch == it.Epoch && k.View > it.View
	switch it.Claim {
	case ClaimTake:
		if later && k.Holder != claimant || k.Stand == StandHolder {
			return true
		}
		if it.Full {
			return false
		}
		// An incomplete copy gives way to any that is as good.
		same := k.Epoch == it.Epoch && k.View == it.View
		return same && (k.Stand == StandFull || k.Stand == StandCopy && answerer > claimant)
	case ClaimRename:
		return later || k.Stand == StandHolder
	default:
		return (k.Stand != StandNone || later) && !m.cfg.Broken.EmptyBesideCopy
	}
}

func (m *Machine) onAnswer(p *pair, ans *Answer) {
	for _, k := range ans.Items {
		if !m.valid(k.Slot) {
			continue
		}
		st := &m.slots[k.Slot]
		c := st.claim
		if c == nil {
			m.learn(k.Slot, k)
			if st.role == roleCopy && st.holder == p.id && k.Stand != StandHolder && k.Epoch <= st.epoch {
				m.startClaim(k.Slot, ClaimTake) // it does not hold what it should
			}
			continue
		}
		it := m.askItem(k.Slot, c.kind)
		for i := range c.asks {
			if a := &c.asks[i]; a.to == p.id && ans.Sent >= c.from {
				a.answered, a.first, a.again = ans.Sent, 0, 0
				a.stand = k.Stand
				a.ok = !k.Busy && !m.against(m.cfg.Self, p.id, it, k)
				break
			}
		}
		m.learn(k.Slot, k)
		if st.claim != nil {
			m.decide(k.Slot)
		}
	}
}

// tally counts the answers to a claim about a slot of lost's: fresh and in
// favour, fresh and against, none. Who was asked a moment ago is not silent yet:
// pending. After a pause of this member it takes two questions, for one may be
// lost.
func (m *Machine) tally(c *claim, lost ID) (ok, not, silent, pending int) {
	for _, a := range c.asks {
		switch {
		case a.answered == 0 && m.tooNew(a.to, c, lost):
		case a.answered != 0 && m.now-a.answered <= m.cfg.Fresh:
			if a.ok {
				ok++
			} else {
				not++
			}
		case a.first == 0 || m.now-a.first < m.cfg.Suspect || m.now-a.again < m.cfg.Trip || a.again == 0 && m.paused():
			pending++
		default:
			silent++
		}
	}
	return ok, not, silent, pending
}

// tooNew reports whether a member can't have been given a slot of lost's: it was
// met after the claim began, when lost had been silent for a while already, and
// lost is dead for certain. It is most likely the same again, and busy starting:
// nobody waits for its answer.
func (m *Machine) tooNew(id ID, c *claim, lost ID) bool {
	p, l := m.lookup(id), m.lookup(lost)
	return p != nil && p.met > c.from && l != nil && l.gone
}

// lostOf returns whose silence the claim about a slot is about: the holder's or the
// backup's.
func (m *Machine) lostOf(slot uint16) ID {
	switch st := &m.slots[slot]; st.claim.kind {
	case ClaimTake:
		return st.holder
	case ClaimRename:
		return st.backup
	}
	return 0
}

// cutOff reports whether none of those asked has been heard of late.
func (m *Machine) cutOff(c *claim) bool {
	return !slices.ContainsFunc(c.asks, func(a ask) bool { return m.hears(a.to) })
}

// hears reports whether id is alive and was heard of late.
func (m *Machine) hears(id ID) bool {
	p := m.lookup(id)
	return p != nil && !m.deadPair(p) && !m.unheard(p)
}

// decide carries a claim through, or drops it, if it may.
func (m *Machine) decide(slot uint16) {
	st := &m.slots[slot]
	switch st.claim.kind {
	case ClaimTake:
		m.decideTake(slot, st)
	case ClaimRename:
		m.decideRename(slot, st)
	case ClaimFound:
		m.decideFound(slot, st)
	}
}

package possess

import (
	"cmp"
	"slices"

	"github.com/peerlimit/peerlimit/cluster/internal/store"
)

// pair is what a member keeps of another one.
type pair struct {
	id    ID
	heard int64 // when it was heard last, or the own clock had a gap
	stamp int64 // the latest instant of its clock seen
	gone  bool  // dead for certain

	draining bool    // it is leaving
	silentAt int64   // when it was last found silent; 0: never
	met      int64   // since when it is known
	fallen   [2]bool // lost as a backup, silent as a holder, in the last scan
	viewDead bool    // the view's word on it, at viewedAt
	viewedAt int64

	// It as a backup of this member.
	term     uint64 // its grant's, as known here; 0: not yet
	grant    *store.Grant
	backs    int   // slots of which it is the backup, or that its grant covers; too many between two counts
	beatSent int64 // when the latest beat was sent
	beaten   int64 // when its own latest beat came
	trip     int64 // how long its latest answer took
	acked    int64 // when it last acknowledged a beat or a Sync, or the timer was restarted

	// What is to be sent to it.
	moving        int // slots that it is brought up to date in, in this scan
	asks          []AskItem
	announcements []Known
	urgent        []work // of queue, those that somebody waits for
	queue         []work
	busy          bool // is in Machine.busy
	seq           uint64
	flight        *flight

	// This member as a backup of it.
	myTerm   uint64
	copies   int   // of its slots, here; too many between two counts
	promised int64 // until when this member's grant to it runs
	lastSeq  uint64
	lastAck  *SyncAck
}

// fewPeers is up to how many peers looking for one is faster without a map.
const fewPeers = 8

// lookup returns what is kept of id, nil where that is nothing.
func (m *Machine) lookup(id ID) *pair {
	if len(m.peers) > fewPeers {
		return m.pairs[id]
	}
	for _, p := range m.peers {
		if p.id == id {
			return p
		}
	}
	return nil
}

func (m *Machine) pair(id ID) *pair {
	p := m.lookup(id)
	if p == nil {
		// Terms and numbers start from the clock, so that they rise even where a pair was
		// forgotten and is met again.
		p = &pair{id: id, viewedAt: -1, met: m.now, heard: m.now, acked: m.now, seq: uint64(m.now), myTerm: uint64(m.now), grant: new(store.Grant)}
		m.pairs[id] = p
		m.peers = insert(m.peers, p)
	}
	return p
}

// insert adds p to pairs ordered by ID.
func insert(pairs []*pair, p *pair) []*pair {
	i, _ := slices.BinarySearchFunc(pairs, p.id, func(p *pair, id ID) int { return cmp.Compare(p.id, id) })
	return slices.Insert(pairs, i, p)
}

// idle reports whether nothing is known or owed that concerns p.
func (m *Machine) idle(p *pair) bool {
	if p.backs > 0 || p.flight != nil {
		return false
	}
	for s := range m.slots {
		st := &m.slots[s]
		if st.role == roleHolder && st.follower == p.id || st.role != roleNone && (st.holder == p.id || st.backup == p.id || st.cover == p.id) {
			return false
		}
	}
	return m.now-p.heard > 10*m.cfg.Grant
}

func (m *Machine) forgetPair(p *pair) {
	delete(m.pairs, p.id)
	if p.draining {
		m.leavers--
	}
	is := func(q *pair) bool { return q == p }
	m.peers, m.busy = slices.DeleteFunc(m.peers, is), slices.DeleteFunc(m.busy, is)
}

// dead reports an observed death.
func (m *Machine) dead(id ID) bool {
	if id == m.cfg.Self {
		return false
	}
	if p := m.lookup(id); p != nil {
		return m.deadPair(p)
	}
	return m.deadInView(id)
}

// deadPair is dead of one that something is kept of.
func (m *Machine) deadPair(p *pair) bool {
	if p.gone {
		return true
	}
	if m.now-p.heard < m.cfg.Grant {
		return false // who was just heard lives, whatever the view says
	}
	if p.viewedAt != m.now {
		p.viewDead, p.viewedAt = m.deadInView(p.id), m.now
	}
	return p.viewDead
}

func (m *Machine) deadInView(id ID) bool { return m.started && !m.alive[id] && m.view.Dead(id) }

// beat renews the grants that this member lives by. Of two members the one with
// the lower ID begins, and the other's beat goes with the answer: the other
// begins only where none has come. What a member begins goes in one tick, the
// first after a multiple of Beat.
func (m *Machine) beat() {
	beat := (m.now + m.cfg.Phase) / m.cfg.Beat
	begins := beat != m.lastBeat
	m.lastBeat = beat
	for _, p := range m.peers {
		switch {
		case p.gone || p.backs == 0:
			p.acked = m.now
		case p.beatSent == 0,
			begins && m.now-p.beatSent >= m.cfg.Beat/2 && (m.cfg.Self < p.id || !m.beginner(p)),
			m.due(p.beatSent, m.cfg.Beat+m.cfg.Beat/3):
			m.sendBeat(p)
		}
	}
}

// beginner reports whether p's own beats have come of late.
func (m *Machine) beginner(p *pair) bool { return m.now-p.beaten < m.cfg.Beat+m.cfg.Beat/3 }

func (m *Machine) sendBeat(p *pair) {
	p.beatSent = m.now
	m.port.Send(p.id, &Beat{Sent: m.now, Term: p.term})
}

// silent reports whether p, a backup, has left beats unanswered for too long.
func (m *Machine) silent(p *pair) bool {
	return p.gone || m.now-p.acked > m.cfg.Suspect+m.cfg.Beat
}

// unheard reports whether nothing has come from p for so long that a beat of its
// is missing.
func (m *Machine) unheard(p *pair) bool { return m.now-p.heard > m.cfg.Suspect+m.cfg.Beat }

// lost reports whether p can't be relied on to answer: dead, or not heard of
// for a while although it is asked things.
func (m *Machine) lost(id ID) bool {
	p := m.lookup(id)
	return p == nil || m.lostPair(p)
}

func (m *Machine) lostPair(p *pair) bool { return m.silent(p) || m.deadPair(p) }

func (m *Machine) onBeat(p *pair, b *Beat) {
	p.stamp = max(p.stamp, b.Sent)
	if b.Term == p.myTerm {
		p.promised = max(p.promised, m.now+m.cfg.Grant)
	}
	m.port.Send(p.id, &BeatAck{Sent: b.Sent, Term: p.myTerm})
	p.beaten = m.now
	if p.backs > 0 && !p.gone && m.now-p.beatSent >= m.cfg.Beat/2 {
		m.sendBeat(p) // in one go with the answer
	}
}

// replaceable reports whether id, a silent backup, will have been silent for
// long enough to be replaced by the time that others have been asked. Asking
// about each of its slots costs more than waiting for one that will be back.
func (m *Machine) replaceable(id ID) bool {
	p := m.lookup(id)
	return p == nil || m.deadPair(p) || m.now-p.acked >= m.cfg.Replace-m.cfg.Beat
}

func (m *Machine) onBeatAck(p *pair, a *BeatAck) { m.granted(p, a.Sent, a.Term) }

// granted handles an acknowledgement that renews p's grant from sent on.
func (m *Machine) granted(p *pair, sent int64, term uint64) {
	p.acked, p.trip = m.now, m.now-sent
	switch {
	case term < p.term: // late
	case term > p.term:
		// The old grant was ended, or none was known: each slot has to
		// be acknowledged under the new one.
		p.grant.End()
		p.term, p.grant = term, new(store.Grant)
		m.sendBeat(p) // which will be answered with a grant
		for s := range m.slots {
			st := &m.slots[s]
			if st.role != roleHolder {
				continue
			}
			if st.cover == p.id {
				st.coverBy(0)
				m.gate(uint16(s))
				m.stir(uint16(s))
			}
			if st.backup == p.id {
				m.queueItem(p, uint16(s), toBackup)
			}
		}
	default:
		m.extend(p.grant, sent+m.cfg.Grant, p.id)
	}
}

// extend renews the grant of cover, this member itself where it is alone. Where
// it had run out, what was parked meanwhile is woken.
func (m *Machine) extend(g *store.Grant, until int64, cover ID) {
	lapsed := g.Until() <= m.now
	g.Extend(until)
	if !lapsed || g.Until() <= m.now {
		return
	}
	for s := range m.slots {
		if st := &m.slots[s]; st.role == roleHolder && st.cover == cover {
			m.port.Wake(uint16(s))
		}
	}
}

// endGrant ends this member's grant to p: it serves what was p's.
func (m *Machine) endGrant(p *pair) { p.myTerm++ }

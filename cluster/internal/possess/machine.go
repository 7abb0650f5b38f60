package possess

import (
	"slices"

	"github.com/peerlimit/peerlimit/cluster/internal/store"
)

const maxSlots = store.Slots

// View is what the membership says. It is not changed once given.
type View struct {
	// Order returns the first members of slot in ring order, 0 where there
	// are fewer. Draining and dead members are not in the ring.
	Order func(slot uint16) [4]ID
	// Alive are all members that are not known to be dead, draining ones
	// and self among them.
	Alive []ID
	// Dead reports an observed death.
	Dead func(ID) bool
}

// Port is what a machine orders about. Its methods are called from within the
// machine's own, and must not call back into it.
type Port interface {
	// Send sends m to a member. It may be lost. The memory of m is the
	// machine's again when Send returns.
	Send(to ID, m Message)
	// Open lets operations on slot run while g holds; Shut ends that, and
	// returns when none is running any more.
	Open(slot uint16, epoch uint64, g *store.Grant)
	Shut(slot uint16)
	// Wake: what Verdict says of slot may have changed.
	Wake(slot uint16)
	// TakeMarks calls f with each slot that was changed since the last time.
	TakeMarks(f func(slot uint16))

	// Follow makes l an audience of the slot: every entry is queued for it,
	// unless it has them already.
	Follow(slot uint16, l store.List, has bool)
	Collect(slot uint16, l store.List, b []byte, limit int) (_ []byte, drained bool)
	Acked(slot uint16, l store.List)
	// Owes reports whether the backup lacks something that is not under
	// way, and whether somebody waits for it.
	Owes(slot uint16) (owes, awaited bool)
	Promote(slot uint16)
	Unfollow(slot uint16, l store.List, acknowledged bool)
	Import(slot uint16, b []byte, age int64, merge bool) error
	Drop(slot uint16)

	// Note tells of something worth a log line or a metric.
	Note(e Event)
}

// EventKind is what an Event is about.
type EventKind int

const (
	TookOver    EventKind = iota // the slot was taken over from Peer
	Unprotected                  // the slot's backup is new and has no full copy yet
	Alone                        // the slot is served without any backup
	Gave                         // the slot was handed to Peer
	Received                     // the slot was handed over by Peer
	Started                      // the slot started empty
	Outranked                    // possession was lost to Peer's higher epoch
	Merged                       // entries of a lost reign were taken in from Peer

	EventKinds = iota // how many there are
)

// Event is something worth a log line or a metric.
type Event struct {
	Kind EventKind
	Slot uint16
	Peer ID
}

type role byte

const (
	roleNone role = iota
	roleFollower
	roleCopy
	roleHolder
)

// slotState is what a member knows of a slot and is for it.
type slotState struct {
	// The latest possession known.
	epoch  uint64
	view   uint32
	holder ID
	backup ID

	role role
	full bool // as copy: complete; as holder: the backup is

	// As holder.
	cover    ID           // the member whose grant covers the slot, 0: none does; self: alone
	under    *store.Grant // in place of cover's grant while another has been named backup and not answered; see freeze
	fresh    bool         // the backup has to start anew
	follower ID           // a member that is brought up to date; as copy: one that its holder has told of, see foretell
	toHolder bool         // the follower is to become holder, not backup
	ffresh   bool         // the follower has to start anew
	ffull    bool         // the follower has all but the latest changes

	giving   bool // handed over, not acknowledged yet; role is roleCopy
	released ID   // the backup before that, to be told then
	merging  bool // outranked: the entries go to holder

	queued [2]bool   // an item is waiting: to the backup, to another
	flying [2]uint64 // the item under way, 0: none. Who clears it otherwise than by its landing makes the receiver start anew

	claim    *claim
	claiming bool // is in Machine.claims
	promise  promise
	since    int64 // when something was last heard that concerns the slot
}

// promise is given to one whose claim found nothing against it.
type promise struct {
	to    ID
	rank  rank
	until int64
}

// Machine is one member's part of the protocol.
type Machine struct {
	cfg    Config
	port   Port
	now    int64
	view   View
	listed [][4]ID // the view's order, slot by slot
	orders [][4]ID // … without those known to be leaving
	alive  map[ID]bool
	slots  []slotState
	pairs  map[ID]*pair
	peers  []*pair // pairs by ID, for a fixed order
	busy   []*pair // those of peers that something waits for or is under way to

	lastTick, lastCopy, lastScan int64
	lastGap                      int64    // when the last pause of this member ended
	lastBeat                     int64    // its number
	rests                        int64    // until when there may be no tick
	scanned                      int64    // when all slots were looked over; 0: to be done
	restless                     []uint64 // the set of slots that the next scan looks at
	claims                       []uint16
	open                         int      // questions of patient ones that wait for an answer, as the last tick counted them
	unused                       []claim  // memory for the next ones
	items                        uint64   // made so far
	later                        []uint16 // slots with changes to send when it is time again
	telling                      bool     // a pair has questions or announcements to be sent
	answer                       []Known  // the memory of the one being made
	aloneGrant                   *store.Grant
	started                      bool // a view was given
	company                      bool // a view had others
	leavers                      int  // members known to be leaving, self among them
	draining, short              bool
}

// New returns a machine that possesses nothing. It does nothing before
// [Machine.SetView].
func New(cfg Config, port Port, now int64) *Machine {
	return &Machine{
		cfg: cfg, port: port, now: now, lastTick: now,
		slots: make([]slotState, cfg.Slots), restless: make([]uint64, (cfg.Slots+63)/64), pairs: map[ID]*pair{}, alive: map[ID]bool{},
		aloneGrant: new(store.Grant),
		view: View{
			Dead: func(ID) bool { return false },
		},
	}
}

// SetView tells the machine what the membership says now.
func (m *Machine) SetView(now int64, v View) {
	m.enter(now)
	m.view, m.started = v, true
	if m.listed == nil {
		m.listed = make([][4]ID, len(m.slots))
	}
	for s := range m.listed {
		m.listed[s] = v.Order(uint16(s))
	}
	before := m.alive
	m.alive = make(map[ID]bool, len(v.Alive))
	newcomers := map[ID]bool{}
	for _, id := range v.Alive {
		m.alive[id] = true
		newcomers[id] = !before[id]
		if id != m.cfg.Self {
			m.pair(id)
			m.company = true
		}
	}
	for _, p := range slices.Clone(m.peers) {
		p.viewedAt = -1
		if !m.alive[p.id] && m.idle(p) {
			m.forgetPair(p)
		}
	}
	m.reorder()
	for s := range m.slots {
		if first := m.first(uint16(s)); m.slots[s].role == roleHolder && newcomers[first] {
			m.announce(first, uint16(s)) // so that it need not ask everybody
		}
	}
	if short := len(v.Alive) < m.cfg.MinMembers; short != m.short {
		m.short = short
		for s := range m.slots {
			m.gate(uint16(s))
			m.port.Wake(uint16(s))
		}
	}
	m.lastScan = 0
	m.leave()
}

// Drain makes the machine give everything away; see [Machine.Empty].
func (m *Machine) Drain(now int64) {
	m.enter(now)
	if !m.draining {
		m.draining = true
		m.leavers++
		m.reorder()
	}
	m.lastScan = 0
	m.leave()
}

// Gone tells the machine that a member is dead for certain: another boot
// answers at its address, or its process is known to have ended.
func (m *Machine) Gone(now int64, id ID) {
	m.enter(now)
	if p := m.lookup(id); p != nil && !p.gone {
		p.gone = true
		m.dropFlight(p)
		m.runClaims() // of which some wait for no more than this
	}
	m.leave()
}

func (m *Machine) enter(now int64) { m.now = max(m.now, now) }

// leave sends what has gathered.
func (m *Machine) leave() {
	m.tell()
	for i := 0; i < len(m.busy); {
		p := m.busy[i]
		m.pump(p)
		if p.flight == nil && len(p.queue) == 0 {
			p.busy = false
			m.busy = slices.Delete(m.busy, i, i+1)
			continue
		}
		i++
	}
}

// Urge sends the changes of slot now, for somebody waits.
func (m *Machine) Urge(now int64, slot uint16) {
	m.enter(now)
	m.queueBackup(slot)
	if st := &m.slots[slot]; st.queued[toBackup] && st.role == roleHolder && st.backup != 0 {
		m.hurry(m.pair(st.backup), slot)
	}
	m.leave()
}

// hurry puts what is queued for a backup before the rest.
func (m *Machine) hurry(p *pair, slot uint16) {
	if len(p.queue) > fewQueued {
		p.urgent = append(p.urgent, work{slot, toBackup, m.now})
	}
}

// fewQueued is how many items may be ahead of one that somebody waits for.
const fewQueued = 16

// Receive handles a message from a member, which proves its membership.
func (m *Machine) Receive(now int64, from ID, msg Message) {
	if from == m.cfg.Self || from == 0 {
		return
	}
	m.enter(now)
	p := m.pair(from)
	p.heard = m.now
	switch msg := msg.(type) {
	case *Beat:
		m.onBeat(p, msg)
	case *BeatAck:
		m.onBeatAck(p, msg)
	case *Sync:
		m.onSync(p, msg)
	case *SyncAck:
		m.onSyncAck(p, msg)
	case *Ask:
		m.onAsk(p, msg)
	case *Answer:
		m.onAnswer(p, msg)
	case *Announce:
		for _, k := range msg.Items {
			if m.valid(k.Slot) && !m.foretold(p, k) {
				m.learn(k.Slot, k)
			}
		}
	}
	m.leave()
}

func (m *Machine) valid(slot uint16) bool { return int(slot) < len(m.slots) }

// known is what this member tells others of a slot.
func (m *Machine) known(slot uint16) Known {
	st := &m.slots[slot]
	k := Known{Slot: slot, Epoch: st.epoch, View: st.view, Holder: st.holder, Backup: st.backup}
	switch {
	case st.role == roleHolder:
		k.Stand = StandHolder
	case st.role == roleCopy && st.full:
		k.Stand = StandFull
	case st.role == roleCopy || st.role == roleFollower:
		k.Stand = StandCopy
	}
	return k
}

// gate opens or shuts a slot as its state says.
func (m *Machine) gate(slot uint16) {
	st := &m.slots[slot]
	switch {
	case st.role != roleHolder || m.short || st.cover == 0 && !m.cfg.Broken.NoGrantCheck:
		m.port.Shut(slot)
		return
	case m.cfg.Broken.NoGrantCheck:
		m.port.Open(slot, st.epoch, store.Forever)
	default:
		m.port.Open(slot, st.epoch, m.grantOf(st))
	}
	m.port.Wake(slot)
}

// grantOf returns the grant under which a slot that is covered is served.
func (m *Machine) grantOf(st *slotState) *store.Grant {
	switch {
	case st.under != nil:
		return st.under
	case st.cover == m.cfg.Self:
		return m.aloneGrant
	}
	return m.pair(st.cover).grant
}

// coverBy has a slot be covered by id: 0 by nobody, this member itself: alone.
func (st *slotState) coverBy(id ID) { st.cover, st.under = id, nil }

// freeze lets the grant of a slot's cover run out, whatever comes of it from now
// on, because now another is told that it is the backup. Its promise begins when
// it hears of it, so it ends later. If the word that it has heard is lost, it may
// take over, without asking the one before it, as soon as its promise has ended.
func (m *Machine) freeze(slot uint16, st *slotState) {
	until := m.now + m.cfg.Grant - m.cfg.Gap // alone: as long, less what a gap of the own clock may hide
	if st.cover != m.cfg.Self {
		until = m.pair(st.cover).grant.Until()
	}
	st.under = new(store.Grant)
	st.under.Extend(until)
	m.gate(slot)
}

// mayServe reports whether the holder of slot may serve now.
func (m *Machine) mayServe(st *slotState) bool {
	return st.role == roleHolder && !m.short && st.cover != 0 && m.now < m.grantOf(st).Until()
}

// Held calls f with each slot that is possessed here: how it is protected.
func (m *Machine) Held(f func(slot uint16, epoch uint64, protected bool)) {
	for s := range m.slots {
		if st := &m.slots[s]; st.role == roleHolder {
			f(uint16(s), st.epoch, st.backup != 0 && st.cover == st.backup && st.full)
		}
	}
}

// order returns the first of slot's ring order, without those that are known
// to be leaving before the view says so.
func (m *Machine) order(slot uint16) [4]ID {
	if m.orders == nil {
		return [4]ID{}
	}
	return m.orders[slot]
}

// reorder makes the orders anew, since the view or the leavers have changed.
func (m *Machine) reorder() {
	m.scanned = 0
	if m.listed == nil {
		return
	}
	begins := m.orders == nil
	if begins {
		m.orders = make([][4]ID, len(m.slots))
	}
	for s := range m.listed {
		order, n := &m.orders[s], 0
		first := order[0]
		for _, id := range m.listed[s] {
			if p := m.lookup(id); id != 0 && (m.leavers == 0 || (p == nil || !p.draining) && (id != m.cfg.Self || !m.draining)) {
				order[n] = id
				n++
			}
		}
		clear(order[n:])
		if st := &m.slots[s]; st.role == roleNone && order[0] == m.cfg.Self && first != m.cfg.Self && !begins {
			st.since = m.now // it is this member's business from now on
		}
	}
}

// Short reports whether fewer members than MinMembers are alive.
func (m *Machine) Short() bool { return m.short }

// first returns who should hold a slot.
func (m *Machine) first(slot uint16) ID { return m.order(slot)[0] }

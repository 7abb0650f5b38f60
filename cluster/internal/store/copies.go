package store

import (
	"math/bits"
	"sync/atomic"
)

// List names one of the two audiences that may follow a slot's changes.
type List int

const (
	// Backup is the member that takes over when the holder is gone.
	Backup List = iota
	// Follower is a member that is being brought up to date, in order to
	// become holder or backup.
	Follower
)

// Marks is the set of slots with changes that their backup was not sent yet.
type Marks struct{ words [Slots / 64]atomic.Uint64 }

func (m *Marks) set(slot uint16) { m.words[slot/64].Or(1 << (slot % 64)) }

// Take empties the set and calls f with each slot that was in it.
func (m *Marks) Take(f func(slot uint16)) {
	for i := range m.words {
		if m.words[i].Load() == 0 {
			continue
		}
		for w := m.words[i].Swap(0); w != 0; w &= w - 1 {
			f(uint16(i*64 + bits.TrailingZeros64(w)))
		}
	}
}

// outbox is what a slot's audiences still have to be told. A slot has one from
// its first entry on that somebody follows: most slots of most tables are empty.
type outbox struct {
	changes uint64 // counts the slot's changes
	lists   [2]list
	waiters []waiter
	ended   bool // how those were answered who waited for the last backup
}

// list is one audience: the entries it does not have yet.
type list struct {
	queue []uint32
	// inflight are the entries of the message under way, which once it is
	// acknowledged brings the audience up to change inflightTo.
	inflight   []uint32
	inflightTo uint64
	acked      uint64
}

// Ticket names a change that an answer has to wait for; the zero value none.
type Ticket struct {
	out    *outbox // tells apart the slot's times here
	change uint64
}

// Wait reports whether there is something to wait for.
func (t Ticket) Wait() bool { return t.out != nil }

type waiter struct {
	change uint64
	done   func(acknowledged bool)
}

// record is kept for an entry while an audience lacks its latest state.
type record struct {
	entry    uint32
	queued   [2]bool
	flying   [2]bool
	unacked  int64 // units spent that the backup does not know of …
	inflight int64 // … of which so many are in the message under way
}

func (sh *shard[S]) out(slot uint16) *outbox {
	if sh.slots == nil {
		return nil
	}
	return sh.slots[slot/shardCount].out
}

func bit(slot uint16) uint64 { return 1 << (slot / shardCount) }

// follows reports whether l follows the slot.
func (sh *shard[S]) follows(slot uint16, l List) bool { return sh.followed[l]&bit(slot) != 0 }

// copied reports whether somebody follows the slot.
func (sh *shard[S]) copied(slot uint16) bool {
	return (sh.followed[Backup]|sh.followed[Follower])&bit(slot) != 0
}

// needOut returns the slot's outbox, made where there is none.
func (sh *shard[S]) needOut(slot uint16) *outbox {
	x := sh.index(slot)
	if x.out == nil {
		x.out = new(outbox)
	}
	return x.out
}

// changed notes that entry i was changed by an operation with that effect, and
// returns the ticket to wait for, if it must.
func (sh *shard[S]) changed(marks *Marks, slot uint16, i uint32, effect Effect) Ticket {
	if !sh.copied(slot) {
		return Ticket{}
	}
	out := sh.needOut(slot)
	out.changes++
	rec := sh.record(i)
	for l := range out.lists {
		if sh.follows(slot, List(l)) && !rec.queued[l] {
			rec.queued[l] = true
			out.lists[l].queue = append(out.lists[l].queue, i)
		}
	}
	if !sh.follows(slot, Backup) {
		return Ticket{}
	}
	marks.set(slot)
	rec.unacked += effect.Spent
	if effect.Wait || effect.Bound > 0 && rec.unacked > effect.Bound {
		return Ticket{out, out.changes}
	}
	return Ticket{}
}

func (sh *shard[S]) record(i uint32) *record {
	e := sh.at(i)
	if e.record == 0 {
		if len(sh.records) == 0 {
			sh.records = append(sh.records, record{}) // number 0 means none
		}
		if r := sh.freeRec; r != 0 {
			sh.freeRec = sh.records[r].entry
			e.record = r
		} else {
			sh.records = append(sh.records, record{})
			e.record = uint32(len(sh.records) - 1)
		}
		sh.recorded++
		sh.records[e.record] = record{entry: i}
	}
	return &sh.records[e.record]
}

// settle frees the record of entry i if nothing is outstanding any more.
func (sh *shard[S]) settle(i uint32) {
	e := sh.at(i)
	rec := &sh.records[e.record]
	if rec.queued[0] || rec.queued[1] || rec.flying[0] || rec.flying[1] || rec.unacked != 0 {
		return
	}
	sh.freeRecord(e)
}

// freeRecord takes e's record away. With the last one all their memory goes: a
// new backup makes one for every entry, and then there are few for a long time.
func (sh *shard[S]) freeRecord(e *entry[S]) {
	sh.records[e.record] = record{entry: sh.freeRec}
	sh.freeRec, e.record = e.record, 0
	sh.recorded--
	if sh.recorded == 0 && len(sh.records) > recordsKept {
		sh.records, sh.freeRec = nil, 0
	}
}

// What is kept for the next ones: records a shard, places a list.
const (
	recordsKept = 128
	listKept    = 16
)

// Follow makes l an audience of slot: every entry is queued for it, unless it
// has them already. What was under way to l before counts as lost.
func (st *Store[S, O, R, M]) Follow(slot uint16, l List, has bool) {
	sh := &st.shards[slot%shardCount]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	sh.followed[l] |= bit(slot)
	out := sh.out(slot)
	if out == nil {
		if sh.entriesIn(slot) == 0 {
			return
		}
		out = sh.needOut(slot)
	}
	old := sh.forget(out, l)
	if has {
		sh.release(l, old, func(*record) bool { return true })
		return
	}
	// What was spent stays outstanding until this audience has it.
	sh.eachIn(slot, func(i uint32, _ *entry[S]) {
		sh.record(i).queued[l] = true
		out.lists[l].queue = append(out.lists[l].queue, i)
	})
	// Of an empty slot there is nothing to send: a mark on all of them would
	// have a table that is just made flood the backup with empty items.
	if l == Backup && st.marks != nil && len(out.lists[l].queue) > 0 {
		st.marks.set(slot)
	}
}

// forget empties a list and returns the entries that were in it, some twice.
// What was acknowledged stays acknowledged.
func (sh *shard[S]) forget(out *outbox, l List) []uint32 {
	li := &out.lists[l]
	for _, i := range li.queue {
		sh.records[sh.at(i).record].queued[l] = false
	}
	for _, i := range li.inflight {
		rec := &sh.records[sh.at(i).record]
		rec.flying[l] = false
		if l == Backup {
			rec.inflight = 0
		}
	}
	entries := append(li.queue, li.inflight...)
	*li = list{acked: li.acked}
	return entries
}

// release gives up the records of entries that were in list l, where nothing
// else is outstanding. Of those that known accepts nobody is left, or needed,
// who would acknowledge what was spent.
func (sh *shard[S]) release(l List, entries []uint32, known func(*record) bool) {
	for _, i := range entries {
		r := sh.at(i).record
		if r == 0 {
			continue // it was in the list twice
		}
		if rec := &sh.records[r]; l == Backup && known(rec) {
			rec.unacked = 0
		}
		sh.settle(i)
	}
}

// Collect appends to b the entries that l lacks, at least one and until limit
// bytes are reached, and notes them as under way. One message for a list may
// be under way at a time. drained reports that nothing is left. It counts
// what it appended.
func (st *Store[S, O, R, M]) Collect(slot uint16, l List, now int64, b []byte, limit int) (_ []byte, n int, drained bool) {
	sh := &st.shards[slot%shardCount]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	out := sh.out(slot)
	if out == nil || !sh.follows(slot, l) {
		return b, 0, true
	}
	li := &out.lists[l]
	for len(li.queue) > 0 && (n == 0 || len(b) < limit) {
		i := li.queue[0]
		li.queue = li.queue[1:]
		rec := sh.record(i)
		rec.queued[l] = false
		if !rec.flying[l] {
			rec.flying[l] = true
			li.inflight = append(li.inflight, i)
		}
		if l == Backup {
			rec.inflight = rec.unacked
		}
		e := sh.at(i)
		b = appendEntry(b, e.key.String(), st.age(e.state, now), e.expires-now, func(b []byte) []byte {
			return st.machine.AppendState(b, e.state, now)
		})
		n++
	}
	if len(li.queue) == 0 {
		li.queue = nil
		li.inflightTo = out.changes
	}
	return b, n, len(li.queue) == 0
}

// Owes reports whether the backup lacks something that is not under way, and
// whether somebody waits for it.
func (st *Store[S, O, R, M]) Owes(slot uint16) (owes, awaited bool) {
	sh := &st.shards[slot%shardCount]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	out := sh.out(slot)
	if out == nil {
		return false, false
	}
	return len(out.lists[Backup].queue) > 0, len(out.waiters) > 0
}

// Acked notes that l has what was under way, and answers those who waited for
// it.
func (st *Store[S, O, R, M]) Acked(slot uint16, l List) {
	sh := &st.shards[slot%shardCount]
	sh.mu.Lock()
	out := sh.out(slot)
	if out == nil {
		sh.mu.Unlock()
		return
	}
	li := &out.lists[l]
	for _, i := range li.inflight {
		rec := &sh.records[sh.at(i).record]
		rec.flying[l] = false
		if l == Backup {
			rec.unacked -= rec.inflight
			rec.inflight = 0
		}
		sh.settle(i)
	}
	if li.inflight = li.inflight[:0]; cap(li.inflight) > listKept {
		li.inflight = nil
	}
	li.acked = max(li.acked, li.inflightTo)
	var ready []waiter
	if l == Backup && len(out.waiters) > 0 {
		still := out.waiters[:0]
		for _, w := range out.waiters {
			if w.change <= li.acked {
				ready = append(ready, w)
			} else {
				still = append(still, w)
			}
		}
		clear(out.waiters[len(still):])
		out.waiters = still
	}
	sh.mu.Unlock()
	answer(ready, true)
}

// Promote makes the follower the backup: what it lacks is owed to the backup
// now, and those who waited for the old one wait for the new one. Nothing may
// be under way to the follower.
func (st *Store[S, O, R, M]) Promote(slot uint16) {
	sh := &st.shards[slot%shardCount]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	sh.followed[Backup] = sh.followed[Backup]&^bit(slot) | sh.followed[Follower]&bit(slot)
	sh.followed[Follower] &^= bit(slot)
	out := sh.out(slot)
	if out == nil {
		return
	}
	old := sh.forget(out, Backup)
	next := out.lists[Follower]
	for _, i := range next.queue {
		rec := sh.record(i)
		rec.queued[Follower], rec.queued[Backup] = false, true
	}
	next.acked = max(next.acked, out.lists[Backup].acked)
	out.lists[Backup], out.lists[Follower] = next, list{}
	sh.release(Backup, old, func(rec *record) bool { return !rec.queued[Backup] })
	if st.marks != nil {
		st.marks.set(slot)
	}
}

// Unfollow ends an audience. Where it was the backup, those who wait for it
// are answered with acknowledged: true where the slot goes on without one.
func (st *Store[S, O, R, M]) Unfollow(slot uint16, l List, acknowledged bool) {
	sh := &st.shards[slot%shardCount]
	sh.mu.Lock()
	sh.followed[l] &^= bit(slot)
	out := sh.out(slot)
	if out == nil {
		sh.mu.Unlock()
		return
	}
	sh.release(l, sh.forget(out, l), func(*record) bool { return true })
	var waiters []waiter
	if l == Backup {
		waiters, out.waiters = out.waiters, nil
		out.ended = acknowledged
	}
	if !sh.copied(slot) {
		sh.index(slot).out = nil
	}
	sh.mu.Unlock()
	answer(waiters, acknowledged)
}

// Drop removes all entries of slot; those who wait are answered with false.
func (st *Store[S, O, R, M]) Drop(slot uint16) {
	st.Unfollow(slot, Follower, false)
	st.Unfollow(slot, Backup, false)
	sh := &st.shards[slot%shardCount]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	sh.eachIn(slot, func(i uint32, e *entry[S]) {
		if e.record != 0 { // spent without anybody to tell
			sh.freeRecord(e)
		}
		sh.remove(i)
	})
}

// Await calls done once the backup has acknowledged the change that t names,
// or with false when under this reign it can't be any more. done is called
// once, perhaps before Await returns, and never under the shard's lock.
func (st *Store[S, O, R, M]) Await(slot uint16, t Ticket, done func(acknowledged bool)) {
	sh := &st.shards[slot%shardCount]
	sh.mu.Lock()
	out := sh.out(slot)
	switch {
	case out == nil || out != t.out: // ended since; whether it was acknowledged is not known
		sh.mu.Unlock()
		done(false)
	case out.lists[Backup].acked >= t.change:
		sh.mu.Unlock()
		done(true)
	case !sh.follows(slot, Backup): // as those who waited when it ended
		ended := out.ended
		sh.mu.Unlock()
		done(ended)
	default:
		out.waiters = append(out.waiters, waiter{t.change, done})
		sh.mu.Unlock()
	}
}

func answer(waiters []waiter, acknowledged bool) {
	for _, w := range waiters {
		w.done(acknowledged)
	}
}

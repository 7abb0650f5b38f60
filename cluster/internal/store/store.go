// Package store holds the entries of owned tables in memory: per slot, under
// shard locks, with expiry, a cap, and for each slot the lists of entries that
// its copies still have to be told of.
//
// It knows nothing of members or networks. Who may execute operations on a
// slot is decided elsewhere and told to the store through a [Gate]; what the
// copies have acknowledged is told through [Store.Acked]. All times are
// instants on this member's monotonic clock in nanoseconds, given by the
// caller: the store reads no clock.
package store

import (
	"sync/atomic"
	"time"
)

// Slots is the number of slots of a real cluster. A slot is the low 14 bits of
// the xxhash64 of a key.
const Slots = 16384

const (
	shardCount = 256 // a slot belongs to shard slot % shardCount
	shardSlots = Slots / shardCount
	chunkLen   = 128 // entries allocated at a time; of 80 bytes each, as a limiter's are, they fill what is allocated
	reclaimMax = 2   // entries reclaimed, and evicted, at most for each one inserted
)

// Machine is a table's state machine: pure functions on values. The zero value
// of S means "no entry".
type Machine[S, O, R any] interface {
	// Apply runs op on s and returns the new state, the result and what the
	// store has to do. It must not block or read a clock.
	Apply(c Call, s S, op O) (S, R, Effect)
	// AppendState and ParseState are S's encoding. Instants in S are relative
	// to the holder's clock: they travel as durations from now.
	AppendState(b []byte, s S, now int64) []byte
	ParseState(b []byte, now int64) (S, error)
	AppendOp(b []byte, op O) []byte
	ParseOp(b []byte) (O, error)
	AppendResult(b []byte, r R) []byte
	ParseResult(b []byte) (R, error)
	// Merge joins two states of one key that two members served while they
	// could not see each other.
	Merge(a, b S) S
}

// InPlace is a [Machine] whose operations are not handed on by value: ApplyTo is
// Apply, with the new state written over the old one and the result over its
// zero value. Where the effect is not a change, what s has become is dropped.
// The pointers are good for the call only.
type InPlace[S, O, R any] interface {
	ApplyTo(c *Call, s *S, op *O, r *R) Effect
}

// byValue has a Machine run in place.
type byValue[S, O, R any, M Machine[S, O, R]] struct{ machine M }

func (b byValue[S, O, R, M]) ApplyTo(c *Call, s *S, op *O, r *R) (e Effect) {
	*s, *r, e = b.machine.Apply(*c, *s, *op)
	return e
}

// Call says under which circumstances an operation runs.
type Call struct {
	// Now is the holder's monotonic clock in nanoseconds, always above zero
	// and comparable on one member only.
	Now int64
	// ID is the operation's, the same when it is sent again.
	ID uint64
	// Epoch of the possession under which it runs, and the boot ID of the
	// holder: together they name one reign over the slot.
	Epoch, Holder uint64
	// Again says that an earlier sending of the operation may have run.
	Again bool
	// Unprotected says that the holder had other members and has none left: no
	// backup learns of what it does.
	Unprotected bool
	// WallOffset is the wall clock minus Now, in nanoseconds since 1970.
	WallOffset int64
}

// Wall returns the wall clock at c.Now.
func (c Call) Wall() time.Time { return time.Unix(0, c.Now+c.WallOffset) }

// Effect is what an operation asks of the store.
type Effect struct {
	// Changed: the state differs, the copy must follow.
	Changed bool
	// Wait: answer only when the backup has the change.
	Wait bool
	// Spent is the number of units that this operation used and that the
	// backup does not know of; Bound is how many such units may be
	// outstanding for the key. The operation that goes beyond waits. 0: no
	// bound.
	Spent, Bound int64
	// Expires is the instant after which the entry may be forgotten. 0: now.
	Expires int64
}

// Store is one table's entries on this member. Its methods may be called
// concurrently.
type Store[S, O, R any, M Machine[S, O, R]] struct {
	machine  M
	maxShard int    // entries a shard may hold
	marks    *Marks // slots with changes for their backup; nil where there are no copies
	applier  InPlace[S, O, R]
	shards   [shardCount]shard[S]
	desks    [shardCount]*desk[S, O, R]

	evictedLive atomic.Uint64
}

// desk is where a shard's operations run, one after the other under its lock. A
// machine is called through an interface, so what it is given pointers to can't
// be on a stack.
type desk[S, O, R any] struct {
	call   Call
	state  S
	op     O
	result R
}

// New returns a store that holds about maxEntries entries at most. Slots that
// have changes for their backup are noted in marks; nil where there are no
// copies.
func New[S, O, R any, M Machine[S, O, R]](m M, maxEntries int, marks *Marks) *Store[S, O, R, M] {
	perShard := (maxEntries + shardCount - 1) / shardCount
	// Keys spread unevenly over shards; a little slack keeps a table that is
	// just full from evicting in its fullest shard.
	perShard += perShard/8 + 8
	applier, ok := any(m).(InPlace[S, O, R])
	if !ok {
		applier = byValue[S, O, R, M]{m}
	}
	return &Store[S, O, R, M]{machine: m, maxShard: perShard, marks: marks, applier: applier}
}

// Machine returns the table's state machine.
func (st *Store[S, O, R, M]) Machine() M { return st.machine }

// Do runs op on the entry of key under the shard's lock, if the gate lets it:
// gate is asked under the lock, so that once the gate is shut and the shard's
// lock was taken and given back, nothing runs any more. It writes the result to
// r and returns the reign under which op ran; nil where the gate was shut, and
// then nothing happened. A ticket to wait for means that the answer must be held
// back until the backup has the change; see [Store.Await].
func (st *Store[S, O, R, M]) Do(gate *Gate, hash uint64, key []byte, c *Call, op *O, r *R) (t Ticket, ran *Reign) {
	slot := uint16(hash % Slots)
	i := slot % shardCount
	sh := &st.shards[i]
	sh.mu.Lock()
	d := st.desks[i]
	if d == nil {
		d = new(desk[S, O, R])
		st.desks[i] = d
	}
	d.call = *c
	if ran = gate.open(slot, &d.call); ran == nil {
		sh.mu.Unlock()
		return t, nil
	}
	d.op = *op
	t = st.apply(sh, d, slot, uint32(hash), key)
	*r = d.result
	sh.mu.Unlock()
	return t, ran
}

func (st *Store[S, O, R, M]) apply(sh *shard[S], d *desk[S, O, R], slot uint16, hash uint32, key []byte) Ticket {
	var none S
	var no R
	d.state, d.result = none, no
	now := d.call.Now
	i := sh.find(slot, hash, key)
	if i != 0 {
		if e := sh.at(i); e.expires > now {
			d.state = e.state
		}
	}
	effect := st.applier.ApplyTo(&d.call, &d.state, &d.op, &d.result)
	if !effect.Changed {
		return Ticket{}
	}
	if i == 0 {
		if effect.Expires <= now && !sh.copied(slot) {
			return Ticket{} // nothing to keep, nobody to tell
		}
		i = st.insert(sh, slot, hash, key, effect.Expires, now)
	}
	sh.at(i).state = d.state
	sh.setExpiry(i, max(effect.Expires, now))
	return sh.changed(st.marks, slot, i, effect)
}

// insert makes room where the shard is full, and adds an empty entry.
func (st *Store[S, O, R, M]) insert(sh *shard[S], slot uint16, hash uint32, key []byte, expires, now int64) uint32 {
	sh.reclaim(now, reclaimMax)
	// Where nothing could go for a while the shard has outgrown its cap; two
	// for one bring it back.
	for i := 0; i < reclaimMax && sh.n >= st.maxShard; i++ {
		gone, live := sh.evict(now)
		if live {
			st.evictedLive.Add(1)
		}
		if !gone {
			break
		}
	}
	return sh.insert(slot, hash, key, expires)
}

// EvictedLive returns how many live entries were evicted because a shard was
// full.
func (st *Store[S, O, R, M]) EvictedLive() uint64 { return st.evictedLive.Load() }

// Peek returns the state of key as it stands.
func (st *Store[S, O, R, M]) Peek(hash uint64, key []byte, now int64) (s S, ok bool) {
	slot := uint16(hash % Slots)
	sh := &st.shards[slot%shardCount]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if i := sh.find(slot, uint32(hash), key); i != 0 {
		if e := sh.at(i); e.expires > now {
			return e.state, true
		}
	}
	return s, false
}

// forgettable is a Machine some of whose states stand for nothing, such as the
// memory of a reset: they are copied and moved, but not counted or listed.
type forgettable[S any] interface{ Gone(s S) bool }

// counts returns which entries are counted and listed at now.
func (st *Store[S, O, R, M]) counts(now int64) func(e *entry[S]) bool {
	m, ok := any(st.machine).(forgettable[S])
	return func(e *entry[S]) bool { return e.expires > now && !(ok && m.Gone(e.state)) }
}

// Len returns the number of live entries in the slots that include accepts
// (nil: all), copies among them.
func (st *Store[S, O, R, M]) Len(now int64, include func(slot uint16) bool) int {
	n, counts := 0, st.counts(now)
	for slot := range uint16(Slots) {
		if include != nil && !include(slot) {
			continue
		}
		sh := &st.shards[slot%shardCount]
		sh.mu.Lock()
		sh.eachIn(slot, func(_ uint32, e *entry[S]) {
			if counts(e) {
				n++
			}
		})
		sh.mu.Unlock()
	}
	return n
}

// Range calls f with each live entry of the slots that include accepts until f
// returns false. f runs without a lock on a snapshot of one slot at a time.
func (st *Store[S, O, R, M]) Range(now int64, include func(slot uint16) bool, f func(key string, s S) bool) {
	type item struct {
		key   string
		state S
	}
	var batch []item
	counts := st.counts(now)
	for slot := range uint16(Slots) {
		if include != nil && !include(slot) {
			continue
		}
		batch = batch[:0]
		sh := &st.shards[slot%shardCount]
		sh.mu.Lock()
		sh.eachIn(slot, func(_ uint32, e *entry[S]) {
			if counts(e) {
				batch = append(batch, item{e.key.String(), e.state})
			}
		})
		sh.mu.Unlock()
		for _, it := range batch {
			if !f(it.key, it.state) {
				return
			}
		}
	}
}

// Sweep reclaims expired entries, at most max of them a shard, so that a table
// which is no longer written to gives its memory back.
func (st *Store[S, O, R, M]) Sweep(now int64, max int) {
	for i := range st.shards {
		sh := &st.shards[i]
		sh.mu.Lock()
		sh.reclaim(now, max)
		sh.mu.Unlock()
	}
}

// Flush waits until every operation that had passed the gate for slot before
// it was shut is over.
func (st *Store[S, O, R, M]) Flush(slot uint16) {
	sh := &st.shards[slot%shardCount]
	sh.mu.Lock()
	//lint:ignore SA2001 taking the lock is the point
	sh.mu.Unlock()
}

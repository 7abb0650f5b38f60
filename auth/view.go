package auth

import "sync"

// viewMarks is how many changed keys a member remembers, to judge by them what was read before.
const viewMarks = 8192

// view is what this member has learnt of changed keys, from three witnesses: broadcasts, the cluster's record
// (position) and the store's (revision). It judges whether something that was read earlier may still be cached.
//
// Everything learnt advances clock, a count of this view alone. A reading that began at clock c and concerns a key
// that was marked later than c may be older than the change, and is not kept.
type view struct {
	mu sync.Mutex // guards all below

	clock uint64
	// dropped is the clock at which everything before became unusable.
	dropped uint64
	marks   map[uint64]mark // by fingerprint
	// ring has the marks in the order they were made; next is where the oldest is.
	ring []ringMark
	next int

	// The cluster's record as this member knows it: complete from floor.position to position.
	inTable               bool
	incarnation, position uint64
	last                  uint64 // fingerprint at position
	// The store's revisions: complete from floor.revision to revision.
	inStore  bool
	revision uint64
	// floor is what a value from the shared cache must have known for marks to tell all that came later.
	floor struct{ position, revision uint64 }
}

// mark is the latest known change of a key; position and revision are 0 where not known.
type mark struct{ clock, position, revision uint64 }

type ringMark struct{ fingerprint, clock uint64 }

// knowledge is what a reading of the store was preceded by. It goes with the value into the shared cache.
type knowledge struct {
	clock                           uint64 // this member's own
	incarnation, position, revision uint64
}

func newView() *view { return &view{marks: map[uint64]mark{}} }

// now returns what is known at the beginning of a reading.
func (v *view) now() knowledge {
	v.mu.Lock()
	defer v.mu.Unlock()
	return knowledge{v.clock, v.incarnation, v.position, v.revision}
}

// changed reports whether what was read from the store at clock may be older than a change of the key.
func (v *view) changed(fingerprint, clock uint64) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.dropped > clock || v.marks[fingerprint].clock > clock
}

// vouches reports whether a value of another member, read from the store with knowledge k, is at least as new as
// every change of the key that is known here, and whether every change since would be known here.
func (v *view) vouches(fingerprint uint64, k knowledge) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	m := v.marks[fingerprint]
	return v.inTable && v.inStore && k.incarnation == v.incarnation &&
		k.position >= v.floor.position && k.revision >= v.floor.revision &&
		k.position >= m.position && k.revision >= m.revision
}

// told notes a broadcast change: its position in the record of that incarnation (0: not known) and its revision in
// the store (0: none).
func (v *view) told(fingerprint, incarnation, position, revision uint64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if incarnation != v.incarnation {
		position = 0
	}
	v.markLocked(fingerprint, mark{position: position, revision: revision})
}

// ask returns the question that reads the cluster's record from where this view is.
func (v *view) ask() changelogOp {
	v.mu.Lock()
	defer v.mu.Unlock()
	return changelogOp{incarnation: v.incarnation, since: v.position, last: v.last}
}

// readTable takes in the cluster's record. It returns the keys to remove from the caches, or that all are.
func (v *view) readTable(r changelogResult) (changed []uint64, all bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if r.gap || !v.inTable || r.incarnation != v.incarnation || r.from > v.position {
		all = true
		v.dropLocked()
		if r.incarnation != v.incarnation {
			// Positions of another incarnation mean nothing; who knows this one has read the store since.
			v.floor.position = 0
			for f, m := range v.marks {
				m.position = 0
				v.marks[f] = m
			}
		}
		v.inTable, v.incarnation, v.floor.position = true, r.incarnation, max(v.floor.position, r.from)
	}
	for i, f := range r.recent {
		position := r.from + uint64(i) + 1
		// A broadcast may have told it already, and the key may have been read again since.
		if v.marks[f].position < position {
			v.markLocked(f, mark{position: position})
			changed = append(changed, f)
		}
	}
	if r.position != v.position || all {
		v.position, v.last = r.position, 0
		if n := len(r.recent); n > 0 {
			v.last = r.recent[n-1]
		}
	}
	return changed, all
}

// since returns the revision from which the store's record is to be read.
func (v *view) since() uint64 {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.revision
}

// readStore takes in the store's record. It returns the keys to remove from the caches, or that all are.
func (v *view) readStore(c Changes) (changed []uint64, all bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.inStore || c.Since > v.revision || c.Latest < v.revision {
		all = true
		v.dropLocked()
		if c.Latest < v.revision {
			// A store that was restored from a backup numbers anew.
			v.floor.revision = 0
			for f, m := range v.marks {
				m.revision = 0
				v.marks[f] = m
			}
		}
		v.inStore, v.floor.revision = true, max(v.floor.revision, c.Since)
	}
	for i := range c.Keys {
		f := c.Keys[i].Digest.fingerprint()
		if v.marks[f].revision < c.Keys[i].Revision {
			v.markLocked(f, mark{revision: c.Keys[i].Revision})
			changed = append(changed, f)
		}
	}
	v.revision = c.Latest
	return changed, all
}

func (v *view) markLocked(fingerprint uint64, m mark) {
	v.clock++
	old := v.marks[fingerprint]
	m = mark{v.clock, max(m.position, old.position), max(m.revision, old.revision)}
	v.marks[fingerprint] = m
	entry := ringMark{fingerprint, v.clock}
	if len(v.ring) < viewMarks {
		v.ring = append(v.ring, entry)
		return
	}
	out := v.ring[v.next]
	v.ring[v.next], v.next = entry, (v.next+1)%viewMarks
	if o := v.marks[out.fingerprint]; o.clock == out.clock {
		// What is forgotten here must not be needed: older readings count as changed from now on.
		v.dropped = max(v.dropped, o.clock)
		v.floor.position, v.floor.revision = max(v.floor.position, o.position), max(v.floor.revision, o.revision)
		delete(v.marks, out.fingerprint)
	}
}

// dropLocked makes everything unusable that was read before.
func (v *view) dropLocked() {
	v.clock++
	v.dropped = v.clock
}

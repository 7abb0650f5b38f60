package auth

import (
	"sync"
	"time"
)

// unknownShards spreads the unknown keys over locks; a power of two.
const unknownShards = 16

// unknown remembers, for a short time, keys that the store does not know. It is bounded in number, the oldest goes
// first, and it is apart from the known ones: a flood of guesses displaces nobody.
type unknown struct {
	ttl    time.Duration
	shards [unknownShards]unknownShard
}

type unknownShard struct {
	mu      sync.Mutex // guards all below
	entries map[uint64]unknownEntry
	ring    []uint64 // fingerprints in order of arrival, a place for each entry
	next    int
}

type unknownEntry struct {
	digest Digest
	until  int64 // on the monotonic clock
	place  int
}

func newUnknown(entries int, ttl time.Duration) *unknown {
	u := &unknown{ttl: ttl}
	for i := range u.shards {
		u.shards[i].entries = map[uint64]unknownEntry{}
		u.shards[i].ring = make([]uint64, max(1, entries/unknownShards))
	}
	return u
}

func (u *unknown) shard(fingerprint uint64) *unknownShard { return &u.shards[fingerprint>>60] }

// has reports whether the key was found to be unknown not long ago.
func (u *unknown) has(d *Digest, now moment) bool {
	f := d.fingerprint()
	s := u.shard(f)
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.entries[f]
	return ok && now.mono < e.until && e.digest.Equal(d)
}

// put adds a key, unless changed says that it was changed since the store was asked; see near.put.
func (u *unknown) put(d *Digest, at moment, changed func() bool) bool {
	f := d.fingerprint()
	s := u.shard(f)
	s.mu.Lock()
	defer s.mu.Unlock()
	if changed() {
		return false
	}
	if old, ok := s.entries[f]; ok {
		s.entries[f] = unknownEntry{*d, at.mono + int64(u.ttl), old.place}
		return true
	}
	if out, ok := s.entries[s.ring[s.next]]; ok && out.place == s.next {
		delete(s.entries, s.ring[s.next])
	}
	s.ring[s.next] = f
	s.entries[f] = unknownEntry{*d, at.mono + int64(u.ttl), s.next}
	s.next = (s.next + 1) % len(s.ring)
	return true
}

func (u *unknown) remove(fingerprint uint64) {
	s := u.shard(fingerprint)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.entries, fingerprint)
}

func (u *unknown) clear() {
	for i := range u.shards {
		s := &u.shards[i]
		s.mu.Lock()
		clear(s.entries)
		s.mu.Unlock()
	}
}

func (u *unknown) size() (n int) {
	for i := range u.shards {
		s := &u.shards[i]
		s.mu.Lock()
		n += len(s.entries)
		s.mu.Unlock()
	}
	return n
}

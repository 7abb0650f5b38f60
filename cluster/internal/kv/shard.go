package kv

import (
	"bytes"
	"sync"
	"time"
)

// fillMargin is by how much a write must be older than the beginning of a load
// for the load's result to replace it. It covers what the members' clocks may
// differ by after they were exchanged: a fill that is refused wrongly costs one
// more load, one that is taken wrongly brings an old value back.
const fillMargin = int64(100 * time.Millisecond)

// shard is the entries of one partition, either those this member owns or
// those it is the backup of. Its rules are the same everywhere, so that all
// copies of a key come to the same entry whatever the order in which they hear
// of writes:
//
//   - a later version replaces an earlier one, never the other way round;
//   - versions are given by the key's owner, each above the one before it;
//   - a tombstone is an entry like others until it expires.
//
// What is stored is never changed in place: readers keep it without copying.
type shard struct {
	engine *engine

	mu    sync.RWMutex // guards what follows
	m     map[uint64]envelope
	bytes int64
	part  int // the partition whose entries it has had, -1: none yet
	// moved are entries that are another member's now. They are still found for
	// movedFor, though neither counted nor moved again: who asks both members for
	// a key may ask the other one before the entry came there and this one after
	// it went. A key that was deleted would look like one that never was.
	moved map[uint64]movedEntry
}

type movedEntry struct {
	envelope
	until int64 // on the clock
}

const movedFor = int64(2 * time.Second)

// entryOverhead is about what a map entry costs beyond the envelope's bytes.
const entryOverhead = 64

func size(e envelope) int64 { return int64(len(e)) + entryOverhead }

// resolve decides what the entry of hkey is once e was offered: e with a
// version of its own, or what is there already.
func (s *shard) resolve(hkey uint64, e envelope) (_ envelope, taken bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return resolve(s.m[hkey], e, s.engine.clock.now())
}

func resolve(cur, e envelope, now int64) (_ envelope, taken bool) {
	if cur != nil && !bytes.Equal(cur.key(), e.key()) {
		cur = nil // another key with the same hash: the later one stays
	}
	if e.mode() == modeStored {
		if cur != nil && cur.version() >= e.version() {
			return cur, false
		}
		return e.stored(e.version()), true
	}
	switch e.mode() {
	case modeFill:
		if cur != nil && refuses(cur, string(e.key()), e.version(), now) {
			return cur, false
		}
	case modeAbsent:
		if cur.live(now) {
			return cur, false
		}
	}
	version := now
	if cur != nil && cur.version() >= version {
		version = cur.version() + 1
	}
	return e.stored(version), true
}

// maxLoad is how old a load may be to be stored: an older one may have begun
// before a delete whose tombstone is gone.
const maxLoad = int64(TombstoneTTL / 2)

// refuses tells whether what was loaded from an instant on must not be stored
// because of what key holds, or of its age.
func refuses(cur envelope, key string, since, now int64) bool {
	if since < now-maxLoad {
		return true
	}
	return cur != nil && string(cur.key()) == key && cur.expires() > now && cur.version() >= since-fillMargin
}

// put stores e, which must be in its stored form and is kept, unless a later
// one is there.
func (s *shard) put(hkey uint64, e envelope) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.part < 0 {
		s.part = int(hkey % partitionCount)
		s.engine.used[s.part].Add(1)
	}
	cur, ok := s.m[hkey]
	if ok && cur.version() >= e.version() && bytes.Equal(cur.key(), e.key()) {
		return
	}
	if ok {
		s.grow(-size(cur))
	}
	delete(s.moved, hkey)
	s.m[hkey] = e
	s.grow(size(e))
	s.makeRoomLocked(hkey)
}

func (s *shard) grow(n int64) {
	s.bytes += n
	s.engine.bytes.Add(n)
}

// makeRoomLocked evicts while the engine holds too much and this shard has more
// than its share, each time the soonest to expire of a few. A shard below its
// share leaves that to the others (engine.reap).
func (s *shard) makeRoomLocked(keep uint64) {
	share := s.engine.maxBytes / max(s.engine.count.Load(), 1)
	for s.engine.bytes.Load() > s.engine.maxBytes && s.bytes > share {
		const sample = 8
		var victim uint64
		var expires int64
		seen := 0
		for hkey, e := range s.m { // a random place to begin at
			if hkey == keep {
				continue
			}
			if seen == 0 || e.expires() < expires {
				victim, expires = hkey, e.expires()
			}
			if seen++; seen == sample {
				break
			}
		}
		if seen == 0 {
			return
		}
		if s.m[victim].live(s.engine.clock.now()) {
			s.engine.evictedLive.Add(1)
		}
		s.removeLocked(victim)
	}
}

func (s *shard) removeLocked(hkey uint64) {
	if e, ok := s.m[hkey]; ok {
		s.grow(-size(e))
		delete(s.m, hkey)
	}
}

// get returns the entry of hkey, tombstones too, or nil.
func (s *shard) get(hkey uint64) envelope {
	s.mu.RLock()
	defer s.mu.RUnlock()
	now := s.engine.clock.now()
	e, ok := s.m[hkey]
	if !ok && s.moved[hkey].until > now {
		e = s.moved[hkey].envelope
	}
	if e == nil || e.expires() <= now {
		return nil
	}
	return e
}

// drop removes what another member has now, where it is still of that version.
func (s *shard) drop(versions map[uint64]int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	until := s.engine.clock.now() + movedFor
	for hkey, version := range versions {
		if e, ok := s.m[hkey]; ok && e.version() == version {
			s.removeLocked(hkey)
			if s.moved == nil {
				s.moved = make(map[uint64]movedEntry)
			}
			s.moved[hkey] = movedEntry{e, until}
		}
	}
}

// reap removes what has expired, and what is too much.
func (s *shard) reap() {
	now := s.engine.clock.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	for hkey, e := range s.m {
		if e.expires() <= now {
			s.removeLocked(hkey)
		}
	}
	for hkey, e := range s.moved {
		if e.until <= now {
			delete(s.moved, hkey)
		}
	}
	if len(s.moved) == 0 {
		s.moved = nil
	}
	s.makeRoomLocked(0)
}

func (s *shard) len() int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return len(s.m)
}

// each calls f with the entries that have not expired. f must not call the
// shard.
func (s *shard) each(f func(hkey uint64, e envelope)) {
	now := s.engine.clock.now()
	s.mu.RLock()
	defer s.mu.RUnlock()
	for hkey, e := range s.m {
		if e.expires() > now {
			f(hkey, e)
		}
	}
}

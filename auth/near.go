package auth

import (
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// nearShards spreads the near cache over locks; a power of two.
const nearShards = 64

// entryOverhead is what an entry costs beside its strings: itself, its principal, its places in map and ring.
const entryOverhead = 600

// entry is a known key as the near cache has it. All but the atomics is fixed once it is in the cache.
type entry struct {
	digest Digest
	// valid is what a hit answers, made once.
	valid    Result
	disabled bool
	expires  int64 // instant on the wall clock; math.MaxInt64: never
	// Instants on the monotonic clock. fresh and stale are until when it is used with the store up and down.
	filled, fresh, stale int64

	used atomic.Int64 // when the last use was noted, on the wall clock
	hit  atomic.Bool  // since the clock's hand last passed
	slot int          // place in the shard's ring; guarded by the shard's lock
	cost int64
}

// newEntry makes the entry of a key that was read at moment at.
func newEntry(k *Key, at moment, ttl, staleTTL time.Duration) *entry {
	p := k.principal()
	e := &entry{
		digest:   k.Digest,
		valid:    Result{Verdict: Valid, Source: FromNear, Cached: true, Principal: p},
		disabled: k.Disabled,
		expires:  math.MaxInt64,
		filled:   at.mono, fresh: at.mono + int64(ttl), stale: at.mono + int64(ttl) + int64(staleTTL),
		cost: cost(p),
	}
	if !k.ExpiresAt.IsZero() {
		e.expires = k.ExpiresAt.UnixNano()
	}
	if !k.LastUsedAt.IsZero() {
		e.used.Store(k.LastUsedAt.UnixNano())
	}
	return e
}

func cost(p *Principal) int64 {
	n := entryOverhead + len(p.ID) + len(p.Project) + len(p.Display)
	for _, s := range p.Scopes {
		n += len(s) + 16
	}
	for k, v := range p.Metadata {
		n += len(k) + len(v) + 48
	}
	for k := range p.Limits {
		n += len(k) + 64
	}
	return int64(n)
}

// verdict judges by the wall clock.
func (e *entry) verdict(now moment) Verdict {
	switch {
	case e.disabled:
		return Disabled
	case now.wall >= e.expires:
		return Expired
	default:
		return Valid
	}
}

// near is this member's cache of known keys, bounded by bytes; what was not hit since the hand of the clock last
// passed goes first (Corbató's second chance).
type near struct {
	shards [nearShards]nearShard
}

type nearShard struct {
	mu      sync.RWMutex // guards all below but hits
	entries map[uint64]*entry
	ring    []*entry
	hand    int
	bytes   int64
	bound   int64
	evicted uint64

	hits atomic.Uint64
	_    [64]byte // the next shard's lock has a cache line of its own
}

func newNear(bytes int64) *near {
	n := &near{}
	for i := range n.shards {
		n.shards[i].entries = map[uint64]*entry{}
		n.shards[i].bound = bytes / nearShards
	}
	return n
}

// shard takes other bits of the fingerprint than those a map of Go's begins with; they are all equally random.
func (n *near) shard(fingerprint uint64) *nearShard { return &n.shards[fingerprint>>58] }

// get returns the entry of that digest, or nil.
func (n *near) get(d *Digest) *entry {
	f := d.fingerprint()
	s := n.shard(f)
	s.mu.RLock()
	e := s.entries[f]
	s.mu.RUnlock()
	if e == nil || !e.digest.Equal(d) {
		return nil
	}
	if !e.hit.Load() {
		e.hit.Store(true)
	}
	return e
}

// hit counts a hit.
func (n *near) hit(d *Digest) { n.shard(d.fingerprint()).hits.Add(1) }

// put adds an entry unless changed says that its key was changed since it was read.
//
// changed is asked under the shard's lock. Whoever learns of a change marks it first and removes the entry then, so
// either changed sees the mark, or the removal waits for the lock and finds the entry.
func (n *near) put(e *entry, changed func() bool) bool {
	f := e.digest.fingerprint()
	s := n.shard(f)
	s.mu.Lock()
	defer s.mu.Unlock()
	if changed() {
		return false
	}
	if old := s.entries[f]; old != nil {
		if old.filled > e.filled && old.digest == e.digest {
			return true // there is a newer one
		}
		s.removeLocked(f, old)
	}
	if e.cost > s.bound {
		return true // right, and too large to keep
	}
	for s.bytes+e.cost > s.bound {
		s.evictLocked()
	}
	e.slot = len(s.ring)
	s.ring = append(s.ring, e)
	s.entries[f] = e
	s.bytes += e.cost
	return true
}

// fits reports whether the cache can hold an entry of that size at all.
func (n *near) fits(e *entry) bool { return e.cost <= n.shards[0].bound }

// remove removes the entry with that fingerprint.
func (n *near) remove(fingerprint uint64) {
	s := n.shard(fingerprint)
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.entries[fingerprint]; e != nil {
		s.removeLocked(fingerprint, e)
	}
}

// clear removes all.
func (n *near) clear() {
	for i := range n.shards {
		s := &n.shards[i]
		s.mu.Lock()
		clear(s.entries)
		clear(s.ring)
		s.ring, s.hand, s.bytes = s.ring[:0], 0, 0
		s.mu.Unlock()
	}
}

func (s *nearShard) evictLocked() {
	for {
		if s.hand >= len(s.ring) {
			s.hand = 0
		}
		e := s.ring[s.hand]
		if !e.hit.Swap(false) {
			s.evicted++
			s.removeLocked(e.digest.fingerprint(), e)
			return
		}
		s.hand++
	}
}

func (s *nearShard) removeLocked(fingerprint uint64, e *entry) {
	last := len(s.ring) - 1
	s.ring[e.slot] = s.ring[last]
	s.ring[e.slot].slot = e.slot
	s.ring[last] = nil
	s.ring = s.ring[:last]
	delete(s.entries, fingerprint)
	s.bytes -= e.cost
}

// size returns the number of entries, what they cost, and how many were evicted.
func (n *near) size() (entries int, bytes int64, evicted uint64) {
	for i := range n.shards {
		s := &n.shards[i]
		s.mu.RLock()
		entries, bytes, evicted = entries+len(s.entries), bytes+s.bytes, evicted+s.evicted
		s.mu.RUnlock()
	}
	return entries, bytes, evicted
}

func (n *near) hits() (sum uint64) {
	for i := range n.shards {
		sum += n.shards[i].hits.Load()
	}
	return sum
}

package cache

import (
	"hash/maphash"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/maypok86/otter/v2"
)

// near is a member's own cache in front of the shared store, bounded in bytes.
//
// # How it can't keep what was replaced
//
// A read asks the shared store and puts the answer here; a write changes the
// shared store, then has every member drop the key, and returns when they have.
// The danger is a read that got the old value and puts it here after the drop.
// So every drop raises the generation of the key's stripe; a read takes the
// generation before it asks the store, and its answer is put here only if it is
// still the same, both under the stripe's lock. The cases:
//
//	read asks  write  drop   put     the read may have the old value, but the
//	                                 generation differs: not put
//	read asks  write  put    drop    put, and dropped again
//	write  read asks  drop   put     it has the new value; not put, which costs
//	                                 a read later
//	write  drop  read asks   put     it has the new value, and is put
//
// Two keys of one stripe hinder each other's puts now and then, and do no harm.
//
// # How it can't miss a drop
//
// A member that is cut off does not hear of writes. Entries are used only while
// there is trust, which the pulse renews as long as others are heard; once it has
// run out, everything is dropped before anything is used again.
type near[V any] struct {
	cache *otter.Cache[string, *nearEntry[V]] // nil: nothing is kept
	seed  maphash.Seed
	trust *trust

	stripes [nearStripes]nearStripe
}

// trust says until when this member may use what it keeps near.
type trust struct {
	base  time.Time
	until atomic.Int64 // since base, in nanoseconds
}

// newTrust returns one that is for ever until somebody says otherwise.
func newTrust() *trust {
	t := &trust{base: time.Now()}
	t.until.Store(math.MaxInt64)
	return t
}

func (t *trust) now() int64 { return int64(time.Since(t.base)) }

const nearStripes = 256

type nearStripe struct {
	mu  sync.Mutex
	gen atomic.Uint64 // changed under mu
	_   [48]byte      // to a line of its own
}

type nearEntry[V any] struct {
	v       V
	expires int64
	weight  uint32
}

// nearOverhead is about what an entry costs beyond its key and its encoded
// value: otter's node, its place in the hash table, and ours.
const nearOverhead = 160

func newNear[V any](bytes int64, t *trust) (*near[V], error) {
	n := &near[V]{seed: maphash.MakeSeed(), trust: t}
	if bytes <= 0 {
		return n, nil
	}
	c, err := otter.New(&otter.Options[string, *nearEntry[V]]{
		MaximumWeight: uint64(bytes),
		Weigher:       func(_ string, e *nearEntry[V]) uint32 { return e.weight },
		Logger:        &otter.NoopLogger{},
	})
	if err != nil {
		return nil, err
	}
	n.cache = c
	return n, nil
}

// get returns what key has here.
func (n *near[V]) get(key string) (v V, ok bool) {
	if n.cache == nil {
		return v, false
	}
	e, ok := n.cache.GetIfPresent(key)
	if !ok {
		return v, false
	}
	now := n.trust.now()
	if now >= e.expires || now >= n.trust.until.Load() {
		return v, false
	}
	return e.v, true
}

func (n *near[V]) stripe(key string) *nearStripe {
	return &n.stripes[maphash.String(n.seed, key)%nearStripes]
}

// generation is to be taken before the shared store is asked.
func (n *near[V]) generation(key string) uint64 { return n.stripe(key).gen.Load() }

// put keeps v for ttl unless key was dropped since gen was taken.
func (n *near[V]) put(key string, gen uint64, v V, size int, ttl time.Duration) {
	if n.cache == nil || ttl <= 0 {
		return
	}
	e := &nearEntry[V]{
		v:       v,
		expires: n.trust.now() + int64(ttl),
		weight:  uint32(min(int64(len(key))+int64(size)+nearOverhead, math.MaxUint32)),
	}
	s := n.stripe(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gen.Load() == gen && n.trust.now() < n.trust.until.Load() {
		n.cache.Set(key, e)
	}
}

// drop forgets key, and what reads that are under way know of it.
func (n *near[V]) drop(key string) {
	s := n.stripe(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gen.Add(1)
	if n.cache != nil {
		n.cache.Invalidate(key)
	}
}

// dropIf forgets the keys for which f holds, and what any read that is under way
// knows.
func (n *near[V]) dropIf(f func(key string) bool) {
	n.raise()
	if n.cache == nil {
		return
	}
	for key := range n.cache.Keys() {
		if f(key) {
			n.cache.Invalidate(key)
		}
	}
}

// dropAll forgets everything. What is put after it began was read after.
func (n *near[V]) dropAll() {
	n.raise()
	if n.cache != nil {
		n.cache.InvalidateAll()
	}
}

func (n *near[V]) raise() {
	for i := range n.stripes {
		s := &n.stripes[i]
		s.mu.Lock()
		s.gen.Add(1)
		s.mu.Unlock()
	}
}

func (n *near[V]) size() (keys int, bytes int64) {
	if n.cache == nil {
		return 0, 0
	}
	n.cache.CleanUp()
	return n.cache.EstimatedSize(), int64(n.cache.WeightedSize())
}

func (n *near[V]) close() {
	n.dropAll()
	if n.cache != nil {
		n.cache.StopAllGoroutines()
	}
}

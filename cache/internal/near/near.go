// Package near is a member's own cache in front of the shared store, bounded in
// bytes.
//
// It knows no types of values, so that otter, whose types are parameters, is
// compiled once, here, and not again in each package that has a cache: that took
// 2 to 5 s of a build each time, on a slow machine.
package near

import (
	"hash/maphash"
	"iter"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/maypok86/otter/v2"
)

// Cache keeps values near.
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
type Cache struct {
	kept  keeper // nil: nothing is kept
	seed  maphash.Seed
	trust *Trust

	stripes [stripeCount]stripe
}

// Trust says until when a member may use what it keeps near. Caches share one.
type Trust struct {
	base  time.Time
	until atomic.Int64 // since base, in nanoseconds
}

// NewTrust returns one that is for ever until somebody says otherwise.
func NewTrust() *Trust {
	t := &Trust{base: time.Now()}
	t.until.Store(math.MaxInt64)
	return t
}

// Until sets the instant at which it ends.
func (t *Trust) Until(end time.Time) { t.until.Store(int64(end.Sub(t.base))) }

// End ends it now.
func (t *Trust) End() { t.until.Store(math.MinInt64) }

func (t *Trust) now() int64 { return int64(time.Since(t.base)) }

// keeper is an otter.Cache. As an interface, because a package that has a struct
// with the type itself compiles all of it anew.
type keeper interface {
	GetIfPresent(key string) (*entry, bool)
	Set(key string, e *entry) (*entry, bool)
	Invalidate(key string) (*entry, bool)
	InvalidateAll()
	Keys() iter.Seq[string]
	CleanUp()
	EstimatedSize() int
	WeightedSize() uint64
	StopAllGoroutines() bool
}

const stripeCount = 256

type stripe struct {
	mu  sync.Mutex
	gen atomic.Uint64 // changed under mu
	_   [48]byte      // to a line of its own
}

type entry struct {
	value   any
	expires int64
	weight  uint32
}

// overhead is about what an entry costs beyond its key and its encoded
// value: otter's node, its place in the hash table, and ours.
const overhead = 160

// New returns a cache of about that many bytes; of none, if bytes is not positive.
func New(bytes int64, t *Trust) (*Cache, error) {
	n := &Cache{seed: maphash.MakeSeed(), trust: t}
	if bytes <= 0 {
		return n, nil
	}
	c, err := otter.New(&otter.Options[string, *entry]{
		MaximumWeight: uint64(bytes),
		Weigher:       func(_ string, e *entry) uint32 { return e.weight },
		Logger:        &otter.NoopLogger{},
	})
	if err != nil {
		return nil, err
	}
	n.kept = c
	return n, nil
}

// Get returns what key has here.
func (n *Cache) Get(key string) (value any, ok bool) {
	if n.kept == nil {
		return nil, false
	}
	e, ok := n.kept.GetIfPresent(key)
	if !ok {
		return nil, false
	}
	now := n.trust.now()
	if now >= e.expires || now >= n.trust.until.Load() {
		return nil, false
	}
	return e.value, true
}

func (n *Cache) stripe(key string) *stripe {
	return &n.stripes[maphash.String(n.seed, key)%stripeCount]
}

// Generation is to be taken before the shared store is asked.
func (n *Cache) Generation(key string) uint64 { return n.stripe(key).gen.Load() }

// Put keeps value, of size bytes, for ttl unless key was dropped since gen was taken.
func (n *Cache) Put(key string, gen uint64, value any, size int, ttl time.Duration) {
	if n.kept == nil || ttl <= 0 {
		return
	}
	e := &entry{
		value:   value,
		expires: n.trust.now() + int64(ttl),
		weight:  uint32(min(int64(len(key))+int64(size)+overhead, math.MaxUint32)),
	}
	s := n.stripe(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gen.Load() == gen && n.trust.now() < n.trust.until.Load() {
		n.kept.Set(key, e)
	}
}

// Drop forgets key, and what reads that are under way know of it.
func (n *Cache) Drop(key string) {
	s := n.stripe(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gen.Add(1)
	if n.kept != nil {
		n.kept.Invalidate(key)
	}
}

// DropIf forgets the keys for which f holds, and what any read that is under way
// knows.
func (n *Cache) DropIf(f func(key string) bool) {
	n.raise()
	if n.kept == nil {
		return
	}
	for key := range n.kept.Keys() {
		if f(key) {
			n.kept.Invalidate(key)
		}
	}
}

// DropAll forgets everything. What is put after it began was read after.
func (n *Cache) DropAll() {
	n.raise()
	if n.kept != nil {
		n.kept.InvalidateAll()
	}
}

func (n *Cache) raise() {
	for i := range n.stripes {
		s := &n.stripes[i]
		s.mu.Lock()
		s.gen.Add(1)
		s.mu.Unlock()
	}
}

// Size returns how many keys and about how many bytes are here.
func (n *Cache) Size() (keys int, bytes int64) {
	if n.kept == nil {
		return 0, 0
	}
	n.kept.CleanUp()
	return n.kept.EstimatedSize(), int64(n.kept.WeightedSize())
}

// Close forgets everything and ends what runs in the background.
func (n *Cache) Close() {
	n.DropAll()
	if n.kept != nil {
		n.kept.StopAllGoroutines()
	}
}

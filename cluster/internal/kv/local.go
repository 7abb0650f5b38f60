package kv

import (
	"context"
	"strings"
	"sync"
	"time"
)

// Local is a store of this process alone, with the same rules.
type Local struct {
	Map
	l *local
}

type local struct {
	engine *engine
	shards [localShards]*shard
	locks  [localShards]sync.Mutex // held from the decision on a write to its end
	puts   [localShards]int        // since the shard was reaped; guarded by its lock
}

const (
	localShards = 64
	reapEvery   = 1024 // writes to a shard between two looks for what has expired
)

var _ backend = (*local)(nil)

// NewLocal returns an empty store that holds about maxBytes, 0 meaning
// [DefaultMaxBytes]. It has no goroutines: what has expired is removed when
// others are written.
func NewLocal(maxBytes int64) *Local {
	if maxBytes <= 0 {
		maxBytes = DefaultMaxBytes
	}
	l := &local{engine: newEngine(newClock(), maxBytes)}
	for i := range l.shards {
		l.shards[i] = l.engine.newShard()
	}
	return &Local{Map: Map{l}, l: l}
}

func (l *local) time() int64 { return l.engine.clock.now() }

func (l *local) fetch(_ context.Context, key string) (envelope, error) {
	hkey := hashOf(key)
	return l.shards[hkey%localShards].get(hkey), nil
}

func (l *local) fetchSurely(ctx context.Context, key string) (envelope, error) {
	return l.fetch(ctx, key)
}

func (l *local) store(_ context.Context, key string, e envelope, sameKind bool) error {
	hkey := hashOf(key)
	i := hkey % localShards
	l.locks[i].Lock()
	defer l.locks[i].Unlock()
	if cur := l.shards[i].get(hkey); sameKind && cur != nil && cur.kind() == KindCounter {
		return ErrWrongKind
	}
	if decided, taken := l.shards[i].resolve(hkey, e); taken {
		l.shards[i].put(hkey, decided)
	}
	if l.puts[i]++; l.puts[i]%reapEvery == 0 {
		l.shards[i].reap()
	}
	return nil
}

// GetMany returns what the keys hold, without those that hold nothing.
func (s *Local) GetMany(ctx context.Context, keys []string) (map[string]Item, error) {
	found := make(map[string]Item, len(keys))
	for _, k := range keys {
		it, ok, err := s.Get(ctx, k)
		if err != nil {
			return nil, err
		}
		if ok {
			found[k] = it
		}
	}
	return found, nil
}

// Keys returns the keys with that prefix that hold a value.
func (s *Local) Keys(_ context.Context, prefix string) ([]string, error) {
	return liveKeys(s.l.engine, prefix), nil
}

// Count counts the keys with that prefix that hold a value.
func (s *Local) Count(_ context.Context, prefix string) (int, error) {
	return len(liveKeys(s.l.engine, prefix)), nil
}

// Healthy is true.
func (s *Local) Healthy() bool { return true }

// Stats counts what is held.
func (s *Local) Stats() Stats {
	return Stats{
		State:       "alone",
		Entries:     s.l.engine.entries(),
		Bytes:       s.l.engine.bytes.Load(),
		EvictedLive: s.l.engine.evictedLive.Load(),
		Members:     1,
		Settled:     true,
	}
}

func liveKeys(g *engine, prefix string) []string {
	var keys []string
	now := g.clock.now()
	g.each(func(_ uint64, e envelope) {
		if e.live(now) && e.kind() == KindValue && strings.HasPrefix(string(e.key()), prefix) {
			keys = append(keys, string(e.key()))
		}
	})
	return keys
}

// Stats is a store's state on this member.
type Stats struct {
	// State is starting, available, unavailable, leaving, left or closed; or
	// alone.
	State string
	// Members is how many members olric knows, this one among them, and
	// Coordinator the name of the oldest.
	Members     int
	Coordinator string
	// Entries are what this member holds, copies and tombstones among them;
	// Bytes what they take.
	Entries int
	Bytes   int64
	// EvictedLive counts entries that went before their time for want of room.
	EvictedLive uint64
	// Restarts counts how often olric was started anew.
	Restarts uint64
	// Copied counts the entries that were offered to the others when members
	// changed, Failed those among them that were not taken.
	Copied, Failed uint64
	// Settled tells that members have not changed for a while, so that who owns a
	// key answers for it alone.
	Settled bool
	// InFlight is how many calls are under way.
	InFlight int
	// Since is for how long the state has held.
	Since time.Duration
}

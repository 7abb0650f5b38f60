package cache

import (
	"sync"
	"time"
)

// graves are writes that the shared store did not take: a value that could not
// be stored or deleted leaves an older one there, which nobody may be given. So
// every member remembers until when what the store has of the key is void, and
// the member whose call it was goes on trying to delete it.
type graves struct {
	mu  sync.Mutex // guards m
	m   map[string]grave
	max int
}

// grave is one of them.
type grave struct {
	at    int64     // the instant on the store's clock: values from before are void
	until time.Time // when it is forgotten
	owed  bool      // it is this member that has to delete it
}

const (
	maxGraves = 65_536
	// graveTTL is for how long a member that owes nothing remembers. The store
	// and its breaker are back well within that, or were started anew and empty.
	graveTTL = 5 * time.Minute
	// owedTTL is for how long the other one goes on trying.
	owedTTL = time.Hour
	// payEvery is how often it tries.
	payEvery = time.Second
)

func newGraves() *graves { return &graves{m: make(map[string]grave), max: maxGraves} }

// dig remembers; it returns false where there is no room.
func (g *graves) dig(key string, at int64, owed bool) bool {
	now := time.Now()
	g.mu.Lock()
	defer g.mu.Unlock()
	old, ok := g.m[key]
	if !ok && len(g.m) >= g.max && !g.makeRoomLocked(now) {
		return false
	}
	ttl := graveTTL
	if owed = owed || old.owed; owed {
		ttl = owedTTL
	}
	g.m[key] = grave{at: max(at, old.at), until: now.Add(ttl), owed: owed}
	return true
}

func (g *graves) makeRoomLocked(now time.Time) bool {
	for key, gr := range g.m {
		if now.After(gr.until) {
			delete(g.m, key)
		}
	}
	for key, gr := range g.m {
		if len(g.m) < g.max {
			break
		}
		if !gr.owed {
			delete(g.m, key)
		}
	}
	return len(g.m) < g.max
}

// void tells whether what the store has of key since version must not be used.
func (g *graves) void(key string, version int64) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	gr, ok := g.m[key]
	return ok && version <= gr.at
}

// paid says that the store has deleted what was there at an instant.
func (g *graves) paid(key string, at int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if gr, ok := g.m[key]; ok && gr.at == at {
		gr.owed = false
		gr.until = time.Now().Add(graveTTL)
		g.m[key] = gr
	}
}

// debts returns what this member owes.
func (g *graves) debts() map[string]int64 {
	now := time.Now()
	g.mu.Lock()
	defer g.mu.Unlock()
	var owed map[string]int64
	for key, gr := range g.m {
		switch {
		case now.After(gr.until):
			delete(g.m, key)
		case gr.owed:
			if owed == nil {
				owed = make(map[string]int64)
			}
			owed[key] = gr.at
		}
	}
	return owed
}

func (g *graves) empty() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.m) == 0
}

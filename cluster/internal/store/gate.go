package store

import (
	"math"
	"sync/atomic"
)

// Grant is a promise that nobody else will serve until an instant. It is
// shared by all slots that one backup covers.
type Grant struct{ until atomic.Int64 }

// Forever is a grant that does not end: of a process that has no members.
var Forever = newGrant(math.MaxInt64)

func newGrant(until int64) *Grant {
	g := new(Grant)
	g.until.Store(until)
	return g
}

// Until returns the instant at which the grant ends.
func (g *Grant) Until() int64 { return g.until.Load() }

// Extend moves the end, never backwards.
func (g *Grant) Extend(until int64) {
	if until > g.until.Load() {
		g.until.Store(until)
	}
}

// End ends the grant at once.
func (g *Grant) End() { g.until.Store(0) }

// Reign is one possession of a slot: what an operation needs to know of it.
type Reign struct {
	Epoch, Holder uint64
	Grant         *Grant
	Unprotected   bool // see [Call]
}

// Gate says for each slot under which reign operations may run, if any. Its
// methods may be called concurrently.
type Gate struct{ slots [Slots]atomic.Pointer[Reign] }

// OpenGate returns a gate that is open for ever: that of a process alone.
func OpenGate() *Gate {
	g := new(Gate)
	alone := &Reign{Epoch: 1, Grant: Forever}
	for i := range g.slots {
		g.slots[i].Store(alone)
	}
	return g
}

// Set opens slot for r, or shuts it (nil). Operations that had passed may
// still be running; see [Store.Flush].
func (g *Gate) Set(slot uint16, r *Reign) { g.slots[slot].Store(r) }

// Get returns the slot's reign, nil where the gate is shut.
func (g *Gate) Get(slot uint16) *Reign { return g.slots[slot].Load() }

// Open reports whether operations on slot may run at now.
func (g *Gate) Open(slot uint16, now int64) bool {
	r := g.slots[slot].Load()
	return r != nil && now < r.Grant.until.Load()
}

// Holds reports whether what ran in this reign may be answered at now: its
// grant has not run out. That the slot was handed over in between, with what
// ran, does not matter.
func (r *Reign) Holds(now int64) bool { return now < r.Grant.until.Load() }

func (g *Gate) open(slot uint16, c *Call) *Reign {
	r := g.slots[slot].Load()
	if r == nil || c.Now >= r.Grant.until.Load() {
		return nil
	}
	c.Epoch, c.Holder, c.Unprotected = r.Epoch, r.Holder, r.Unprotected
	return r
}

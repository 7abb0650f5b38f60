package auth

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// The timing of confirmations. A round is asked at most tableEvery (storeEvery) after the last one ended, and takes
// at most its timeout, so that while all is well a new confirmation is there before the last one runs out.
const (
	// confirmedFor is how long a confirmation is good for, from before it was asked for.
	confirmedFor = time.Second
	// settleFor is how long after a change nobody can have a confirmation from before it: confirmedFor, and 5 % for
	// members whose clock runs slower.
	settleFor = confirmedFor + confirmedFor/20

	tableEvery   = 250 * time.Millisecond
	tableTimeout = 300 * time.Millisecond // a table answers or gives up within 250 ms
	storeEvery   = 350 * time.Millisecond
	storeTimeout = 500 * time.Millisecond
	// roundGap bounds how often a witness is asked because somebody waits for it.
	roundGap = 20 * time.Millisecond
	// healFor is how long after a split the sides may still have records of their own; the cluster promises to be
	// one within 10 s.
	healFor = 15 * time.Second
	// idleAfter is how long after the last verification nothing is confirmed any more.
	idleAfter = 2 * time.Second
)

// confirmation says since when this member has certainly known of every change.
//
// Two witnesses confirm: the cluster's record and the store's. Both have to, but for one case: when the store does
// not answer, nothing can be changed in it either, and the cluster's record is enough, unless members are missing, or
// have been a moment ago. They may be alive beyond a split, have a record of their own there, and reach a store that
// this member can't.
type confirmation struct {
	// since is the older of the two confirmations; nil: not confirmed.
	since atomic.Pointer[moment]

	now   func() moment
	whole func() bool

	mu           sync.Mutex // guards all below
	table, store *moment
	storeFails   bool
	closed       bool
	missing      bool    // members are
	healed       *moment // when that ended
}

// load returns the confirmation, nil where there is none.
//
// To use a cached entry takes three steps in this order: load the confirmation, find the entry, read the clock. What
// was confirmed is true of an entry that is found later: whatever changed before it has been removed. And a process
// that is stopped between any two of the steps finds the confirmation run out in the third. In another order it
// could be stopped with the entry in its hand, and be told by a confirmation from after that all is well.
func (c *confirmation) load() *moment { return c.since.Load() }

// fresh reports whether what was found in a cache after m was loaded may be used.
func (m *moment) fresh(now moment) bool { return m != nil && m.within(now, confirmedFor) }

// tableRead notes that the cluster's record was read, all of it taken in, by a question sent at that moment.
func (c *confirmation) tableRead(at moment) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.table = &at
	c.updateLocked()
}

// storeRead is tableRead for the store. It reports whether the store had not answered before.
func (c *confirmation) storeRead(at moment) (recovered bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	recovered = c.storeFails
	c.store, c.storeFails = &at, false
	c.updateLocked()
	return recovered
}

// storeFailed notes that the store did not answer. It reports whether it had before.
func (c *confirmation) storeFailed() (first bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	first = !c.storeFails
	c.storeFails = true
	c.updateLocked()
	return first
}

func (c *confirmation) storeDown() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.storeFails
}

// begun reports whether both records have been read at least once, and what they said was taken in: the first reading
// of each drops all that is cached.
func (c *confirmation) begun() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.table != nil && c.store != nil
}

// membersChanged has to be called when whole may answer differently.
func (c *confirmation) membersChanged() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.updateLocked()
}

func (c *confirmation) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	c.updateLocked()
}

func (c *confirmation) updateLocked() {
	if whole := c.whole(); whole && c.missing {
		at := c.now()
		c.missing, c.healed = false, &at
	} else {
		c.missing = !whole
	}
	since := c.table
	switch {
	case c.closed:
		since = nil
	case c.storeFails:
		if c.missing || c.healed != nil && since != nil && since.mono-c.healed.mono < int64(healFor) {
			since = nil
		}
	case c.store == nil || since != nil && c.store.mono < since.mono:
		since = c.store
	}
	c.since.Store(since)
}

// pulse asks one witness, round after round, while verifications happen.
type pulse struct {
	every, timeout time.Duration
	// round asks and takes in the answer.
	round func(context.Context) error
	// idle reports whether nobody needs an answer.
	idle func() bool

	wake chan struct{} // holds one

	mu      sync.Mutex    // guards all below
	next    chan struct{} // closed when the round that begins next has ended
	failing bool          // the last round did
}

func newPulse(every, timeout time.Duration, idle func() bool, round func(context.Context) error) *pulse {
	return &pulse{
		every: every, timeout: timeout, round: round, idle: idle,
		wake: make(chan struct{}, 1), next: make(chan struct{}),
	}
}

// ask hurries the next round and returns a channel that is closed when one that begins after this call has ended;
// nil if the last round failed, so that nobody waits for a witness that does not answer.
func (p *pulse) ask() <-chan struct{} {
	p.mu.Lock()
	next := p.next
	if p.failing {
		next = nil
	}
	p.mu.Unlock()
	select {
	case p.wake <- struct{}{}:
	default:
	}
	return next
}

// run goes on until ctx is done.
func (p *pulse) run(ctx context.Context) {
	timer := time.NewTimer(p.every)
	defer timer.Stop()
	for ctx.Err() == nil {
		p.mu.Lock()
		ended := p.next
		p.next = make(chan struct{})
		p.mu.Unlock()

		round, cancel := context.WithTimeout(ctx, p.timeout)
		err := p.round(round)
		cancel()

		p.mu.Lock()
		p.failing = err != nil
		p.mu.Unlock()
		close(ended)

		timer.Reset(p.every)
		wake := p.wake
		if err != nil {
			wake = nil // a witness that fails is not asked more often because many wait for it
		}
		select {
		case <-ctx.Done():
		case <-wake:
			timer.Reset(roundGap)
			select {
			case <-ctx.Done():
			case <-timer.C:
			}
		case <-timer.C:
			if p.idle() {
				select {
				case <-ctx.Done():
				case <-p.wake:
				}
			}
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.failing = true // nobody waits any more
	close(p.next)
	p.next = make(chan struct{})
}

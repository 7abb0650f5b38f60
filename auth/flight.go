package auth

import "sync"

// flights has one reading of the store for each key at a time.
//
// A caller may use the answer of a reading that began after the caller asked: it is as good as one of its own. It
// must not use one that was under way already, for that may have read the store before a revocation that returned
// before the caller asked. It waits for it all the same, so that a crowd that comes while the store is slow costs
// two readings and not one each; and mostly costs one, since what the first one read is in the cache by then.
// Tickets tell before from after.
type flights struct {
	mu     sync.Mutex // guards all below
	ticket uint64
	flying map[Digest]*flight
}

type flight struct {
	began uint64 // a ticket
	done  chan struct{}
	// Set before done is closed.
	outcome outcome
}

// outcome is what a reading came to.
type outcome struct {
	entry *entry // of a known key
	// missing: there is no such key.
	missing bool
	// changed: the key was changed while it was read, so that what was read may be from before.
	changed bool
	// shared: the entry is from the shared cache, and has to be confirmed like any cached one.
	shared bool
	err    error
}

func newFlights() *flights { return &flights{flying: map[Digest]*flight{}} }

// arrive returns a ticket for a caller.
func (f *flights) arrive() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ticket++
	return f.ticket
}

// join returns the reading of that key that is under way, or begins one: then lead is true, and the caller has to
// see to it that land is called.
func (f *flights) join(d *Digest) (fl *flight, lead bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if fl := f.flying[*d]; fl != nil {
		return fl, false
	}
	f.ticket++
	fl = &flight{began: f.ticket, done: make(chan struct{})}
	f.flying[*d] = fl
	return fl, true
}

// land ends a reading and gives its outcome to all who wait.
func (f *flights) land(d *Digest, fl *flight, o outcome) {
	f.mu.Lock()
	delete(f.flying, *d)
	f.mu.Unlock()
	fl.outcome = o
	close(fl.done)
}

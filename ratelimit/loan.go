package ratelimit

import (
	"sync"
	"sync/atomic"
)

// loan is one hot key on a member that does not hold it: the slice that it
// hands out now, and what is needed to ask for the next.
type loan struct {
	hash  uint64
	key   []byte
	terms terms

	slice  atomic.Pointer[slice] // nil: none just now
	missed atomic.Int64          // permits that went to the holder since it was looked at last
	wake   chan struct{}         // told when few permits are left

	mu      sync.Mutex
	recalls uint64 // guarded by mu
	over    bool   // no slice is installed any more; guarded by mu
}

// install makes s the slice to hand out, nil for none, and returns the one
// before. It refuses s where slices were recalled since recalls were counted.
func (ln *loan) install(s *slice, recalls uint64) (before *slice, ok bool) {
	ln.mu.Lock()
	defer ln.mu.Unlock()
	if s != nil && (ln.over || ln.recalls != recalls) {
		return nil, false
	}
	return ln.slice.Swap(s), true
}

// withdraw ends the slice in use, which is returned, and refuses what was asked
// for before.
func (ln *loan) withdraw(over bool) *slice {
	ln.mu.Lock()
	defer ln.mu.Unlock()
	ln.recalls++
	ln.over = ln.over || over
	return ln.slice.Swap(nil)
}

func (ln *loan) recalled() uint64 {
	ln.mu.Lock()
	defer ln.mu.Unlock()
	return ln.recalls
}

// loans are the hot keys, maxLoans at most. Looking for one takes no lock.
type loans struct {
	sets [loanSets][loanWays]atomic.Pointer[loan]

	mu     sync.Mutex   // held by who changes sets
	n      atomic.Int64 // written with mu held
	closed bool         // guarded by mu
}

const (
	loanSets = 1024
	loanWays = 4
	// maxLoans bounds the hot keys of a member, each of which has a goroutine.
	maxLoans = 1024
)

func (t *loans) find(hash uint64, key []byte) *loan {
	set := &t.sets[hash%loanSets]
	for i := range set {
		if ln := set[i].Load(); ln != nil && ln.hash == hash && string(ln.key) == string(key) {
			return ln
		}
	}
	return nil
}

// room reports whether a loan of that hash could be added just now.
func (t *loans) room(hash uint64) bool {
	set := &t.sets[hash%loanSets]
	for i := range set {
		if set[i].Load() == nil {
			return t.n.Load() < maxLoans
		}
	}
	return false
}

// add adds a loan; false where it is there already or there is no room.
func (t *loans) add(ln *loan) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed || t.n.Load() >= maxLoans || t.find(ln.hash, ln.key) != nil {
		return false
	}
	set := &t.sets[ln.hash%loanSets]
	for i := range set {
		if set[i].Load() == nil {
			set[i].Store(ln)
			t.n.Add(1)
			return true
		}
	}
	return false
}

func (t *loans) remove(ln *loan) {
	t.mu.Lock()
	defer t.mu.Unlock()
	set := &t.sets[ln.hash%loanSets]
	for i := range set {
		if set[i].CompareAndSwap(ln, nil) {
			t.n.Add(-1)
		}
	}
}

// close lets no loan be added any more.
func (t *loans) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
}

package membership

import (
	"cmp"
	"slices"
	"sync"
	"time"
)

// Bounds of what is remembered of members that have gone. So long can a network
// be split and be found to have healed without the help of a seed.
const (
	rememberFor  = 24 * time.Hour
	rememberMost = 4096
)

// Kind says what changed about a member.
type Kind uint8

// The kinds of change.
const (
	Joined   Kind = iota + 1 // new, or back after a false alarm
	Updated                  // alive and tells something else of itself, such as draining
	Departed                 // said goodbye
	Lost                     // seen to have died
)

// A Change is one change of one member other than the observer.
type Change struct {
	Kind   Kind
	Member Member // as it is after the change
}

// table is what this member knows of the members. It never calls anybody, so
// its lock may be taken under memberlist's.
//
// Changes are told by comparing what is known with what was told last, so a
// slow listener sees fewer changes, never wrong ones, and what waits for it is
// bounded by the number of members.
type table struct {
	self uint64
	now  func() time.Time

	mu      sync.Mutex // guards what follows
	known   map[uint64]*known
	live    int      // known members in a live state, self included
	changed []uint64 // boots whose state may differ from what was told, oldest first
	wake    chan struct{}
}

type known struct {
	Member
	leaving bool // it said goodbye; when it disappears it has left
	proven  bool // this life is over beyond doubt, so no later word revives it
	queued  bool // in changed
	told    Member
}

func newTable(self Member, now func() time.Time) *table {
	t := &table{self: self.Boot, now: now, known: make(map[uint64]*known), wake: make(chan struct{}, 1)}
	self.State, self.Since = Alive, now()
	t.known[self.Boot] = &known{Member: self, told: self}
	t.live = 1
	return t
}

// alive records that a member is alive and what it tells of itself.
func (t *table) alive(m Member) {
	m.State = Alive
	if m.Draining {
		m.State = Draining
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	k := t.known[m.Boot]
	if k == nil {
		k = new(known)
		t.known[m.Boot] = k
	}
	if k.final() {
		return
	}
	m.Since = k.Since
	if m.State != k.State {
		m.Since = t.now()
	}
	t.setLocked(k, m)
}

// final tells whether no later word of the member's life is believed.
func (k *known) final() bool { return k.State == Left || k.proven }

// gone records that a member has disappeared.
func (t *table) gone(boot uint64, proven bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	k := t.known[boot]
	if k == nil || boot == t.self {
		return
	}
	k.proven = k.proven || proven
	if !k.State.Live() {
		return
	}
	m := k.Member
	m.State, m.Since = Dead, t.now()
	if k.leaving {
		m.State = Left
	}
	t.setLocked(k, m)
	t.forgetLocked()
}

// leaving records that a member has said goodbye and will disappear.
func (t *table) leaving(boot uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	k := t.known[boot]
	if k == nil || boot == t.self {
		return
	}
	k.leaving = true
	if k.State == Dead {
		m := k.Member
		m.State, m.Since = Left, t.now()
		t.setLocked(k, m)
	}
}

// heard records a departure or death that another member tells of. What this
// member knows of its own is kept.
func (t *table) heard(boot uint64, state State, ago time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.known[boot] != nil || boot == 0 || state.Live() || state == Unknown || ago >= rememberFor {
		return
	}
	m := Member{Boot: boot, State: state, Since: t.now().Add(-max(ago, 0))}
	t.known[boot] = &known{Member: m, told: m}
	t.forgetLocked()
}

func (t *table) setLocked(k *known, m Member) {
	if m.State.Live() != k.State.Live() {
		if m.State.Live() {
			t.live++
		} else {
			t.live--
		}
	}
	k.Member = m
	if !k.queued && m.Boot != t.self {
		k.queued = true
		t.changed = append(t.changed, m.Boot)
	}
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// forgetLocked drops what is too old, and the oldest of what is too much.
func (t *table) forgetLocked() {
	gone := len(t.known) - t.live
	now := t.now()
	if gone <= rememberMost {
		for boot, k := range t.known {
			if !k.State.Live() && !k.queued && now.Sub(k.Since) > rememberFor {
				delete(t.known, boot)
			}
		}
		return
	}
	var old []*known
	for _, k := range t.known {
		if !k.State.Live() && !k.queued {
			old = append(old, k)
		}
	}
	slices.SortFunc(old, func(a, b *known) int { return a.Since.Compare(b.Since) })
	for _, k := range old[:min(len(old), gone-rememberMost)] {
		delete(t.known, k.Boot)
	}
}

// changes returns what has changed since it was called last, oldest first.
func (t *table) changes() []Change {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []Change
	for _, boot := range t.changed {
		k := t.known[boot]
		k.queued = false
		was, is := k.told, k.Member
		k.told = is
		switch {
		case is.State.Live() && !was.State.Live():
			out = append(out, Change{Joined, is})
		case is.State.Live():
			if was.Meta != is.Meta || was.Gossip != is.Gossip {
				out = append(out, Change{Updated, is})
			}
		case !was.State.Live():
			// It came and went unseen, or a loss turned out to be a departure.
		case is.State == Left:
			out = append(out, Change{Departed, is})
		default:
			out = append(out, Change{Lost, is})
		}
	}
	t.changed = t.changed[:0]
	return out
}

// get returns what is known of a member; its State is Unknown if nothing is.
func (t *table) get(boot uint64) Member {
	t.mu.Lock()
	defer t.mu.Unlock()
	if k := t.known[boot]; k != nil {
		return k.Member
	}
	return Member{Boot: boot}
}

// believes tells whether word that a member is alive is to be believed.
func (t *table) believes(boot uint64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	k := t.known[boot]
	return k == nil || !k.final()
}

// alone tells whether no other member is known to be alive.
func (t *table) alone() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.live <= 1
}

// list returns the members that keep accepts, by node ID, then boot ID.
func (t *table) list(keep func(Member) bool) []Member {
	t.mu.Lock()
	out := make([]Member, 0, t.live)
	for _, k := range t.known {
		if keep(k.Member) {
			out = append(out, k.Member)
		}
	}
	t.mu.Unlock()
	slices.SortFunc(out, func(a, b Member) int {
		return cmp.Or(cmp.Compare(a.ID, b.ID), cmp.Compare(a.Boot, b.Boot))
	})
	return out
}

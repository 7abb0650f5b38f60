package cluster

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/cespare/xxhash/v2"

	"github.com/peerlimit/peerlimit/cluster/internal/store"
)

// Errors of a table's operations.
var (
	// ErrUnavailable: nobody who may decide answered in time (250 ms).
	ErrUnavailable = errors.New("cluster: nobody who may decide answered in time")
	// ErrUncertain: the same, and the operation may have run. It is an
	// ErrUnavailable too.
	ErrUncertain = fmt.Errorf("%w; it may have run", ErrUnavailable)
	// ErrBusy: too many operations wait already. Nothing was run.
	ErrBusy = errors.New("cluster: too many operations are waiting")
	// ErrClosed: the table or its member is closed.
	ErrClosed = errors.New("cluster: closed")
)

// MaxKey is the longest key of a table in bytes.
const MaxKey = store.MaxKey

// DefaultMaxEntries is a table's default cap on one member.
const DefaultMaxEntries = 4_000_000

// Machine is a table's state machine: pure functions on values, see
// [Table].
type Machine[S, O, R any] = store.Machine[S, O, R]

// InPlace is a [Machine] that also runs its operations where they lie, under its
// table's lock, so that large states, operations and results are not copied on
// their way. A table uses it where a machine has it.
type InPlace[S, O, R any] = store.InPlace[S, O, R]

// Call says under which circumstances an operation runs.
type Call = store.Call

// Effect is what an operation asks of its table.
type Effect = store.Effect

// TableConfig names a table and bounds it.
type TableConfig struct {
	// Name is unique on a member and the same on all: 1 to 64 of a-z, 0-9,
	// colon, underscore and hyphen.
	Name string
	// MaxEntries is the cap on this member, 4,000,000 by default. Beyond it
	// the entry that is soonest to expire goes, and is counted if it was
	// live.
	MaxEntries int
	// Now replaces the clock of a table without a cluster, in tests:
	// nanoseconds, taken for both the monotonic and (since 1970) the wall
	// clock.
	Now func() int64
}

var tableName = regexp.MustCompile(`^[a-z0-9:_-]{1,64}$`)

func (cfg TableConfig) validate(alone bool) error {
	switch {
	case !tableName.MatchString(cfg.Name):
		return fmt.Errorf("cluster: TableConfig.Name %q: want 1 to 64 of a-z, 0-9, colon, underscore, hyphen", cfg.Name)
	case cfg.MaxEntries < 0:
		return fmt.Errorf("cluster: TableConfig.MaxEntries %d: want 0 (the default) or more", cfg.MaxEntries)
	case cfg.Now != nil && !alone:
		return errors.New("cluster: TableConfig.Now: only for a table without a cluster")
	}
	return nil
}

// Table is a set of small state machines, one a key, that the cluster runs:
// the state of a key lives at one member, its holder, operations travel to it
// and run there one after the other, in memory, and a second member has a
// copy. What is promised through deaths, stalls, joins and leaves is in the
// package documentation.
//
// Methods may be called concurrently.
type Table[S, O, R any, M Machine[S, O, R]] struct {
	name  string
	id    uint64
	store *store.Store[S, O, R, M]
	gate  *store.Gate
	clock *clock
	owner *owner // nil: this process alone

	closed atomic.Bool
}

// NewTable returns the table of that name. With a nil node it is of this
// process alone. A name that is in use on node is an error.
func NewTable[S, O, R any, M Machine[S, O, R]](node *Node, m M, cfg TableConfig) (*Table[S, O, R, M], error) {
	if err := cfg.validate(node == nil); err != nil {
		return nil, err
	}
	if cfg.MaxEntries == 0 {
		cfg.MaxEntries = DefaultMaxEntries
	}
	t := &Table[S, O, R, M]{name: cfg.Name, id: tableID(cfg.Name)}
	if node == nil {
		t.store = store.New[S, O, R](m, cfg.MaxEntries, nil)
		t.gate, t.clock = store.OpenGate(), newClock(cfg.Now)
		return t, nil
	}
	return t, attach(t, node, m, cfg)
}

// Do runs op on key's state at its holder and returns the result. key has 1 to
// [MaxKey] bytes and is not kept. Without a deadline in ctx, and with a later
// one, it is answered within 250 ms.
//
// Errors: [ErrUnavailable], [ErrUncertain], [ErrBusy], [ErrClosed], and ctx's.
// After ErrUnavailable and ctx's errors op may have run, once.
func (t *Table[S, O, R, M]) Do(ctx context.Context, key []byte, op O) (R, error) {
	var r R
	if err := t.DoInto(ctx, key, &op, &r); err != nil {
		var none R
		return none, err
	}
	return r, nil
}

// DoInto is Do for large operations and results: op is read, and the result
// written to r, where they are. After an error r means nothing.
func (t *Table[S, O, R, M]) DoInto(ctx context.Context, key []byte, op *O, r *R) error {
	if len(key) == 0 || len(key) > MaxKey {
		return fmt.Errorf("cluster: key has %d bytes: want 1 to %d", len(key), MaxKey)
	}
	if t.closed.Load() {
		return ErrClosed
	}
	hash := xxhash.Sum64(key)
	now := t.clock.now()
	call := Call{Now: now, ID: newID(), WallOffset: t.clock.wallOffset(now)}
	ticket, ran := t.store.Do(t.gate, hash, key, &call, op, r)
	if t.owner == nil || ran != nil && !ticket.Wait() && ran.Holds(t.clock.now()) {
		return nil
	}
	return t.doSlow(ctx, hash, key, call.ID, op, r, ticket, ran)
}

// Len returns the number of live entries that this member holds.
func (t *Table[S, O, R, M]) Len() int { return t.store.Len(t.clock.now(), t.holds()) }

// Range calls f with the entries that this member holds until f returns
// false. It sees each slot as it was at one instant.
func (t *Table[S, O, R, M]) Range(f func(key string, s S) bool) {
	t.store.Range(t.clock.now(), t.holds(), f)
}

// Keys returns the keys with that prefix, sorted, of all members, at most
// limit of them. With an error it returns what could be had.
func (t *Table[S, O, R, M]) Keys(ctx context.Context, prefix string, limit int) ([]string, error) {
	limit = max(limit, 0)
	keys := t.keysHere(prefix, limit)
	var err error
	if t.owner != nil {
		keys, err = t.owner.keys(ctx, t.id, prefix, limit)
	}
	slices.Sort(keys)
	keys = slices.Compact(keys)
	return keys[:min(len(keys), limit)], err
}

func (t *Table[S, O, R, M]) keysHere(prefix string, limit int) []string {
	var keys []string
	if limit <= 0 {
		return nil
	}
	t.Range(func(key string, _ S) bool {
		if strings.HasPrefix(key, prefix) {
			keys = append(keys, key)
		}
		return len(keys) < limit
	})
	return keys
}

// Count returns the number of live entries over all members. With an error it
// is the sum of those that answered.
func (t *Table[S, O, R, M]) Count(ctx context.Context) (int, error) {
	if t.owner == nil {
		return t.Len(), nil
	}
	return t.owner.count(ctx, t.id)
}

// TableStats is a table's state on one member.
type TableStats struct {
	// Entries are live entries, copies among them; Held those that this
	// member is the holder of.
	Entries, Held int
	// EvictedLive counts live entries that went because the table was full.
	EvictedLive uint64
}

// Stats walks over the table; it is meant for a look now and then.
func (t *Table[S, O, R, M]) Stats() TableStats {
	now := t.clock.now()
	return TableStats{
		Entries:     t.store.Len(now, nil),
		Held:        t.store.Len(now, t.holds()),
		EvictedLive: t.store.EvictedLive(),
	}
}

// holds returns which slots this member holds; nil means all.
func (t *Table[S, O, R, M]) holds() func(slot uint16) bool {
	if t.owner == nil {
		return nil
	}
	return func(slot uint16) bool { return t.gate.Get(slot) != nil }
}

// Close ends the table on this member, which keeps what it holds of it for the
// others. It may be called twice.
func (t *Table[S, O, R, M]) Close() error {
	if !t.closed.Swap(true) && t.owner != nil {
		t.owner.detach(t.id)
	}
	return nil
}

package cluster

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/cespare/xxhash/v2"

	"github.com/peerlimit/peerlimit/cluster/internal/store"
)

// entries is a table as the possession protocol and other members see it.
type entries interface {
	Follow(slot uint16, l store.List, has bool)
	Collect(slot uint16, l store.List, now int64, b []byte, limit int) (_ []byte, n int, drained bool)
	Acked(slot uint16, l store.List)
	Owes(slot uint16) (owes, awaited bool)
	Promote(slot uint16)
	Unfollow(slot uint16, l store.List, acknowledged bool)
	Import(slot uint16, b []byte, now int64, merge bool) error
	Drop(slot uint16)
	Flush(slot uint16)
	Sweep(now int64, max int)

	// serve runs an operation that came from another member; false: this
	// member does not have the table.
	serve(r request) bool
	keysHere(prefix string, limit int) []string
	Len(now int64, include func(slot uint16) bool) int
}

// tables are a member's tables, all moved and copied together slot by slot.
// Changes are guarded by owner.mu.
//
// Entries of a table that this member does not have (yet) are kept as they
// came: a member may be handed slots before the program around it has made its
// tables, and its backup may be of another release.
type tables struct {
	marks *store.Marks
	// audiences has those who follow a slot follow it in a new table too.
	audiences func(entries)

	list []named
	byID sync.Map // table ID: entries; read without a lock
}

type named struct {
	id uint64
	entries
}

// unknown is a table that this member does not have.
type unknown struct{ *store.RawStore }

func (unknown) serve(request) bool            { return false }
func (unknown) keysHere(string, int) []string { return nil }

func tableID(name string) uint64 { return xxhash.Sum64String(name) }

func (ts *tables) get(id uint64) entries {
	if t, ok := ts.byID.Load(id); ok {
		return t.(entries)
	}
	return nil
}

// put adds a table, in place of one of that ID.
func (ts *tables) put(id uint64, t entries) {
	ts.remove(id)
	ts.list = append(ts.list[:len(ts.list):len(ts.list)], named{id, t})
	ts.byID.Store(id, t)
}

func (ts *tables) remove(id uint64) {
	ts.byID.Delete(id)
	ts.list = slices.DeleteFunc(slices.Clone(ts.list), func(n named) bool { return n.id == id })
}

// getOrKeep returns the table of that ID, or else what keeps its entries.
func (ts *tables) getOrKeep(id uint64) entries {
	if t := ts.get(id); t != nil {
		return t
	}
	t := ts.newUnknown()
	ts.audiences(t)
	ts.put(id, t)
	return t
}

func (ts *tables) newUnknown() unknown {
	return unknown{store.New[store.Raw, struct{}, struct{}](store.RawMachine{}, DefaultMaxEntries, ts.marks)}
}

func (ts *tables) follow(slot uint16, l store.List, has bool) {
	for _, t := range ts.list {
		t.Follow(slot, l, has)
	}
}

// collect appends one section a table: its ID, a length, its entries.
func (ts *tables) collect(slot uint16, l store.List, now int64, b []byte, limit int) ([]byte, bool) {
	all := true
	for _, t := range ts.list {
		at := len(b)
		b = binary.BigEndian.AppendUint64(b, t.id)
		b = append(b, 0, 0, 0, 0)
		var n int
		var drained bool
		b, n, drained = t.Collect(slot, l, now, b, limit)
		if n == 0 {
			b = b[:at]
		} else {
			binary.BigEndian.PutUint32(b[at+8:], uint32(len(b)-at-12))
		}
		all = all && drained
	}
	return b, all
}

var errSection = errors.New("cluster: malformed section of entries")

// take takes in what collect made. now is the instant that durations in it
// count from.
func (ts *tables) take(slot uint16, b []byte, now int64, merge bool) error {
	for len(b) > 0 {
		if len(b) < 12 {
			return errSection
		}
		id, size := binary.BigEndian.Uint64(b), binary.BigEndian.Uint32(b[8:])
		b = b[12:]
		if uint64(size) > uint64(len(b)) {
			return errSection
		}
		part := b[:size]
		b = b[size:]
		if err := ts.getOrKeep(id).Import(slot, part, now, merge); err != nil {
			return fmt.Errorf("cluster: entries: %w", err)
		}
	}
	return nil
}

func (ts *tables) acked(slot uint16, l store.List) {
	for _, t := range ts.list {
		t.Acked(slot, l)
	}
}

func (ts *tables) owes(slot uint16) (owes, awaited bool) {
	for _, t := range ts.list {
		o, a := t.Owes(slot)
		owes, awaited = owes || o, awaited || a
	}
	return owes, awaited
}

func (ts *tables) promote(slot uint16) {
	for _, t := range ts.list {
		t.Promote(slot)
	}
}

func (ts *tables) unfollow(slot uint16, l store.List, acknowledged bool) {
	for _, t := range ts.list {
		t.Unfollow(slot, l, acknowledged)
	}
}

func (ts *tables) drop(slot uint16) {
	for _, t := range ts.list {
		t.Drop(slot)
	}
}

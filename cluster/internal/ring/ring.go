package ring

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/cespare/xxhash/v2"
)

// Boot is a member's boot ID, which names one process life. It is never 0: in
// the answers of a Ring 0 means "nobody".
type Boot uint64

// Depth is how many members of each slot's order a Ring keeps: the one that
// should hold it, the usual backup, and two that may know more after a failure.
const Depth = 4

// MaxMembers is the greatest number of members of a Ring.
const MaxMembers = 1<<16 - 1

// none marks an empty place in a slot's order.
const none = 1<<16 - 1

// A Ring is an immutable snapshot. The zero Ring and a nil one have no members.
type Ring struct {
	members []Boot                // ascending
	owned   []int32               // by index into members
	order   *[Slots][Depth]uint16 // indexes into members; 128 KiB
	version uint64
}

// New returns the ring of the given members, in whatever order they are given.
// A boot ID given twice counts once, and 0 is left out. It panics if there are
// more than MaxMembers.
func New(members []Boot) *Ring {
	sorted := slices.Clone(members)
	slices.Sort(sorted)
	sorted = slices.Compact(sorted)
	if len(sorted) > 0 && sorted[0] == 0 {
		sorted = sorted[1:]
	}
	if len(sorted) > MaxMembers {
		panic(fmt.Sprintf("ring: %d members, at most %d", len(sorted), MaxMembers))
	}
	r := &Ring{
		members: sorted,
		owned:   make([]int32, len(sorted)),
		order:   new([Slots][Depth]uint16),
		version: versionOf(sorted),
	}
	hashes := make([]uint64, len(sorted))
	for i, b := range sorted {
		hashes[i] = mix(uint64(b))
	}
	for slot := range r.order {
		r.order[slot] = rank(uint16(slot), hashes)
		if first := r.order[slot][0]; first != none {
			r.owned[first]++
		}
	}
	return r
}

// rank returns the indexes of the members that score highest in slot, best
// first. Equal scores keep the order of hashes, which is that of the boot IDs.
func rank(slot uint16, hashes []uint64) [Depth]uint16 {
	best := [Depth]uint16{none, none, none, none}
	var scores [Depth]uint64
	seed := mix(uint64(slot) + 1)
	filled := 0
	for i, h := range hashes {
		score := mix(h ^ seed)
		if filled == Depth && score <= scores[Depth-1] {
			continue
		}
		if filled < Depth {
			filled++
		}
		at := filled - 1
		for at > 0 && score > scores[at-1] {
			best[at], scores[at] = best[at-1], scores[at-1]
			at--
		}
		best[at], scores[at] = uint16(i), score
	}
	return best
}

// mix spreads x over 64 bits, one to one. It is the finalizer of MurmurHash3
// with the constants of David Stafford's "Mix13" (zimbry.blogspot.com,
// "Better Bit Mixing", 2011). It is part of the protocol: every member must
// rank alike.
func mix(x uint64) uint64 {
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	x ^= x >> 31
	return x
}

func versionOf(sorted []Boot) uint64 {
	b := make([]byte, 0, 8*len(sorted))
	for _, m := range sorted {
		b = binary.BigEndian.AppendUint64(b, uint64(m))
	}
	return xxhash.Sum64(b)
}

// Order returns the first members of the slot's order, 0 where there are fewer
// than Depth. It does not allocate. A slot of Slots or more panics.
func (r *Ring) Order(slot uint16) [Depth]Boot {
	var out [Depth]Boot
	if r == nil || r.order == nil {
		return out
	}
	for i, at := range r.order[slot] {
		if at != none {
			out[i] = r.members[at]
		}
	}
	return out
}

// Owner returns the member that should hold the slot, 0 if there is none.
func (r *Ring) Owner(slot uint16) Boot {
	if r == nil || r.order == nil {
		return 0
	}
	if at := r.order[slot][0]; at != none {
		return r.members[at]
	}
	return 0
}

// Version is a hash of the set of members. Members whose versions agree have
// the same ring; members whose versions differ for long are split.
func (r *Ring) Version() uint64 {
	if r == nil || r.order == nil {
		return versionOf(nil)
	}
	return r.version
}

// Members returns the members, ascending, in a slice of the caller's own.
func (r *Ring) Members() []Boot {
	if r == nil {
		return nil
	}
	return slices.Clone(r.members)
}

// Len returns the number of members.
func (r *Ring) Len() int {
	if r == nil {
		return 0
	}
	return len(r.members)
}

// Has tells whether b is a member.
func (r *Ring) Has(b Boot) bool {
	if r == nil {
		return false
	}
	_, ok := slices.BinarySearch(r.members, b)
	return ok
}

// OwnedCount returns how many slots b should hold, 0 if it is not a member.
func (r *Ring) OwnedCount(b Boot) int {
	if r == nil {
		return 0
	}
	at, ok := slices.BinarySearch(r.members, b)
	if !ok {
		return 0
	}
	return int(r.owned[at])
}

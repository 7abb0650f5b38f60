package e2e

import (
	"cmp"
	"slices"
	"strconv"
	"testing"

	"github.com/cespare/xxhash/v2"
	"github.com/stretchr/testify/require"
)

// Which member holds a key and which one has its copy is not to be asked from
// outside. In a cluster at rest it is what the ring says, and the ring is a
// function of the boot IDs that GET /v1/cluster shows: a slot is the key's
// xxhash64 modulo 16,384, and its order is by rendezvous hashing (Thaler and
// Ravishankar, 1998).

const ringSlots = 16384

// ringView is the ring as one member sees it.
type ringView struct {
	names []string
	boots []uint64
	owned []int // by what the member says
}

// ringOf asks m for the ring. It ends the test where the member's count of each
// other's slots is not the one that this file's hashing comes to: then the
// hashing has changed, and the tests would kill the wrong members.
func ringOf(t testing.TB, m *Member) *ringView {
	t.Helper()
	ctx, cancel := short()
	defer cancel()
	var view struct {
		Members []struct {
			Name       string `json:"name"`
			Boot       string `json:"boot"`
			State      string `json:"state"`
			OwnedSlots int    `json:"owned_slots"`
		} `json:"members"`
	}
	_, err := m.Ask(ctx, "GET", "/v1/cluster", nil, &view)
	require.NoError(t, err)
	r := &ringView{}
	for _, other := range view.Members {
		if other.State != "alive" {
			continue
		}
		boot, err := strconv.ParseUint(other.Boot, 16, 64)
		require.NoError(t, err)
		r.names, r.boots, r.owned = append(r.names, other.Name), append(r.boots, boot), append(r.owned, other.OwnedSlots)
	}
	counted := make([]int, len(r.boots))
	for slot := range ringSlots {
		counted[r.rank(uint16(slot))[0]]++
	}
	require.Equal(t, r.owned, counted, "slots by member")
	return r
}

// rank returns the indexes of the members, first the one that should hold slot.
func (r *ringView) rank(slot uint16) []int {
	order := make([]int, len(r.boots))
	scores := make([]uint64, len(r.boots))
	for i, boot := range r.boots {
		order[i], scores[i] = i, spread(spread(boot)^spread(uint64(slot)+1))
	}
	slices.SortFunc(order, func(a, b int) int {
		return cmp.Or(-cmp.Compare(scores[a], scores[b]), cmp.Compare(r.boots[a], r.boots[b]))
	})
	return order
}

// spread is the finalizer of MurmurHash3 with David Stafford's constants
// "Mix13" (zimbry.blogspot.com, "Better Bit Mixing", 2011).
func spread(x uint64) uint64 {
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	return x ^ x>>31
}

// slotOf returns the slot of a limiter's key under the default policy.
func slotOf(key string) uint16 { return uint16(xxhash.Sum64String("default\x00"+key) % ringSlots) }

// Holder and Backup name the members that hold a key and have its copy.
func (r *ringView) Holder(key string) string { return r.names[r.rank(slotOf(key))[0]] }

// Backup is empty in a cluster of one.
func (r *ringView) Backup(key string) string {
	if order := r.rank(slotOf(key)); len(order) > 1 {
		return r.names[order[1]]
	}
	return ""
}

// role says what a member is to a key.
func (r *ringView) role(member, key string) string {
	switch member {
	case r.Holder(key):
		return "holder"
	case r.Backup(key):
		return "backup"
	default:
		return "neither"
	}
}

package ring

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/cespare/xxhash/v2"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// boots returns n boot IDs, always the same for the same seed.
func boots(seed uint64, n int) []Boot {
	rng := rand.New(rand.NewPCG(seed, 0x9e3779b97f4a7c15))
	out := make([]Boot, n)
	for i := range out {
		out[i] = Boot(rng.Uint64())
	}
	return out
}

// The bounds are about a cluster that a user is likely to have. The shares are
// a matter of chance (see the package comment), so the sets of members are
// fixed ones.
const evenSeed = 1

// sizes are the numbers of members that the bounds are checked for.
func sizes() []int {
	out := []int{30, 50, 100}
	for n := 1; n <= 20; n++ {
		out = append(out, n)
	}
	return out
}

const knownAnswers = "12466 [5 3 2 4] [3 1 4 5] [4 1 3 2] e05e516e2dc45ac1"

func TestKeysAreSpreadEvenly(t *testing.T) {
	const keys = 400_000
	rng := rand.New(rand.NewPCG(7, 7))
	names := map[string]func(i int) string{
		"account": func(i int) string { return fmt.Sprintf("account:%06d", i) },
		"random":  func(int) string { return fmt.Sprintf("%016x", rng.Uint64()) },
	}
	for name, key := range names {
		t.Run(name, func(t *testing.T) {
			var perSlot [Slots]int
			for i := range keys {
				perSlot[SlotString(key(i))]++
			}
			for _, n := range sizes() {
				r := New(boots(evenSeed, n))
				perMember := make(map[Boot]int, n)
				for slot, c := range perSlot {
					perMember[r.Owner(uint16(slot))] += c
				}
				bound := 0.10
				if n > 20 {
					bound = 0.30
				}
				require.Len(t, perMember, n)
				fair := float64(keys) / float64(n)
				for b, c := range perMember {
					assert.InEpsilonf(t, fair, float64(c), bound, "%d members: %x holds %d keys", n, b, c)
				}
			}
		})
	}
}

func TestAJoinOrLeaveMovesOnlyTheSlotsOfThatMember(t *testing.T) {
	for _, n := range sizes() {
		members := boots(evenSeed, n+1)
		newcomer := members[n]
		before, after := New(members[:n]), New(members)
		moved := 0
		for slot := range uint16(Slots) {
			was, is := before.Owner(slot), after.Owner(slot)
			if was == is {
				continue
			}
			moved++
			require.Equal(t, newcomer, is, "slot %d went from %x to %x, neither of them new", slot, was, is)
		}
		// A leave is the same change read backwards.
		assert.LessOrEqual(t, float64(moved), 1.35/float64(n+1)*Slots, "%d members and one more", n)
		assert.Equal(t, moved, after.OwnedCount(newcomer))
		assert.Positive(t, moved)
	}
}

func TestALeaveMakesTheSecondOfEachSlotTheFirst(t *testing.T) {
	members := boots(3, 12)
	before := New(members)
	after := New(members[1:])
	for slot := range uint16(Slots) {
		want := slices.DeleteFunc(slices.Clone(arr(before.Order(slot))), func(b Boot) bool { return b == members[0] })
		got := arr(after.Order(slot))[:len(want)]
		require.Equal(t, want, got, "slot %d", slot)
	}
}

func arr(o [Depth]Boot) []Boot { return o[:] }

func TestRingOfAnyMembers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		members := rapid.SliceOfNDistinct(rapid.Map(rapid.Uint64Min(1), func(v uint64) Boot { return Boot(v) }), 0, 9, rapid.ID).Draw(t, "members")
		shuffled := rapid.Permutation(members).Draw(t, "shuffled")
		r, again := New(members), New(append(shuffled, 0))

		assert.Equal(t, r.Version(), again.Version())
		assert.Equal(t, r.Members(), again.Members())
		assert.Len(t, r.Members(), len(members))
		counts := map[Boot]int{}
		for slot := range uint16(Slots) {
			order := r.Order(slot)
			if order != again.Order(slot) || order[0] != r.Owner(slot) {
				t.Fatalf("slot %d: %x, %x first, and %x in another order of members", slot, order, r.Owner(slot), again.Order(slot))
			}
			counts[order[0]]++
			for i, b := range order {
				if (i < len(members)) != (b != 0) || (b != 0 && (!r.Has(b) || slices.Contains(order[:i], b))) {
					t.Fatalf("slot %d of %d members: %x", slot, len(members), order)
				}
			}
		}
		for b, c := range counts {
			if b != 0 {
				assert.Equal(t, c, r.OwnedCount(b))
			}
		}
	})
}

func TestVersionTellsSetsApart(t *testing.T) {
	members := boots(5, 6)
	seen := map[uint64]bool{New(nil).Version(): true}
	for n := 1; n <= len(members); n++ {
		v := New(members[:n]).Version()
		assert.False(t, seen[v])
		seen[v] = true
	}
	assert.Equal(t, New(members).Version(), New(append(members, members...)).Version(), "twice the same members")
}

// Members of different releases must agree, so the answers for a known ring
// are written down here.
func TestKnownAnswers(t *testing.T) {
	r := New([]Boot{1, 2, 3, 4, 5})
	assert.Equal(t, uint16(xxhash.Sum64String("account:000123")&0x3fff), SlotString("account:000123"))
	assert.Equal(t, SlotString("account:000123"), Slot([]byte("account:000123")))
	got := fmt.Sprintf("%d %v %v %v %016x", SlotString("account:000123"), r.Order(0), r.Order(1), r.Order(Slots-1), r.Version())
	assert.Equal(t, knownAnswers, got)
}

func TestNobody(t *testing.T) {
	var zero Ring
	for _, r := range []*Ring{nil, &zero, New(nil), New([]Boot{0})} {
		assert.Zero(t, r.Owner(17))
		assert.Zero(t, r.Order(17))
		assert.Zero(t, r.Len())
		assert.Empty(t, r.Members())
		assert.False(t, r.Has(1))
		assert.Zero(t, r.OwnedCount(1))
		assert.Equal(t, New(nil).Version(), r.Version())
	}
}

func TestMembersIsACopy(t *testing.T) {
	given := []Boot{3, 1, 2}
	r := New(given)
	assert.Equal(t, []Boot{3, 1, 2}, given, "the argument was changed")
	r.Members()[0] = 99
	assert.Equal(t, []Boot{1, 2, 3}, r.Members())
}

func TestLookupsDoNotAllocate(t *testing.T) {
	r := New(boots(1, 20))
	key := []byte("account:000123")
	var sum uint64
	assert.Zero(t, testing.AllocsPerRun(100, func() {
		o := r.Order(Slot(key))
		sum += uint64(o[1]) + uint64(r.Owner(SlotString("account:000124")))
	}))
}

func BenchmarkNew(b *testing.B) {
	for _, n := range []int{3, 20, 100} {
		b.Run(fmt.Sprintf("members=%d", n), func(b *testing.B) {
			members := boots(1, n)
			for b.Loop() {
				New(members)
			}
		})
	}
}

func BenchmarkOwner(b *testing.B) {
	r := New(boots(1, 20))
	key := []byte("account:000123")
	for b.Loop() {
		r.Owner(Slot(key))
	}
}

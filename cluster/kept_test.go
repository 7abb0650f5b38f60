package cluster

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cespare/xxhash/v2"

	"github.com/peerlimit/peerlimit/cluster/internal/store"
)

// Entries merged into a table that this holder has not made are owed to its
// backup like any other change.
func TestMergedEntriesOfAnUnknownTableAreOwed(t *testing.T) {
	key := []byte("account:1")
	hash := xxhash.Sum64(key)
	slot := uint16(hash % store.Slots)
	other := tables{marks: new(store.Marks)}
	st := store.New[countState, countOp, int64](countMachine{}, 100, other.marks)
	other.put(1, tableEntries[countState, countOp, int64, countMachine]{Store: st})
	st.Do(store.OpenGate(), hash, key, &Call{Now: 1}, &countOp{5}, new(int64))
	other.follow(slot, store.Follower, false)
	b, _ := other.collect(slot, store.Follower, 1, nil, math.MaxInt)

	holder := tables{
		marks:     new(store.Marks),
		audiences: func(t entries) { t.Follow(slot, store.Backup, false) },
	}
	require.NoError(t, holder.take(slot, b, 1, true))
	owes, _ := holder.owes(slot)
	require.True(t, owes)
}

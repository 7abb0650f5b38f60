package admin

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// What the paper promises, on a stream like those of the world: no weight is
// lost, no key is said to have had more than it has, and none that has more
// than a 512th of all is missing.
func TestSpaceSavingKeepsItsPromise(t *testing.T) {
	const keys, n = 20_000, 200_000
	zipf := rand.NewZipf(rand.New(rand.NewPCG(1, 2)), 1.1, 1, keys-1)
	var k keyRates
	truth := map[uint64]float64{}
	for range n {
		hash := zipf.Uint64()
		truth[hash]++
		k.add(hash, "p", fmt.Sprint(hash), 1)
	}
	require.Len(t, k.kept, keysKept)
	require.Len(t, k.index, keysKept)
	sum := 0.0
	for i, w := range k.kept {
		assert.Equal(t, i, k.index[w.hash])
		assert.GreaterOrEqual(t, w.weight, truth[w.hash])
		assert.LessOrEqual(t, w.weight-w.inherited, truth[w.hash])
		assert.Equal(t, fmt.Sprint(w.hash), w.shown)
		sum += w.weight
	}
	assert.InDelta(t, n, sum, 0.5)
	for hash, has := range truth {
		if has > n/keysKept {
			assert.Contains(t, k.index, hash, "it has %v", has)
		}
	}
	top := k.top(5, 1e9)
	for i, r := range top {
		assert.Equal(t, uint64(i), r.Hash, "the hottest are in order")
		assert.InEpsilon(t, truth[r.Hash]/keyMemory, r.PerSecond, 0.01)
	}
}

func TestKeysFade(t *testing.T) {
	var k keyRates
	k.fade(1)
	k.add(1, "p", "heavy", 100)
	k.add(2, "p", "light", 1)
	k.fade(0)
	assert.Len(t, k.top(10, 60), 2)
	k.fade(60)
	top := k.top(10, 60)
	require.Len(t, top, 1, "what has faded is dropped")
	assert.Equal(t, "heavy", top[0].Key)
	k.add(1, "p", "heavy", 1)
	assert.InDelta(t, 100/2.71828+1, k.kept[0].weight, 0.01)
	k.fade(1 << 40)
	assert.Empty(t, k.top(10, 60))
	assert.Empty(t, k.index)
}

func TestListsOfMembersAreMerged(t *testing.T) {
	list := merge(nil, []keyRate{{"p", "a…", 1, 1}, {"p", "b…", 5, 2}})
	list = merge(list, []keyRate{{"p", "a…", 9, 1}, {"p", "a…", 2, 3}})
	assert.Equal(t, []keyRate{{"p", "a…", 10, 0}, {"p", "b…", 5, 0}, {"p", "a…", 2, 0}}, shownOf(list),
		"two keys that look alike stay two")
	assert.Len(t, merge(nil, make([]keyRate, 50)), 1, "a member's list is cut")
}

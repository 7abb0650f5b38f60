package membership

import (
	"sync"
	"testing"

	"github.com/hashicorp/memberlist"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestKeysDependOnSecretAndCluster(t *testing.T) {
	seen := make(map[string]bool)
	for _, in := range [][2]string{{"s", "a"}, {"s", "b"}, {"t", "a"}} {
		k, err := gossipKey([]byte(in[0]), in[1])
		require.NoError(t, err)
		assert.Len(t, k, 32)
		seen[string(k)] = true
	}
	assert.Len(t, seen, 3)
	_, err := gossipKey(nil, "a")
	assert.Error(t, err)
}

func TestSetKeys(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		sets := rapid.SliceOfN(rapid.SliceOfN(rapid.IntRange(0, 4), 1, 5), 2, 4).Draw(t, "sets")
		all := func(set []int) (out [][]byte) {
			for _, n := range set {
				k := make([]byte, 32)
				k[0] = byte(n)
				out = append(out, k)
			}
			return out
		}
		ring, err := memberlist.NewKeyring(all(sets[0]), all(sets[0])[0])
		require.NoError(t, err)
		for _, set := range sets[1:] {
			// Whoever holds the keys that were in force must be able to read on.
			before := ring.GetKeys()
			held := make([]byte, len(before))
			for i, k := range before {
				held[i] = k[0]
			}
			require.NoError(t, setKeys(ring, all(set)))
			for i, k := range before {
				require.Equal(t, held[i], k[0], "a key in use was overwritten")
			}
			require.Equal(t, byte(set[0]), ring.GetPrimaryKey()[0])
			got := make(map[int]bool)
			for _, k := range ring.GetKeys() {
				got[int(k[0])] = true
			}
			want := make(map[int]bool)
			for _, n := range set {
				want[n] = true
			}
			require.Equal(t, want, got)
		}
	})
}

// The race detector would see a key being moved while it is read.
func TestSetKeysWhileTheyAreRead(t *testing.T) {
	keys, err := gossipKeys([][]byte{{1}, {2}, {3}}, "c")
	require.NoError(t, err)
	ring, err := memberlist.NewKeyring(keys, keys[0])
	require.NoError(t, err)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		sum := 0
		for {
			select {
			case <-stop:
				return
			default:
			}
			for _, k := range ring.GetKeys() {
				sum += int(k[0])
			}
		}
	})
	for i := range 100 {
		require.NoError(t, setKeys(ring, [][]byte{keys[i%3], keys[(i+1)%3]}))
	}
	close(stop)
	wg.Wait()
}

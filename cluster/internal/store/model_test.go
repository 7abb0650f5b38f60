package store

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

const (
	ms     = int64(1_000_000)
	second = 1000 * ms
)

type modelEntry struct {
	sum, expires int64
}

// modelKeys are keys of three slots of one shard, more than it may hold, and
// some of another shard.
var modelKeys = append(append(append(keysOf(7, 8), keysOf(7+shardCount, 8)...), keysOf(7+2*shardCount, 8)...), keysOf(9, 3)...)

// TestStoreIsAMap compares a small store to a plain map with deadlines.
func TestStoreIsAMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		st := newNums(1, nil) // 9 entries a shard
		model := map[string]modelEntry{}
		now := int64(1)
		evicted := uint64(0)
		key := rapid.SampledFrom(modelKeys)
		live := func(include func(slot uint16) bool) int {
			n := 0
			for k, e := range model {
				if e.expires > now && (include == nil || include(slotOf(k))) {
					n++
				}
			}
			return n
		}
		// settle takes over what was evicted to make room for key, and checks
		// that it had to be.
		settle := func(t *rapid.T, inserted string) {
			sh := &st.shards[slotOf(inserted)%shardCount]
			require.LessOrEqual(t, sh.n, st.maxShard)
			for k, e := range model {
				if e.expires <= now || k == inserted {
					continue
				}
				if _, ok := st.peek(k, now); ok {
					continue
				}
				evicted++
				delete(model, k)
				require.Equal(t, slotOf(inserted)%shardCount, slotOf(k)%shardCount, "another shard's entry went")
				require.Equal(t, st.maxShard, sh.n, "evicted although there was room")
				for other, o := range model {
					if entryOf(st, other) != nil && slotOf(other)%shardCount == slotOf(k)%shardCount && other != inserted {
						require.LessOrEqual(t, tickOf(e.expires), tickOf(o.expires), "%s went before %s", k, other)
					}
				}
			}
			require.Equal(t, evicted, st.EvictedLive())
		}
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				k, add := key.Draw(t, "key"), rapid.Int64Range(1, 9).Draw(t, "add")
				life := rapid.OneOf(rapid.Int64Range(1, 500*ms), rapid.Int64Range(1, 20*second)).Draw(t, "life")
				op := change{Add: add, Life: life}
				if rapid.IntRange(0, 9).Draw(t, "never") == 0 {
					op.Until = math.MaxInt64
				}
				was := model[k]
				if was.expires <= now {
					was = modelEntry{}
				}
				was.sum += add
				if was.expires = now + life; op.Until != 0 {
					was.expires = op.Until
				}
				model[k] = was
				got, ticket := st.do(k, now, op)
				require.Equal(t, was.sum, got.Sum)
				require.False(t, ticket.Wait(), "nobody follows")
				settle(t, k)
			},
			"delete": func(t *rapid.T) {
				k := key.Draw(t, "key")
				delete(model, k)
				st.do(k, now, change{})
				_, ok := st.peek(k, now)
				require.False(t, ok)
			},
			"look": func(t *rapid.T) {
				k := key.Draw(t, "key")
				want := model[k]
				if want.expires <= now {
					want = modelEntry{}
				}
				got, _ := st.do(k, now, change{Look: true})
				require.Equal(t, want.sum, got.Sum)
				s, ok := st.peek(k, now)
				require.Equal(t, want.expires > now, ok)
				require.Equal(t, want.sum, s.Sum)
			},
			"time": func(t *rapid.T) {
				now += rapid.OneOf(rapid.Int64Range(0, 200*ms), rapid.Int64Range(0, 10*second)).Draw(t, "pass")
			},
			"count": func(t *rapid.T) {
				require.Equal(t, live(nil), st.Len(now, nil))
			},
			"sweep": func(t *rapid.T) {
				st.Sweep(now, 1000)
				for i := range st.shards {
					for _, d := range st.shards[i].expiry {
						e := st.shards[i].at(d.entry)
						require.Greater(t, e.expires, now-tickLen, "a sweep left an entry that had expired")
					}
				}
			},
			"drop": func(t *rapid.T) {
				slot := slotOf(key.Draw(t, "key of slot"))
				st.Drop(slot)
				for k := range model {
					if slotOf(k) == slot {
						delete(model, k)
					}
				}
				require.Empty(t, st.contents(slot, now))
			},
			"": func(t *rapid.T) {
				st.check(t)
				odd := func(slot uint16) bool { return slot == 9 || slot == 7+shardCount || slot == 7+2*shardCount }
				require.Equal(t, live(odd), st.Len(now, odd))
				seen := map[string]int64{}
				st.Range(now, odd, func(k string, s num) bool { seen[k] = s.Sum; return true })
				require.Len(t, seen, live(odd))
				for k, sum := range seen {
					require.Equal(t, model[k].sum, sum)
					require.True(t, odd(slotOf(k)))
				}
			},
		})
	})
}

func TestRangeStops(t *testing.T) {
	st := newNums(1000, nil)
	for _, k := range modelKeys {
		st.do(k, 1, change{Add: 1, Life: second})
	}
	calls := 0
	st.Range(1, nil, func(string, num) bool { calls++; return calls < 3 })
	require.Equal(t, 3, calls)
}

// A callback of Range runs without a lock: it may use the store.
func TestRangeMayChangeTheStore(t *testing.T) {
	st := newNums(1000, nil)
	for _, k := range modelKeys {
		st.do(k, 1, change{Add: 1, Life: second})
	}
	st.Range(1, nil, func(k string, _ num) bool { st.do(k, 1, change{}); return true })
	require.Zero(t, st.Len(1, nil))
}

// The bytes of a key are the caller's: the store must not keep them.
func TestKeyIsCopied(t *testing.T) {
	st := newNums(1000, nil)
	key := []byte(modelKeys[0])
	hash := uint64(slotOf(modelKeys[0])) // any hash of the slot will do
	st.run(alwaysOpen, hash, key, Call{Now: 1}, change{Add: 5, Life: second})
	copy(key, "????????")
	s, ok := st.Peek(hash, []byte(modelKeys[0]), 1)
	require.True(t, ok)
	require.EqualValues(t, 5, s.Sum)
}

func TestInsertingReclaimsWhatHasExpired(t *testing.T) {
	st := newNums(100_000, nil)
	keys := shardKeys(7, 400)
	for _, k := range keys[:200] {
		st.do(k, 1, change{Add: 1, Life: second})
	}
	now := 2 * second
	for _, k := range keys[200:300] { // each insertion makes room for two
		st.do(k, now, change{Add: 1, Life: second})
	}
	require.Equal(t, 100, st.shards[7].n)
	require.EqualValues(t, 200, st.shards[7].used, "the entries of expired ones are used again")
	require.Zero(t, st.EvictedLive())
	st.check(t)
}

// An entry that never expires is neither evicted first nor in the way of those
// that do expire.
func TestEntriesThatNeverExpire(t *testing.T) {
	st := newNums(1, nil)
	keys := shardKeys(7, 20)
	st.do(keys[0], 1, change{Add: 1, Until: math.MaxInt64})
	for _, k := range keys[1:] {
		st.do(k, 1, change{Add: 1, Life: second})
	}
	_, ok := st.peek(keys[0], 1)
	require.True(t, ok, "the last to expire was evicted first")
	st.Sweep(3*second, 1000)
	require.Equal(t, 1, st.shards[7].n, "expired entries can't be reclaimed")

	// Its copy does not expire either, though the other clock is ahead.
	slot := slotOf(keys[0])
	st.Follow(slot, Backup, false)
	b, n, _ := st.Collect(slot, Backup, 3*second, nil, math.MaxInt)
	require.Equal(t, 1, n)
	copied := newNums(1, nil)
	require.NoError(t, copied.Import(slot, b, 500*second, false))
	_, ok = copied.peek(keys[0], 500*second)
	require.True(t, ok)
}

func TestTicksSaturate(t *testing.T) {
	for _, instant := range []int64{math.MinInt64, -1, 0} {
		require.Zero(t, tickOf(instant))
	}
	require.EqualValues(t, 1, tickOf(1))
	require.EqualValues(t, 1, tickOf(tickLen))
	require.EqualValues(t, 2, tickOf(tickLen+1))
	for _, instant := range []int64{math.MaxInt64, math.MaxInt64 - tickLen, math.MaxUint32 * tickLen} {
		require.EqualValues(t, uint32(math.MaxUint32), tickOf(instant), "%d", instant)
	}
}

package store

import (
	"math"
	"strings"
	"testing"

	"github.com/cespare/xxhash/v2"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestEntryRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		key := string(rapid.SliceOfN(rapid.Byte(), 1, MaxKey).Draw(t, "key"))
		state := rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "state")
		age, remaining := rapid.Int64().Draw(t, "age"), rapid.Int64().Draw(t, "remaining")
		head := rapid.SliceOfN(rapid.Byte(), 0, 3).Draw(t, "what stands before")
		tail := rapid.SliceOfN(rapid.Byte(), 0, 3).Draw(t, "what comes after")
		b := appendEntry(head, key, age, remaining, func(b []byte) []byte { return append(b, state...) })
		require.Equal(t, head, b[:len(head):len(head)])
		b = append(b[len(head):], tail...)
		got, rest, err := parseEntry(b)
		require.NoError(t, err)
		require.Equal(t, key, string(got.key))
		require.Equal(t, age, got.age)
		require.Equal(t, remaining, got.remaining)
		require.Equal(t, string(state), string(got.state))
		require.Equal(t, string(tail), string(rest))
		for n := range len(b) - len(tail) {
			_, _, err := parseEntry(b[:n])
			require.Error(t, err, "cut to %d of %d bytes", n, len(b))
		}
	})
}

func TestEntryBounds(t *testing.T) {
	entry := func(key, state string) []byte {
		return appendEntry(nil, key, 0, 1, func(b []byte) []byte { return append(b, state...) })
	}
	for name, c := range map[string]struct {
		b  []byte
		ok bool
	}{
		"longest key":       {entry(strings.Repeat("k", MaxKey), ""), true},
		"a key too long":    {entry(strings.Repeat("k", MaxKey+1), ""), false},
		"no key":            {entry("", "state"), false},
		"largest state":     {entry("k", strings.Repeat("s", MaxState)), true},
		"a state too large": {entry("k", strings.Repeat("s", MaxState+1)), false},
		"nothing":           {nil, false},
	} {
		_, _, err := parseEntry(c.b)
		require.Equal(t, c.ok, err == nil, name)
	}
}

// States pass through a member that does not have their table, with all the
// time they spend there and on their way, and mean the same instant after.
func TestAgesAddUp(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		key := keysOf(5, 1)[0]
		pass := func(name string) int64 { return rapid.Int64Range(0, 5*second).Draw(t, name) }
		offset := func(name string) int64 { return rapid.Int64Range(0, 1000*second).Draw(t, name) }
		first, keeper, last := newNums(10, nil), New[Raw, struct{}, struct{}](RawMachine{}, 10, nil), newNums(10, nil)
		keeperClock, lastClock := offset("keeper's clock"), offset("last clock")

		now := 1 + pass("since the start")
		life := 100 * second
		first.do(key, now, change{Add: 7, Life: life})
		made := now
		now += pass("at the first")
		first.Follow(5, Follower, false)
		b := first.collectAll(5, Follower, now)
		sent := now
		now += pass("on its way")
		// The receiver counts back by the message's age.
		require.NoError(t, keeper.Import(5, b, now+keeperClock-(now-sent), false))
		now += pass("at the keeper")
		keeper.Follow(5, Follower, false)
		b = keeper.collectAll(5, Follower, now+keeperClock)
		sent = now
		now += pass("on its way again")
		require.NoError(t, last.Import(5, b, now+lastClock-(now-sent), false))

		s, ok := last.peek(key, now+lastClock)
		require.True(t, ok)
		require.Equal(t, num{Sum: 7, Version: 1, Mark: made + lastClock}, s)
		require.Equal(t, made+life, entryOf(last, key).expires-lastClock)
	})
}

// Over two members that have the table the same holds without ages.
func TestMergeTakesTheLarger(t *testing.T) {
	key := keysOf(5, 1)[0]
	for _, c := range []struct {
		name                string
		here, there         int64 // sums; 0: no entry
		lifeHere, lifeThere int64
		sum, life           int64
		missing             bool
	}{
		{"only there", 0, 4, 0, second, 4, second, false},
		{"only here", 4, 0, second, 0, 4, second, false},
		{"larger there", 4, 9, second, 2 * second, 9, 2 * second, false},
		{"larger here", 9, 4, second, 2 * second, 9, 2 * second, false},
		{"longer here", 9, 4, 3 * second, 2 * second, 9, 3 * second, false},
		{"expired here", 9, 4, 1, 2 * second, 4, 2 * second, false},
		{"expired there", 4, 9, second, 1, 4, second, false},
	} {
		now := 10 * ms
		here, there := newNums(10, new(Marks)), newNums(10, nil)
		here.Follow(5, Backup, false)
		for st, s := range map[*numStore][2]int64{here: {c.here, c.lifeHere}, there: {c.there, c.lifeThere}} {
			if s[0] != 0 {
				st.do(key, 1, change{Add: s[0], Until: now + s[1] - 2}) // 1: has just expired
			}
		}
		b := here.collectAll(5, Backup, now)
		_ = b
		here.Acked(5, Backup)
		there.Follow(5, Follower, false)
		b = there.collectAll(5, Follower, now)
		require.NoError(t, here.Import(5, b, now, true))
		s, ok := here.peek(key, now)
		require.True(t, ok, c.name)
		require.Equal(t, c.sum, s.Sum, c.name)
		require.Equal(t, now+c.life-2, entryOf(here, key).expires, c.name)
		owes, _ := here.Owes(5)
		require.Equal(t, len(b) > 0, owes, "%s: what was taken in is owed to the backup", c.name)
		here.check(t)
	}
}

// Without merging, what comes replaces what is there, and is no change of the
// receiver's own.
func TestImportReplaces(t *testing.T) {
	key := keysOf(5, 1)[0]
	here, there := newNums(10, new(Marks)), newNums(10, nil)
	here.do(key, 1, change{Add: 9, Life: 9 * second})
	here.Follow(5, Follower, true)
	there.do(key, 1, change{Add: 4, Life: second})
	there.Follow(5, Follower, false)
	require.NoError(t, here.Import(5, there.collectAll(5, Follower, 1), 1, false))
	s, _ := here.peek(key, 1)
	require.EqualValues(t, 4, s.Sum)
	require.Equal(t, 1+second, entryOf(here, key).expires)
	_, n, _ := here.Collect(5, Follower, 1, nil, math.MaxInt)
	require.Zero(t, n)
}

func TestImportRefuses(t *testing.T) {
	keys := keysOf(5, 2)
	good := func(key string) []byte {
		return appendEntry(nil, key, 0, second, func(b []byte) []byte { return nums{}.AppendState(b, num{Sum: 1}, 0) })
	}
	for name, b := range map[string][]byte{
		"a key of another slot": append(good(keys[0]), good(keysOf(6, 1)[0])...),
		"a state cut short":     append(good(keys[0]), appendEntry(nil, keys[1], 0, 1, func(b []byte) []byte { return append(b, 1) })...),
		"an entry cut short":    append(good(keys[0]), good(keys[1])[:5]...),
	} {
		st := newNums(10, nil)
		require.Error(t, st.Import(5, b, 1, false), name)
		require.Len(t, st.contents(5, 1), 1, "%s: what came before stays", name)
		st.check(t)
	}
}

func FuzzParseEntry(f *testing.F) {
	f.Add([]byte(nil))
	f.Add(appendEntry(nil, "key", 5, -7, func(b []byte) []byte { return append(b, "state"...) }))
	f.Add([]byte{1, 'k', 0, 0, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		e, rest, err := parseEntry(b)
		if err != nil {
			return
		}
		if len(e.key) == 0 || len(e.key) > MaxKey || len(e.state) > MaxState {
			t.Fatalf("key of %d bytes, state of %d", len(e.key), len(e.state))
		}
		again := appendEntry(nil, string(e.key), e.age, e.remaining, func(b []byte) []byte { return append(b, e.state...) })
		e2, rest2, err := parseEntry(append(again, rest...))
		if err != nil || string(e2.key) != string(e.key) || e2.age != e.age || e2.remaining != e.remaining ||
			string(e2.state) != string(e.state) || string(rest2) != string(rest) {
			t.Fatalf("%+v became %+v, %v", e, e2, err)
		}
	})
}

// FuzzImport takes anything in, merged and not, over entries that are there.
func FuzzImport(f *testing.F) {
	state := func(b []byte) []byte { return nums{}.AppendState(b, num{1, 2, 3}, 0) }
	key := keysOf(5, 1)[0]
	f.Add(appendEntry(nil, key, 0, second, state), int64(1), true)
	f.Add(appendEntry(appendEntry(nil, key, 0, -1, state), keysOf(5, 2)[1], 5, second, state), int64(1), false)
	f.Add(appendEntry(nil, key, math.MinInt64, math.MaxInt64, state), int64(math.MaxInt64), true)
	f.Add(appendEntry(nil, key, math.MaxInt64, math.MinInt64, state), int64(1), false)
	f.Fuzz(func(t *testing.T, b []byte, now int64, merge bool) {
		slot := uint16(5)
		if e, _, err := parseEntry(b); err == nil {
			slot = uint16(xxhash.Sum64(e.key) % Slots)
		}
		st := newNums(1, new(Marks))
		for _, k := range keysOf(slot, 3) {
			st.do(k, 1, change{Add: 1, Life: second})
		}
		st.Follow(slot, Backup, false)
		_ = st.Import(slot, b, now, merge)
		st.check(t)
		st.collectAll(slot, Backup, now)
		st.Acked(slot, Backup)
		st.check(t)
		st.Sweep(math.MaxInt64, math.MaxInt)
		st.Drop(slot)
		st.check(t)
	})
}

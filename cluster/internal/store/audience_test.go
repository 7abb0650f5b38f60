package store

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

// answers counts how a ticket was answered.
type answers struct{ yes, no int }

func (a *answers) done(acknowledged bool) {
	if acknowledged {
		a.yes++
	} else {
		a.no++
	}
}

func (st *Store[S, O, R, M]) collectAll(slot uint16, l List, now int64) []byte {
	b, _, _ := st.Collect(slot, l, now, nil, math.MaxInt)
	return b
}

var waiting = change{Add: 1, Life: second, Wait: true}

func TestAnswerWaitsForTheBackup(t *testing.T) {
	st := newNums(100, new(Marks))
	key := keysOf(5, 1)[0]
	st.Follow(5, Backup, false)
	_, ticket := st.do(key, 1, waiting)
	require.True(t, ticket.Wait())
	var a answers
	st.Await(5, ticket, a.done)
	owes, awaited := st.Owes(5)
	require.True(t, owes && awaited)
	st.collectAll(5, Backup, 1)
	require.Zero(t, a)
	owes, awaited = st.Owes(5)
	require.False(t, owes)
	require.True(t, awaited)
	st.Acked(5, Backup)
	require.Equal(t, answers{yes: 1}, a)

	// Another change while the message is under way is not acknowledged by it.
	_, first := st.do(key, 1, waiting)
	st.collectAll(5, Backup, 1)
	_, second := st.do(key, 1, waiting)
	st.Acked(5, Backup)
	a = answers{}
	st.Await(5, first, a.done) // after the fact
	require.Equal(t, answers{yes: 1}, a)
	st.Await(5, second, a.done)
	require.Equal(t, answers{yes: 1}, a)
	st.collectAll(5, Backup, 1)
	st.Acked(5, Backup)
	require.Equal(t, answers{yes: 2}, a)
}

// A message that holds but a part of what is owed answers nobody whose change
// may be in the rest.
func TestPartialMessageAnswersNobody(t *testing.T) {
	st := newNums(100, new(Marks))
	keys := keysOf(5, 2)
	st.Follow(5, Backup, false)
	var a answers
	for _, k := range keys {
		_, ticket := st.do(k, 1, waiting)
		st.Await(5, ticket, a.done)
	}
	_, n, drained := st.Collect(5, Backup, 1, nil, 1)
	require.Equal(t, 1, n)
	require.False(t, drained)
	st.Acked(5, Backup)
	require.Zero(t, a)
	_, n, drained = st.Collect(5, Backup, 1, nil, 1)
	require.Equal(t, 1, n)
	require.True(t, drained)
	st.Acked(5, Backup)
	require.Equal(t, answers{yes: 2}, a)
}

func TestWithoutABackupNobodyWaits(t *testing.T) {
	st := newNums(100, new(Marks))
	key := keysOf(5, 1)[0]
	_, ticket := st.do(key, 1, waiting)
	require.False(t, ticket.Wait())
	st.Follow(5, Follower, false) // who is being brought up to date is no backup
	_, ticket = st.do(key, 1, waiting)
	require.False(t, ticket.Wait())
}

func TestBoundOfWhatTheBackupDoesNotKnow(t *testing.T) {
	st := newNums(100, new(Marks))
	key := keysOf(5, 1)[0]
	spend := change{Add: 1, Life: second, Spent: 1, Bound: 2}
	must := func(want bool, why string) {
		t.Helper()
		_, ticket := st.do(key, 1, spend)
		require.Equal(t, want, ticket.Wait(), why)
	}
	st.Follow(5, Backup, false)
	must(false, "one of two")
	must(false, "two of two")
	must(true, "beyond")
	st.collectAll(5, Backup, 1)
	must(true, "under way is not acknowledged")
	st.Acked(5, Backup) // three of them
	must(false, "two of two")
	must(true, "beyond")

	// The message is lost, and the backup, which may still have its old copy,
	// starts anew: it still does not know of them.
	st.collectAll(5, Backup, 1)
	st.Follow(5, Backup, false)
	must(true, "what was spent before is still not known to the backup")
	st.collectAll(5, Backup, 1)
	st.Acked(5, Backup)
	must(false, "all is known")
	require.Zero(t, func() int64 { sh := &st.shards[5]; return sh.record(1).inflight }())
	st.check(t)
}

// A follower that has everything becomes the backup: what was spent is then
// known to it, and the entries can be reclaimed.
func TestPromotedFollowerKnowsWhatWasSpent(t *testing.T) {
	st := newNums(100, new(Marks))
	keys := keysOf(5, 2)
	spend := change{Add: 1, Life: second, Spent: 1, Bound: 1}
	st.Follow(5, Backup, false)
	st.Follow(5, Follower, false)
	st.do(keys[0], 1, spend)
	st.collectAll(5, Follower, 1)
	st.Acked(5, Follower)
	st.do(keys[1], 1, spend) // of this it does not know
	st.Promote(5)
	st.check(t)
	_, ticket := st.do(keys[0], 1, spend)
	require.False(t, ticket.Wait(), "the new backup knows of the first one")
	_, ticket = st.do(keys[1], 1, spend)
	require.True(t, ticket.Wait(), "the new backup knows of none")
	st.collectAll(5, Backup, 1)
	st.Acked(5, Backup)
	st.Sweep(3*second, 100)
	require.Zero(t, st.shards[5].n, "expired entries stay")
}

// Who waited for a backup that was replaced waits for the new one.
func TestWaitersAreHandedToTheNewBackup(t *testing.T) {
	st := newNums(100, new(Marks))
	key := keysOf(5, 1)[0]
	st.Follow(5, Backup, false)
	st.Follow(5, Follower, false)
	st.collectAll(5, Follower, 1)
	st.Acked(5, Follower)
	_, ticket := st.do(key, 1, waiting)
	var a answers
	st.Await(5, ticket, a.done)
	st.collectAll(5, Backup, 1) // never answered
	st.Promote(5)
	require.Zero(t, a)
	b := st.collectAll(5, Backup, 1)
	require.NotEmpty(t, b)
	st.Acked(5, Backup)
	require.Equal(t, answers{yes: 1}, a)
}

// A slot that goes on without a backup while somebody is brought up to date: a
// ticket of before that is awaited only now is answered like those before it,
// and so is one of a reign that was lost.
func TestAwaitAfterTheBackupHasEnded(t *testing.T) {
	for _, acknowledged := range []bool{true, false} {
		st := newNums(100, new(Marks))
		key := keysOf(5, 1)[0]
		st.Follow(5, Backup, false)
		st.Follow(5, Follower, false)
		var early, late answers
		_, ticket := st.do(key, 1, waiting)
		st.Await(5, ticket, early.done)
		st.Unfollow(5, Backup, acknowledged)
		st.Await(5, ticket, late.done)
		st.Unfollow(5, Follower, false)
		want := answers{no: 1}
		if acknowledged {
			want = answers{yes: 1}
		}
		require.Equal(t, want, early)
		require.Equal(t, want, late)
		st.check(t)
	}
}

// What a slot was told of in an earlier time here says nothing about the next.
func TestTicketOfAnEarlierReign(t *testing.T) {
	st := newNums(100, new(Marks))
	key := keysOf(5, 1)[0]
	st.Follow(5, Backup, false)
	_, ticket := st.do(key, 1, waiting)
	st.Drop(5)
	st.Follow(5, Backup, false)
	st.collectAll(5, Backup, 1)
	st.Acked(5, Backup)
	var a answers
	st.Await(5, ticket, a.done)
	require.Equal(t, answers{no: 1}, a)
}

func TestDropAnswersAll(t *testing.T) {
	st := newNums(100, new(Marks))
	keys := keysOf(5, 3)
	st.Follow(5, Backup, false)
	var a answers
	for _, k := range keys {
		_, ticket := st.do(k, 1, waiting)
		st.Await(5, ticket, a.done)
	}
	st.do(keys[0], 1, change{Add: 1, Life: second, Spent: 1})
	st.Drop(5)
	require.Equal(t, answers{no: 3}, a)
	require.Empty(t, st.contents(5, 1))
	st.check(t)
	require.Zero(t, st.shards[5].n)
}

// An audience that has everything already is told of changes only.
func TestFollowWithACopy(t *testing.T) {
	marks := new(Marks)
	st := newNums(100, marks)
	keys := keysOf(5, 3)
	for _, k := range keys {
		st.do(k, 1, change{Add: 1, Life: second})
	}
	st.Follow(5, Backup, true)
	owes, _ := st.Owes(5)
	require.False(t, owes)
	b, n, drained := st.Collect(5, Backup, 1, nil, math.MaxInt)
	require.Empty(t, b)
	require.Zero(t, n)
	require.True(t, drained)
	marks.Take(func(uint16) { t.Error("a mark although nothing is owed") })
	st.do(keys[1], 1, change{Add: 1, Life: second})
	_, n, _ = st.Collect(5, Backup, 1, nil, math.MaxInt)
	require.Equal(t, 1, n)
	got := map[uint16]int{}
	marks.Take(func(slot uint16) { got[slot]++ })
	require.Equal(t, map[uint16]int{5: 1}, got)
	marks.Take(func(uint16) { t.Error("taken twice") })
}

// Where there are no entries, a new audience is no reason to send anything.
func TestFollowingAnEmptySlotOwesNothing(t *testing.T) {
	marks := new(Marks)
	st := newNums(100, marks)
	st.Follow(5, Backup, false)
	marks.Take(func(uint16) { t.Error("a mark although nothing is owed") })
	st.do(keysOf(6, 1)[0], 1, change{Add: 1, Life: second})
	st.Follow(6, Backup, false)
	got := map[uint16]int{}
	marks.Take(func(slot uint16) { got[slot]++ })
	require.Equal(t, map[uint16]int{6: 1}, got)
}

func TestNobodyToTell(t *testing.T) {
	st := newNums(100, new(Marks))
	b, n, drained := st.Collect(5, Backup, 1, nil, 100)
	require.Empty(t, b)
	require.Zero(t, n)
	require.True(t, drained)
	st.Acked(5, Backup)
	st.Promote(5)
	st.Unfollow(5, Backup, true)
	st.Unfollow(5, Follower, true)
	st.Drop(5)
	owes, awaited := st.Owes(5)
	require.False(t, owes || awaited)
	st.check(t)
}

// A deletion is told as well, and takes the copy's entry away.
func TestDeletionIsCopied(t *testing.T) {
	st, copied := newNums(100, new(Marks)), newNums(100, nil)
	key := keysOf(5, 1)[0]
	st.do(key, 1, change{Add: 1, Life: second})
	st.Follow(5, Backup, false)
	require.NoError(t, copied.Import(5, st.collectAll(5, Backup, 1), 1, false))
	st.Acked(5, Backup)
	require.Len(t, copied.contents(5, 1), 1)
	st.do(key, 1, change{})
	st.Sweep(10*second, 100)
	require.Equal(t, 1, st.shards[5].n, "the copy has still to be told")
	require.NoError(t, copied.Import(5, st.collectAll(5, Backup, 1), 1, false))
	st.Acked(5, Backup)
	require.Empty(t, copied.contents(5, 1))
	st.Sweep(11*second, 100)
	require.Zero(t, st.shards[5].n)

	// Where the key is not known, a deletion must be told too: the copy may be
	// ahead of what this member was given.
	st.do(key, 1, change{})
	owes, _ := st.Owes(5)
	require.True(t, owes)
}

// Entries that a copy has still to be told of are neither reclaimed nor
// evicted; the soonest to expire of the others goes.
func TestEvictionPassesOverWhatIsOwed(t *testing.T) {
	st := newNums(1, new(Marks)) // 9 entries a shard
	owed, known, more := keysOf(5, 4), keysOf(5+shardCount, 5), keysOf(5+2*shardCount, 9)
	st.Follow(5, Backup, false)
	for _, k := range owed {
		st.do(k, 1, change{Add: 1, Life: second})
	}
	for i, k := range known {
		st.do(k, 1, change{Add: 1, Life: 10*second + int64(i)*second})
	}
	for i, k := range more[:5] {
		st.do(k, 1, change{Add: 1, Life: 100 * second})
		_, ok := st.peek(known[i], 1)
		require.False(t, ok, "the next to expire of those that nobody waits for should have gone")
		require.EqualValues(t, i+1, st.EvictedLive())
		st.check(t)
	}
	require.Len(t, st.contents(5, 1), 4)

	// Once it is told, the soonest to expire goes first again.
	st.collectAll(5, Backup, 1)
	st.Acked(5, Backup)
	for _, k := range more[5:9] {
		st.do(k, 1, change{Add: 1, Life: 100 * second})
	}
	require.Empty(t, st.contents(5, 1))
	require.EqualValues(t, 9, st.EvictedLive())
	st.check(t)
}

// Where every entry is owed the shard outgrows its cap; that costs little, and
// once they are told it comes back, and what has expired is reclaimed.
func TestFullOfWhatIsOwed(t *testing.T) {
	st := newNums(shardCount*200, new(Marks))
	sh := &st.shards[5]
	for slot := uint16(5); slot < Slots; slot += shardCount {
		st.Follow(slot, Backup, false)
	}
	keys := shardKeys(5, 600)
	owed, more := keys[:st.maxShard+100], keys[st.maxShard+100:]
	for _, k := range owed {
		st.do(k, 1, change{Add: 1, Life: second})
	}
	require.Equal(t, len(owed), sh.n, "what is owed can't go")
	require.Zero(t, st.EvictedLive())
	tell := func() {
		for slot := uint16(5); slot < Slots; slot += shardCount {
			st.collectAll(slot, Backup, 1)
			st.Acked(slot, Backup)
		}
	}
	tell()
	for _, k := range more[:150] {
		st.do(k, 1, change{Add: 1, Life: 2 * second})
	}
	require.Equal(t, st.maxShard, sh.n)
	require.EqualValues(t, 250, st.EvictedLive())
	tell()
	st.Sweep(1+2*second+tickLen, math.MaxInt)
	require.Zero(t, sh.n, "expired, and told")
	st.check(t)
}

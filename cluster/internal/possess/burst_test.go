package possess

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// Whoever serves alone gives a newcomer its slots at once, in one step, and more
// of them at a time than one whose slots have a backup.
func TestWhoIsAloneGivesANewcomerItsSlots(t *testing.T) {
	moved := func(l *lab, to ID) (n int, first SyncItem) {
		for _, x := range l.take() {
			if s, ok := x.m.(*Sync); ok && x.to == to && len(s.Items) > 0 && s.Items[0].As == AsFollower {
				n, first = len(s.Items), s.Items[0]
			}
		}
		return n, first
	}
	few := func(cfg *Config) { cfg.MoveSlots = 2 }

	alone := newLab(t, 1, 100, few)
	alone.view(1)
	alone.pass(100 * ms)
	require.True(t, alone.serves(0))
	alone.view(2, 1)
	alone.pass(20 * ms)
	n, _ := moved(alone, 2)
	require.Equal(t, 8, n)
	require.True(t, alone.slots[0].toHolder)
	alone.Receive(alone.now, 2, &SyncAck{Seq: alone.pair(2).seq, Sent: alone.now, Term: 9})
	given := last[*Sync](alone, 2)
	require.NotNil(t, given)
	require.Equal(t, AsHolder, given.Items[0].As, "it is the holder without having been the backup")
	require.True(t, alone.serves(99), "the others serve on")

	backed := newLab(t, 1, 100, few)
	backed.hold()
	backed.view(4, 1, 2)
	backed.pass(20 * ms)
	n, _ = moved(backed, 4)
	require.Equal(t, 2, n)
}

// However much is queued, what somebody waits for is not behind all of it, nor
// together with it.
func TestABurstIsSentInParts(t *testing.T) {
	l := newLab(t, 1, 2000, func(cfg *Config) { cfg.OpenAsks = 4000 })
	l.hold()
	for slot := range uint16(2000) {
		l.marked[slot] = true
	}
	l.pass(20 * ms)
	s := last[*Sync](l, 2)
	require.Len(t, s.Items, syncItems)
	l.Urge(l.now, 1990)
	l.Urge(l.now, 1995)
	l.ack(2, 9)
	s = last[*Sync](l, 2)
	require.Len(t, s.Items, 2)
	require.EqualValues(t, 1990, s.Items[0].Slot)
	sent := syncItems + 2
	for sent < 2000 {
		l.ack(2, 9)
		s = last[*Sync](l, 2)
		require.NotEmpty(t, s.Items)
		sent += len(s.Items)
	}
	require.Equal(t, 2000, sent, "each once")
	l.ack(2, 9)
	require.Zero(t, l.Lag(l.now))
}

// What was urgent is done with before its turn comes: the rest goes on.
func TestNothingUrgentIsLeft(t *testing.T) {
	l := newLab(t, 1, 100)
	l.hold()
	for slot := range uint16(100) {
		l.marked[slot] = true
	}
	l.now += 20 * ms
	p := l.pair(2)
	p.flight = &flight{msg: &Sync{}, sent: l.now} // what comes has to wait
	l.Tick(l.now)
	l.Urge(l.now, 99)
	require.Len(t, p.urgent, 1)
	l.slots[99].queued[toBackup] = false
	p.flight = nil
	l.take()
	l.Tick(l.now)
	s := last[*Sync](l, 2)
	require.NotNil(t, s)
	require.Len(t, s.Items, 99)
}

// A member that takes over from one that is back does not ask that one, nor
// does it tell its new backup twice.
func TestATakeOverAsksAndTellsNobodyInVain(t *testing.T) {
	l := newLab(t, 1, 1)
	l.copies(3, 1, true)
	for l.now < l.pair(2).heard+100*ms {
		l.pass(5 * ms)
	}
	require.NotNil(t, l.slots[0].claim)
	l.Gone(l.now, 2)
	l.now += ms
	l.view(5, 1, 3) // 2 is back as 5
	l.take()
	for range 20 {
		l.pass(5 * ms)
		require.Nil(t, last[*Ask](l, 5), "it has just started")
		require.Nil(t, last[*Ask](l, 2), "it is dead")
		l.answerAsks(3)
	}
	require.NotNil(t, last[*Ask](l, 3))
	require.Equal(t, roleHolder, l.slots[0].role, "%s", l.Describe(0))
	require.EqualValues(t, 3, l.slots[0].backup)
	require.NotNil(t, last[*Sync](l, 3))
	require.Nil(t, last[*Announce](l, 3), "it hears it with its copy")
}

// Who is silent is looked for in all slots once, then in those that it left
// restless: first as a backup, later as a holder.
func TestFallingSilentStirsOnce(t *testing.T) {
	l := newLab(t, 1, 2)
	l.hold()
	l.drop(1, &l.slots[1])
	l.SetView(l.now, View{
		Order: func(slot uint16) [4]ID { return [...][4]ID{{1, 2, 3}, {2, 1, 3}}[slot] },
		Alive: []ID{1, 2, 3}, Dead: func(ID) bool { return false },
	})
	l.Receive(l.now, 2, &Sync{Seq: uint64(l.now), Sent: 1, Term: l.pair(2).myTerm, Items: []SyncItem{
		{Slot: 1, As: AsBackup, Epoch: 10, View: 1, Fresh: true, Complete: true},
	}})
	require.Equal(t, roleCopy, l.slots[1].role)
	l.count()
	l.pass(100 * ms)
	require.NotNil(t, l.slots[0].claim, "another backup is looked for: %s", l.Describe(0))
	l.pass(60 * ms)
	require.NotNil(t, l.slots[1].claim, "and the holder replaced: %s", l.Describe(1))
}

// However many slots are to start empty, some are asked about at a time: who
// answers late is not asked about thousands again and again.
func TestSlotsThatStartEmptyAreAskedAboutByAndBy(t *testing.T) {
	const slots, most = 2000, 400
	few := func(cfg *Config) { cfg.OpenAsks = 2 * most }
	l := newLab(t, 1, slots, few)
	l.view(1, 2, 3)
	asked := func() int {
		about := map[uint16]bool{}
		for _, x := range l.sent {
			if a, ok := x.m.(*Ask); ok {
				for _, it := range a.Items {
					if it.Claim == ClaimFound {
						about[it.Slot] = true
					}
				}
			}
		}
		return len(about)
	}
	for range 10 {
		l.pass(30 * ms)
		for _, id := range []ID{2, 3} { // they are there, but late with the answers
			l.Receive(l.now, id, &Beat{Sent: l.now})
		}
	}
	require.Equal(t, most, asked(), "each of two members")
	for range slots / most {
		l.answerAsks(2)
		l.answerAsks(3)
		l.take()
		l.pass(10 * ms)
		require.LessOrEqual(t, asked(), most)
	}
	for slot := range uint16(slots) {
		require.Equal(t, roleHolder, l.slots[slot].role, "%s", l.Describe(slot))
	}

	alone := newLab(t, 1, slots, few)
	alone.view(1)
	alone.pass(20 * ms)
	require.True(t, alone.serves(slots-1), "there is nobody to ask")
}

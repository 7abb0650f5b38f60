package possess

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// The named backup may have heard of it, and its word may be lost: then it takes
// over when its own promise has ended, and asks nobody about the one before it.
func TestTheGrantBeforeRunsOutOnceAnotherIsNamed(t *testing.T) {
	l := newLab(t, 1, 1)
	l.hold()
	l.name(0, &l.slots[0], 3)
	l.pass(5 * ms)
	named := l.now
	require.NotNil(t, last[*Sync](l, 3))
	require.True(t, l.serves(0), "until the other has answered it goes on under the old grant")
	for l.now < named+100*ms {
		l.take()
		l.pass(30 * ms)
		l.beats(2, 9)
		require.LessOrEqual(t, l.open[0].Grant.Until(), named+l.cfg.Grant, "which ends before the promise of the other can")
	}
	l.now = named + l.cfg.Grant
	require.False(t, l.serves(0))
	l.take()
	l.pass(50 * ms) // it is sent again
	l.ack(3, 7)
	l.pass(5 * ms)
	l.beats(3, 7)
	require.True(t, l.serves(0), "%s", l.Describe(0))
}

// Alone it is the same, though there is no grant to run out.
func TestBeingAloneEndsSomeTimeAfterAnotherWasNamed(t *testing.T) {
	l := newLab(t, 1, 1)
	l.view(1)
	l.pass(5 * ms)
	l.view(1, 2)
	l.name(0, &l.slots[0], 2)
	l.pass(5 * ms)
	require.True(t, l.serves(0))
	l.pass(l.cfg.Grant - l.cfg.Gap)
	require.False(t, l.serves(0))
	l.ack(2, 7)
	l.pass(5 * ms)
	l.beats(2, 7)
	require.True(t, l.serves(0))
}

// One lost answer of a member that is heard is no silence.
func TestAHolderIsNotAloneWhileSomebodyIsHeard(t *testing.T) {
	l := newLab(t, 1, 1)
	l.hold()
	answers := 0
	for start := l.now; l.now < start+500*ms; {
		l.take()
		l.pass(5 * ms)
		if answers == 0 && last[*Ask](l, 3) != nil {
			answers++
			l.answerAsks(3, Known{Epoch: 1, View: 1, Holder: 1, Backup: 2, Busy: true}) // it has promised to back another
		}
		l.Receive(l.now, 3, &Beat{Sent: l.now})
		require.NotEqual(t, l.cfg.Self, l.slots[0].cover, "%d ms after the backup fell silent", (l.now-start)/ms)
	}
	require.Equal(t, 1, answers)
}

// A member has beats with one of a lower ID only in answer to its own, and by
// itself where that has none.
func TestTheLowerOfTwoBeginsTheBeats(t *testing.T) {
	l := newLab(t, 3, 1)
	l.view(3, 1, 4)
	l.pass(100 * ms)
	beats := map[ID]int{}
	count := func(d int64, beaten bool) map[ID]int {
		clear(beats)
		for end := l.now + d; l.now < end; {
			l.take()
			l.pair(1).backs, l.pair(4).backs = 1, 1
			l.pass(5 * ms)
			if beaten && l.now%(30*ms) == 0 {
				l.Receive(l.now, 1, &Beat{Sent: l.now})
			}
			for _, id := range []ID{1, 4} {
				if last[*Beat](l, id) != nil {
					beats[id]++
				}
			}
		}
		return beats
	}
	require.Equal(t, map[ID]int{1: 20, 4: 20}, count(600*ms, true))
	require.InDelta(t, 20, count(600*ms, false)[1], 1)
}

// At rest there is no tick before the next beat, unless something is to be done.
func TestRest(t *testing.T) {
	l := newLab(t, 1, 1)
	l.hold()
	for range 40 { // until all slots are settled
		l.take()
		l.pass(30 * ms)
		l.beats(2, 9)
		l.Receive(l.now, 3, &Beat{Sent: l.now})
	}
	l.slots[0].full = true
	l.pass(20 * ms)
	require.True(t, l.Rest(), "%s", l.Describe(0))
	require.True(t, l.Resting(l.now))
	l.stir(0)
	require.False(t, l.Resting(l.now), "a slot is to be looked at")
	l.rest(0)
	require.True(t, l.Resting(l.now))
	require.False(t, l.Resting(l.now+30*ms), "the next beats begin")
	l.now += 30 * ms
	l.Tick(l.now)
	l.now += 30 * ms
	l.Tick(l.now)
	require.False(t, l.Rest(), "the backup has not answered")
}

// Who has just started is named backup after those who have been here for a
// while: somebody may be waiting for its answer.
func TestANewcomerIsNamedLast(t *testing.T) {
	for name, c := range map[string]struct {
		newcomers []ID
		backup    ID
	}{
		"nobody is new":       {nil, 2},
		"the ring's next is":  {[]ID{2}, 3},
		"both are":            {[]ID{2, 3}, 2},
		"the one after it is": {[]ID{3}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, 1, 1)
			l.view(1, 2, 3)
			l.pass(2000 * ms)
			for _, id := range []ID{2, 3} {
				l.pair(id).heard, l.pair(id).acked, l.pair(id).met = l.now, l.now, 1
			}
			for _, id := range c.newcomers {
				l.pair(id).met = l.now - 200*ms
			}
			st := &l.slots[0]
			st.role, st.epoch, st.holder, st.claim = roleHolder, 1, 1, nil
			l.chooseBackup(0, st)
			require.Equal(t, c.backup, st.backup)
		})
	}
}

// A holder that was killed and is back is asked nothing about the slots that it
// had: what answers in its place has just started.
func TestNobodyWaitsForWhoIsBack(t *testing.T) {
	for _, gone := range []bool{true, false} {
		l := newLab(t, 1, 1)
		l.copies(3, 1, true)
		l.take()
		for l.now < l.pair(2).heard+100*ms { // silent, and asked about
			l.pass(5 * ms)
			l.answerAsks(3)
			l.take()
		}
		require.NotNil(t, l.slots[0].claim)
		l.view(5, 1, 3) // 2 is back as 5
		for range 8 {
			l.pass(5 * ms)
			l.answerAsks(3)
			l.take()
		}
		if gone {
			l.Gone(l.now, 2)
		}
		require.Equal(t, gone, l.slots[0].role == roleHolder, "%s", l.Describe(0))
	}
}

// A holder may have put a member in its backup's place that the backup does not
// know yet, and fall silent before it has said so. It foretells it.
func TestABackupAsksWhomItWasForetold(t *testing.T) {
	holder := newLab(t, 1, 1)
	holder.hold()
	holder.view(4, 1, 2, 3) // 4 is new and is to hold the slot
	holder.pass(20 * ms)
	told := last[*Announce](holder, 2)
	require.NotNil(t, told)
	next := told.Items[len(told.Items)-1]
	require.Equal(t, Known{Epoch: next.Epoch, View: next.View, Holder: 1, Backup: 4, Stand: StandCopy}, next)

	for _, foretold := range []bool{true, false} {
		l := newLab(t, 1, 1)
		l.copies(5, 2, true)
		if foretold {
			l.Receive(l.now, 2, &Announce{Items: []Known{{Epoch: 5, View: 2, Holder: 2, Backup: 4, Stand: StandCopy}}})
		}
		l.take()
		for end := l.now + 200*ms; l.now < end; {
			l.pass(5 * ms)
			l.answerAsks(3)
		}
		require.Equal(t, foretold, last[*Ask](l, 4) != nil)
		require.Equal(t, !foretold, l.slots[0].role == roleHolder, "4 is silent, and may hold it")
	}
}

package possess

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestMovedToALaterEpochIsFollowedAtOnce(t *testing.T) {
	r := NewRoute([4]ID{1, 2, 3, 4}, 1, 0)
	require.Zero(t, r.MovedTo(9, 5))
	require.Zero(t, r.MovedTo(7, 6))
	require.NotZero(t, r.MovedTo(8, 6))
}

// Of three members with the holder dead, the only other one may have the later
// view: who has not been asked long enough ago is not silent.
func TestABackupAsksBeforeItTakesFromTheDead(t *testing.T) {
	l := newLab(t, 1, 1)
	l.copies(5, 2, true)
	l.Gone(l.now, 2)
	l.dead[2] = true
	l.view(1, 3)
	for range 20 {
		l.take()
		l.pass(5 * ms)
		l.answerAsks(3, Known{Epoch: 5, View: 3, Holder: 2, Backup: 3, Stand: StandFull})
		require.False(t, l.Holds(0, 6), "it took over without having heard the other")
	}
}

// It is the first from a member not heard of before, and is taken.
func TestSyncNumberZero(t *testing.T) {
	l := newLab(t, 1, 1)
	l.view(1, 2)
	l.Receive(l.now, 2, &Sync{})
}

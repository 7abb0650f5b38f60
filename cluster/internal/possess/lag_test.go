package possess

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestLagIsThatOfTheOldestChange(t *testing.T) {
	l := newLab(t, 1, 3)
	l.hold()
	require.Zero(t, l.Lag(l.now), "the backup has everything")
	l.marked[1] = true
	l.Urge(l.now, 1)
	began := l.now
	l.pass(10 * ms)
	require.Equal(t, 10*ms, l.Lag(l.now), "it is under way")
	l.marked[2] = true
	l.Urge(l.now, 2)
	require.Equal(t, l.now-began, l.Lag(l.now), "one that is queued behind it is younger")
	l.pass(10 * ms)
	l.ack(2, 9)
	require.Equal(t, l.now-began-10*ms, l.Lag(l.now), "it is the oldest now, and counts from when it was queued")
	l.ack(2, 9)
	require.Zero(t, l.Lag(l.now))
}

func TestWhatABackupThatWasReplacedLackedIsNoLag(t *testing.T) {
	l := newLab(t, 1, 1)
	l.hold()
	l.marked[0] = true
	l.Urge(l.now, 0)
	l.pass(5 * ms)
	require.Equal(t, 5*ms, l.Lag(l.now))
	l.dead[2] = true
	l.Gone(l.now, 2)
	l.view(1, 3)
	require.Zero(t, l.Lag(l.now))
}

package possess

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// A backup that is cut off from everybody serves what it has before a caller's
// time, 250 ms, is up.
func TestABackupThatIsCutOffTakesOverAlone(t *testing.T) {
	l := newLab(t, 1, 1)
	l.copies(5, 2, true)
	cut := l.now
	for !l.serves(0) && l.now < cut+1000*ms {
		l.pass(5 * ms)
	}
	took := l.now - cut
	require.GreaterOrEqual(t, took, 150*ms, "before its promise had run out")
	require.LessOrEqual(t, took, 200*ms, "%s", l.Describe(0))
}

// Who serves alone and did not run for a moment could not serve meanwhile; what
// was parked then must not wait until its time is up.
func TestWhatWasParkedWhileTheClockStoodIsWoken(t *testing.T) {
	l := newLab(t, 1, 1)
	l.view(1)
	l.pass(100 * ms)
	require.True(t, l.serves(0))
	l.now += 200 * ms
	require.False(t, l.serves(0), "being alone lasts as long as the clock is read")
	wakes := l.wakes[0]
	l.pass(5 * ms)
	require.True(t, l.serves(0), "nobody else is there to ask")
	require.Greater(t, l.wakes[0], wakes, "nobody was woken")
}

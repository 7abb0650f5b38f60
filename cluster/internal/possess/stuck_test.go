package possess

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// A backup knows a view from the holder's question about it, and then hears that
// in this view another is the backup.
func TestTheHolderSaysWhoItsBackupIs(t *testing.T) {
	l := newLab(t, 1, 1)
	l.copies(5, 1, true)
	l.Receive(l.now, 2, &Ask{Sent: 1, Items: []AskItem{{Claim: ClaimRename, Epoch: 5, View: 2}}})
	require.EqualValues(t, 2, l.slots[0].view)
	l.Receive(l.now, 2, &Announce{Items: []Known{{Epoch: 5, View: 2, Holder: 2, Backup: 3, Stand: StandHolder}}})
	require.Equal(t, roleNone, l.slots[0].role, "a copy that nobody knows of keeps its member from leaving")
	require.EqualValues(t, 3, l.slots[0].backup)
}

// A member that was silent a moment ago is no backup of choice, but one where
// the backup leaves.
func TestABackupThatLeavesIsReplacedByWhoeverIsThere(t *testing.T) {
	l := newLab(t, 1, 1)
	l.hold()
	l.pair(3).silentAt = l.now
	l.leaving(l.pair(2), true)
	l.pass(20 * ms)
	s := last[*Sync](l, 3)
	require.NotNil(t, s, "%s", l.Describe(0))
	require.Equal(t, AsFollower, s.Items[0].As)
}

// Who serves alone and could not hand a slot over when its taker had everything
// offers it again.
func TestAHolderThatServesAloneOffersAgain(t *testing.T) {
	l := newLab(t, 1, 1)
	l.view(1)
	l.pass(100 * ms)
	require.True(t, l.serves(0))
	l.view(2, 1)
	l.pass(20 * ms)
	require.Equal(t, AsFollower, last[*Sync](l, 2).Items[0].As)
	// It has everything, and was not offered the slot because just then its
	// holder might not serve, or it was silent.
	st, p := &l.slots[0], l.pair(2)
	st.ffull, st.flying[toOther], p.flight = true, 0, nil
	l.take()
	l.pass(20 * ms)
	require.NotNil(t, last[*Sync](l, 2), "%s", l.Describe(0))
}

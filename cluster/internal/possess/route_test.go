package possess

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// A route is a table of steps: what happened, and who is asked next.
func TestRoute(t *testing.T) {
	type step struct {
		moved ID // 0: the target failed
		epoch uint64
		to    ID
		wait  bool
	}
	failed := func(to ID, wait bool) step { return step{to: to, wait: wait} }
	for name, c := range map[string]struct {
		order  [4]ID
		holder ID
		steps  []step
	}{
		"the holder is gone: the next in ring order": {
			[4]ID{1, 2, 3, 4}, 1, []step{failed(2, false), failed(3, false), failed(4, false)},
		},
		"all are gone: round again, with a pause": {
			[4]ID{1, 2, 0, 0}, 1, []step{failed(2, false), failed(1, true), failed(2, true)},
		},
		"the only one: again, after a pause": {
			[4]ID{1, 0, 0, 0}, 1, []step{failed(1, true), failed(1, true)},
		},
		"a holder outside the ring's order": {
			[4]ID{1, 2, 3, 4}, 9, []step{failed(1, false), failed(2, false)},
		},
		"moved to later epochs is followed at once": {
			[4]ID{1, 2, 3, 4}, 1, []step{{9, 5, 9, false}, {7, 6, 7, false}},
		},
		"moved to an earlier epoch is followed, with a pause": {
			[4]ID{1, 2, 3, 4}, 1, []step{{9, 5, 9, false}, {7, 5, 7, true}},
		},
		"not back to one who has failed, unless it is later": {
			[4]ID{1, 2, 3, 4}, 1, []step{failed(2, false), {1, 0, 3, false}, {1, 4, 1, false}},
		},
		"moved to itself, or to nobody: another is tried": {
			[4]ID{1, 2, 3, 4}, 1, []step{{1, 9, 2, false}, {0, 9, 3, false}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := NewRoute(c.order, c.holder, 0)
			require.Equal(t, c.holder, r.Target())
			for i, s := range c.steps {
				before := r.Target()
				var wait int64
				if s.moved == 0 && s.epoch == 0 {
					wait = r.Failed()
					require.Equal(t, before, r.Tried)
				} else {
					wait = r.MovedTo(s.moved, s.epoch)
				}
				require.Equal(t, s.to, r.Target(), "step %d", i)
				if s.moved == 0 {
					require.Equal(t, s.wait, wait > 0, "step %d: wait %d", i, wait)
				}
			}
		})
	}
	var r Route
	r.Sent(5 * ms)
	require.Equal(t, 105*ms, r.Due())
}

func TestVerdicts(t *testing.T) {
	for name, c := range map[string]struct {
		prepare func(l *lab)
		tried   ID
		want    Verdict
	}{
		"nothing is known: the ring's first":       {func(l *lab) { l.view(2, 1, 3) }, 0, Verdict{Moved, 2, 0}},
		"nothing is known, and it is the first":    {func(l *lab) { l.view(1, 2, 3) }, 0, Verdict{Do: Elsewhere}},
		"the holder, though its grant has run out": {func(l *lab) { l.hold(); l.now += 200 * ms }, 0, Verdict{Do: Wait}},
		"a copy: to the holder":                    {func(l *lab) { l.copies(5, 2, true) }, 0, Verdict{Moved, 2, 5}},
		"a copy, the caller has tried another":     {func(l *lab) { l.copies(5, 2, true) }, 3, Verdict{Moved, 2, 5}},
		"a copy, the caller could not reach it":    {func(l *lab) { l.copies(5, 2, true) }, 2, Verdict{Do: Wait}},
		"a copy, the holder is dead":               {func(l *lab) { l.copies(5, 2, true); l.now += 200 * ms; l.dead[2] = true; l.view(1, 3) }, 0, Verdict{Do: Wait}},
		"a copy, the holder is gone for certain":   {func(l *lab) { l.copies(5, 2, true); l.Gone(l.now, 2) }, 0, Verdict{Do: Wait}},
		"a copy whose holder has fallen silent":    {func(l *lab) { l.copies(5, 2, true); l.pass(100 * ms) }, 0, Verdict{Do: Wait}},
		"another is known to hold it": {func(l *lab) {
			l.view(2, 1, 3)
			l.Receive(l.now, 2, &Announce{Items: []Known{{Epoch: 4, Holder: 3, Stand: StandHolder}}})
		}, 0, Verdict{Moved, 3, 4}},
		"who was known to hold it is dead": {func(l *lab) {
			l.view(2, 1)
			l.dead[3] = true
			l.Receive(l.now, 2, &Announce{Items: []Known{{Epoch: 4, Holder: 3, Stand: StandHolder}}})
		}, 0, Verdict{Moved, 2, 0}},
		"it leaves: to the next in the ring's order": {func(l *lab) { l.view(1, 2, 3); l.Drain(l.now) }, 0, Verdict{Moved, 2, 0}},
	} {
		l := newLab(t, 1, 1)
		c.prepare(l)
		require.Equal(t, c.want, l.Verdict(l.now, 0, c.tried), name)
	}
}

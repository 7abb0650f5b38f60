package membership

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

type clock struct{ t time.Time }

func (c *clock) now() time.Time { return c.t }

func testMember(boot uint64) Member {
	return Member{
		Meta:   Meta{ID: fmt.Sprint("m", boot), Peer: "h:1", ProtoMin: 1, ProtoMax: 1},
		Boot:   boot,
		Gossip: netip.AddrPortFrom(netip.MustParseAddr("10.0.0.1"), uint16(boot)),
	}
}

func testTable() (*table, *clock) {
	c := &clock{time.Unix(1_000_000, 0)}
	return newTable(testMember(1), c.now), c
}

func kinds(cs []Change) string {
	out := ""
	for _, c := range cs {
		out += fmt.Sprint(map[Kind]string{Joined: "+", Updated: "~", Departed: "-", Lost: "!"}[c.Kind], c.Member.Boot)
	}
	return out
}

func TestTableSteps(t *testing.T) {
	tb, c := testTable()
	drains := testMember(2)
	drains.Draining = true
	for i, step := range []struct {
		do   func()
		want string // changes told
	}{
		{func() {}, ""},
		{func() { tb.alive(testMember(1)) }, ""}, // itself
		{func() { tb.alive(testMember(2)) }, "+2"},
		{func() { tb.alive(testMember(2)) }, ""},
		{func() { tb.alive(drains) }, "~2"},
		{func() { tb.gone(2, false) }, "!2"},
		{func() { tb.gone(2, false) }, ""},
		{func() { tb.alive(testMember(2)) }, "+2"}, // a false alarm
		{func() { tb.gone(2, false); tb.alive(testMember(2)) }, ""},
		{func() { tb.leaving(2); tb.gone(2, false) }, "-2"},
		{func() { tb.alive(testMember(2)) }, ""}, // who has left does not come back
		{func() { tb.alive(testMember(3)); tb.gone(3, false) }, ""},
		{func() { tb.alive(testMember(4)); tb.alive(testMember(5)) }, "+4+5"},
		{func() { tb.gone(4, true) }, "!4"},
		{func() { tb.alive(testMember(4)) }, ""}, // beyond doubt
		{func() { tb.gone(5, false) }, "!5"},
		{func() { tb.leaving(5) }, ""}, // the goodbye comes late
		{func() { tb.gone(1, true); tb.leaving(1) }, ""},
		{func() { tb.gone(99, true); tb.leaving(99) }, ""},
		{func() { tb.heard(6, Dead, time.Minute); tb.heard(7, Left, 0) }, ""},
		{func() { tb.alive(testMember(6)); tb.alive(testMember(7)) }, "+6"},
		{func() { tb.heard(6, Dead, 0) }, ""}, // alive, as this member knows itself
	} {
		c.t = c.t.Add(time.Second)
		step.do()
		require.Equal(t, step.want, kinds(tb.changes()), "step %d", i)
	}
	states := ""
	for boot := range uint64(9) {
		states += fmt.Sprint(" ", tb.get(boot).State)
	}
	assert.Equal(t, " unknown alive left dead dead left alive left unknown", states)
	assert.True(t, tb.believes(6) && tb.believes(3) && tb.believes(99))
	assert.False(t, tb.believes(2) || tb.believes(4))
	assert.False(t, tb.alone())
	tb.gone(6, false)
	assert.True(t, tb.alone())
}

func TestTableRemembersTheGoneForAWhile(t *testing.T) {
	tb, c := testTable()
	gone := func() int { return len(tb.list(func(m Member) bool { return !m.State.Live() })) }
	for boot := uint64(2); boot < 12; boot++ {
		tb.alive(testMember(boot))
		tb.gone(boot, false)
	}
	tb.changes()
	assert.Equal(t, 10, gone())
	c.t = c.t.Add(rememberFor - time.Second)
	tb.heard(50, Dead, rememberFor) // too long ago to be of use
	tb.heard(51, Dead, time.Minute)
	assert.Equal(t, 11, gone())
	c.t = c.t.Add(2 * time.Second)
	tb.alive(testMember(60))
	tb.gone(60, false)
	assert.Equal(t, 2, gone())

	for boot := uint64(100); boot < 100+rememberMost+50; boot++ {
		c.t = c.t.Add(time.Millisecond)
		tb.heard(boot, Dead, 0)
	}
	assert.Equal(t, rememberMost, gone())
	assert.Equal(t, Unknown, tb.get(51).State, "the oldest went first")
	assert.Equal(t, Dead, tb.get(100+rememberMost+49).State)
	assert.Equal(t, Alive, tb.get(1).State)
}

// Whoever replays the changes has the list.
func TestChangesAddUpToTheList(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tb, c := testTable()
		replayed := map[uint64]State{}
		read := func() {
			for _, ch := range tb.changes() {
				was := replayed[ch.Member.Boot]
				switch ch.Kind {
				case Joined:
					require.False(t, was.Live())
				default:
					require.True(t, was.Live(), "%v of %d, which is not there", ch.Kind, ch.Member.Boot)
				}
				replayed[ch.Member.Boot] = ch.Member.State
			}
		}
		for range rapid.IntRange(0, 60).Draw(t, "steps") {
			c.t = c.t.Add(time.Duration(rapid.IntRange(0, 1000).Draw(t, "ms")) * time.Millisecond)
			boot := rapid.Uint64Range(1, 5).Draw(t, "boot")
			switch rapid.IntRange(0, 6).Draw(t, "what") {
			case 0, 1:
				m := testMember(boot)
				m.Draining = rapid.Bool().Draw(t, "draining")
				tb.alive(m)
			case 2:
				tb.gone(boot, false)
			case 3:
				tb.gone(boot, true)
			case 4:
				tb.leaving(boot)
			case 5:
				tb.heard(boot, Dead, time.Second)
			case 6:
				read()
			}
			require.True(t, tb.get(1).State.Live(), "a member is alive to itself")
		}
		read()
		live := tb.list(func(m Member) bool { return m.State.Live() })
		require.Equal(t, tb.live, len(live))
		n := 1
		for boot, state := range replayed {
			if state.Live() {
				n++
				require.Equal(t, tb.get(boot).State, state)
			}
		}
		require.Len(t, live, n)
	})
}

package possess

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit/cluster/internal/store"
)

const ms = int64(1_000_000)

// lab is one machine, member 1 of a cluster whose others are played by the
// test. The ring's order of every slot is that of the members' IDs, as given to
// view.
type lab struct {
	*Machine
	t    testing.TB
	now  int64
	sent []letter
	dead map[ID]bool

	// What the machine ordered.
	open      map[uint16]*store.Reign
	wakes     map[uint16]int
	imports   []string // slot and entries
	drops     []uint16
	follows   []string
	refuse    bool // what Import answers
	events    []Event
	marked    map[uint16]bool
	collected string // what Collect finds
}

type letter struct {
	to ID
	m  Message
}

func newLab(t testing.TB, self ID, slots int, change ...func(*Config)) *lab {
	l := &lab{t: t, now: 1000 * ms, open: map[uint16]*store.Reign{}, wakes: map[uint16]int{}, dead: map[ID]bool{}, marked: map[uint16]bool{}}
	cfg := DefaultConfig(self)
	cfg.Slots = slots
	for _, f := range change {
		f(&cfg)
	}
	l.Machine = New(cfg, l, l.now)
	return l
}

func (l *lab) Send(to ID, m Message) {
	m, err := Parse(Append(nil, m)) // its memory is used again
	require.NoError(l.t, err)
	l.sent = append(l.sent, letter{to, m})
}

func (l *lab) Open(slot uint16, epoch uint64, g *store.Grant) {
	l.open[slot] = &store.Reign{Epoch: epoch, Grant: g}
}
func (l *lab) Shut(slot uint16) { delete(l.open, slot) }
func (l *lab) Wake(slot uint16) { l.wakes[slot]++ }
func (l *lab) TakeMarks(f func(slot uint16)) {
	for s := range uint16(len(l.slots)) {
		if l.marked[s] {
			delete(l.marked, s)
			f(s)
		}
	}
}
func (l *lab) Follow(slot uint16, list store.List, has bool) {
	l.follows = append(l.follows, fmt.Sprint(slot, list, has))
}
func (l *lab) Collect(_ uint16, _ store.List, b []byte, _ int) ([]byte, bool) {
	return append(b, l.collected...), true
}
func (l *lab) Acked(uint16, store.List)          {}
func (l *lab) Owes(uint16) (owes, awaited bool)  { return false, false }
func (l *lab) Promote(uint16)                    {}
func (l *lab) Unfollow(uint16, store.List, bool) {}
func (l *lab) Drop(slot uint16)                  { l.drops = append(l.drops, slot) }
func (l *lab) Note(e Event)                      { l.events = append(l.events, e) }
func (l *lab) Import(slot uint16, b []byte, _ int64, _ bool) error {
	if l.refuse {
		return ErrMalformed
	}
	l.imports = append(l.imports, fmt.Sprint(slot, " ", string(b)))
	return nil
}

// view tells the machine that these members live, in ring order.
func (l *lab) view(order ...ID) {
	var first [4]ID
	copy(first[:], order)
	l.SetView(l.now, View{
		Order: func(uint16) [4]ID { return first },
		Alive: order,
		Dead:  func(id ID) bool { return l.dead[id] },
	})
}

// pass lets time pass, with a tick every 5 ms.
func (l *lab) pass(d int64) {
	for end := l.now + d; l.now < end; {
		l.now = min(l.now+5*ms, end)
		l.Tick(l.now)
	}
}

// take returns what was sent since the last time.
func (l *lab) take() []letter {
	sent := l.sent
	l.sent = nil
	return sent
}

// last returns the latest message of its type sent to a member, nil if none was
// since take.
func last[M Message](l *lab, to ID) (m M) {
	for _, x := range l.sent {
		if got, ok := x.m.(M); ok && x.to == to {
			m = got
		}
	}
	return m
}

func (l *lab) serves(slot uint16) bool {
	r := l.open[slot]
	return r != nil && l.now < r.Grant.Until()
}

// answerAsks answers the questions to a member with what it knows: nothing, but
// for what known says.
func (l *lab) answerAsks(from ID, known ...Known) {
	for _, x := range l.sent {
		a, ok := x.m.(*Ask)
		if !ok || x.to != from {
			continue
		}
		ans := &Answer{Sent: a.Sent}
		for _, it := range a.Items {
			k := Known{Slot: it.Slot}
			for _, has := range known {
				if has.Slot == it.Slot {
					k = has
				}
			}
			ans.Items = append(ans.Items, k)
		}
		l.Receive(l.now, from, ans)
	}
}

// ack acknowledges the Sync under way to a member.
func (l *lab) ack(from ID, term uint64, refused ...Known) {
	l.t.Helper()
	s := last[*Sync](l, from)
	require.NotNil(l.t, s, "nothing was sent to %d", from)
	l.Receive(l.now, from, &SyncAck{Seq: s.Seq, Sent: s.Sent, Term: term, Now: 1, Refused: refused})
}

// beats acknowledges the latest beat.
func (l *lab) beats(from ID, term uint64) (sent int64) {
	l.t.Helper()
	b := last[*Beat](l, from)
	require.NotNil(l.t, b, "no beat was sent to %d", from)
	l.Receive(l.now, from, &BeatAck{Sent: b.Sent, Term: term})
	return b.Sent
}

// hold makes the machine the holder of all its slots with member 2 as the
// backup, whose grant has the term 9 and was just renewed.
func (l *lab) hold() {
	l.t.Helper()
	l.view(1, 2, 3)
	l.pass(100 * ms)
	l.answerAsks(2)
	l.answerAsks(3)
	l.pass(5 * ms)
	l.ack(2, 9)
	l.beats(2, 9) // at once
	l.take()
	l.pass(20 * ms)
	require.True(l.t, l.serves(0), "%s", l.Describe(0))
	l.take()
}

// copies makes the machine the backup of slot 0, held by member 2 in that
// epoch, with a copy that is complete or not.
func (l *lab) copies(epoch uint64, view uint32, complete bool) {
	l.view(2, 1, 3)
	l.Receive(l.now, 2, &Sync{Seq: uint64(l.now), Sent: 1, Term: l.pair(2).myTerm, Items: []SyncItem{
		{Slot: 0, As: AsBackup, Epoch: epoch, View: view, Fresh: true, Complete: complete, Entries: []byte("copy")},
	}})
}

package possess

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestServesNothingBeforeItHasAView(t *testing.T) {
	l := newLab(t, 1, 3)
	l.pass(2000 * ms)
	require.Empty(t, l.sent)
	require.Empty(t, l.open)
	require.Equal(t, Verdict{Do: Elsewhere}, l.Verdict(l.now, 0, 0))
	require.False(t, l.Settled())
	require.True(t, l.Empty())
}

func TestASingleMemberServesAtOnce(t *testing.T) {
	l := newLab(t, 1, 3)
	l.view(1)
	l.pass(5 * ms)
	for s := range uint16(3) {
		require.True(t, l.serves(s))
		require.EqualValues(t, 1, l.open[s].Epoch)
	}
	require.Empty(t, l.sent)
	require.True(t, l.Settled())

	// Nobody else is known: it need not ask after a pause, during which its
	// grant ran out by itself.
	l.now += 10_000 * ms
	require.False(t, l.serves(0))
	l.Tick(l.now)
	require.True(t, l.serves(0))
}

func TestAloneEndsAtAGapOfTheClock(t *testing.T) {
	l := newLab(t, 1, 1)
	l.view(1)
	l.pass(5 * ms)
	l.view(1, 2, 3)
	l.pass(100 * ms)
	require.True(t, l.serves(0), "a new member is no reason to stop")
	require.NotNil(t, last[*Sync](l, 2), "who is brought up to date meanwhile")
	require.Equal(t, AsFollower, last[*Sync](l, 2).Items[0].As)

	l.now += 51 * ms
	require.False(t, l.serves(0), "being alone lasts as long as the clock is read")
	l.Tick(l.now)
	require.Nil(t, l.open[0])
	require.Equal(t, Verdict{Do: Wait}, l.Verdict(l.now, 0, 0))
	l.pass(20 * ms)
	ask := last[*Ask](l, 3)
	require.NotNil(t, ask, "it asks whether somebody has taken over")
	require.Equal(t, ClaimRename, ask.Items[0].Claim)
}

func TestAGrantCountsFromTheSending(t *testing.T) {
	l := newLab(t, 1, 1)
	l.hold()
	l.pass(20 * ms)
	beat := last[*Beat](l, 2)
	require.NotNil(t, beat)
	l.now += 40 * ms // on its way and back
	l.Receive(l.now, 2, &BeatAck{Sent: beat.Sent, Term: 9})
	require.Equal(t, beat.Sent+150*ms, l.open[0].Grant.Until())
	l.now = beat.Sent + 150*ms - 1
	require.True(t, l.serves(0))
	l.now++
	require.False(t, l.serves(0))
}

func TestALateAcknowledgementDoesNotShortenAGrant(t *testing.T) {
	l := newLab(t, 1, 1)
	l.hold()
	until := l.open[0].Grant.Until()
	l.Receive(l.now, 2, &BeatAck{Sent: l.now - 120*ms, Term: 9})
	require.Equal(t, until, l.open[0].Grant.Until())
	l.Receive(l.now, 2, &BeatAck{Sent: l.now, Term: 8}) // of a grant that has ended
	require.Equal(t, until, l.open[0].Grant.Until())
}

// The backup ended its grant: with that all slots under it are shut until each
// was acknowledged under the new one.
func TestANewTermEndsTheGrant(t *testing.T) {
	l := newLab(t, 1, 2)
	l.hold()
	old := l.open[1].Grant
	l.pass(20 * ms)
	l.beats(2, 10)
	require.Empty(t, l.open)
	require.Zero(t, old.Until())
	l.take()
	l.pass(30 * ms)
	require.Empty(t, l.open)
	l.ack(2, 10)
	require.True(t, l.serves(0) && l.serves(1))
	require.Equal(t, last[*Sync](l, 2).Sent+150*ms, l.open[0].Grant.Until())
}

func TestASlotStartsEmptyOnlyIfAllSayThatTheyHaveNothing(t *testing.T) {
	for name, c := range map[string]struct {
		known   []Known
		silent  bool
		started bool
	}{
		"nobody has anything": {nil, false, true},
		"one is silent":       {nil, true, false},
		"a holder":            {[]Known{{Epoch: 3, View: 1, Holder: 3, Backup: 2, Stand: StandHolder}}, false, false},
		"a copy":              {[]Known{{Epoch: 3, View: 1, Holder: 4, Backup: 3, Stand: StandFull}}, false, false},
		"a part of a copy":    {[]Known{{Epoch: 3, View: 1, Holder: 4, Backup: 3, Stand: StandCopy}}, false, false},
	} {
		l := newLab(t, 1, 1)
		l.view(1, 2, 3)
		l.pass(100 * ms)
		require.NotNil(t, last[*Ask](l, 2), name)
		require.Equal(t, ClaimFound, last[*Ask](l, 2).Items[0].Claim)
		l.answerAsks(2)
		if !c.silent {
			l.answerAsks(3, c.known...)
		}
		l.pass(50 * ms)
		started := false
		for _, e := range l.events {
			started = started || e.Kind == Started
		}
		require.Equal(t, c.started, started, name)
		require.Empty(t, l.open, "%s: without a grant nothing is served", name)
	}
}

// A memory of an epoch alone does not hold a slot up: its holder and backup
// are dead.
func TestASlotStartsAboveARememberedEpoch(t *testing.T) {
	l := newLab(t, 1, 1)
	l.dead[7], l.dead[8] = true, true
	l.view(1, 2, 3)
	l.pass(100 * ms)
	l.answerAsks(2, Known{Epoch: 6, View: 2, Holder: 7, Backup: 8})
	l.answerAsks(3)
	for range 20 {
		l.take()
		l.pass(50 * ms)
		l.answerAsks(2, Known{Epoch: 6, View: 2, Holder: 7, Backup: 8})
		l.answerAsks(3)
	}
	require.True(t, l.Holds(0, 7), "%s", l.Describe(0))
}

func TestABackupTakesOver(t *testing.T) {
	type known = []Known
	for _, c := range []struct {
		name    string
		epoch   uint64
		view    uint32
		partial bool
		dead    bool
		of3     known // what member 3 answers
		silent3 bool
		takes   bool
	}{
		{name: "nobody objects", epoch: 5, view: 2, takes: true},
		{name: "the holder is known to be dead", epoch: 5, view: 2, dead: true, takes: true},
		{name: "the other is silent, the holder dead", epoch: 5, view: 2, dead: true, silent3: true, takes: true},
		{name: "a later view is known", epoch: 5, view: 2, of3: known{{Epoch: 5, View: 3, Holder: 2, Backup: 3, Stand: StandCopy}}},
		{name: "a later epoch is known", epoch: 5, view: 2, of3: known{{Epoch: 6, View: 0, Holder: 4, Backup: 3}}},
		{name: "another holds it", epoch: 5, view: 2, of3: known{{Epoch: 6, View: 1, Holder: 3, Stand: StandHolder}}},
		{name: "another was promised", epoch: 5, view: 2, of3: known{{Epoch: 5, View: 2, Holder: 2, Busy: true}}},
		{name: "an earlier view is known", epoch: 5, view: 2, of3: known{{Epoch: 5, View: 1, Holder: 2, Backup: 3, Stand: StandFull}}, takes: true},
		{name: "half a copy, and the holder may live", epoch: 5, view: 2, partial: true},
		{name: "half a copy is all there is", epoch: 5, view: 2, partial: true, dead: true, takes: true},
		{name: "half a copy, and the other has a whole one", epoch: 5, view: 2, partial: true, dead: true, of3: known{{Epoch: 5, View: 2, Holder: 2, Stand: StandFull}}},
		{name: "half a copy, and the other is silent", epoch: 5, view: 2, partial: true, dead: true, silent3: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLab(t, 1, 1)
			l.copies(c.epoch, c.view, !c.partial)
			promised := l.now + 150*ms
			if c.dead {
				l.dead[2] = true
				l.view(1, 3)
			}
			took := int64(0)
			for l.now < promised+600*ms && took == 0 {
				l.take()
				l.pass(5 * ms)
				if !c.silent3 {
					l.answerAsks(3, c.of3...)
				}
				if l.Holds(0, c.epoch+1) {
					took = l.now
				}
			}
			require.Equal(t, c.takes, took != 0, "%s", l.Describe(0))
			if took == 0 {
				return
			}
			if !c.dead {
				require.GreaterOrEqual(t, took, promised, "before its promise had run out")
			}
			require.Equal(t, Event{TookOver, 0, 2}, l.events[0])
			if c.silent3 {
				require.True(t, l.serves(0), "nobody answers: it serves alone")
			} else {
				require.Nil(t, l.open[0], "a taker serves when it has a grant of its own")
				l.pass(5 * ms)
				l.ack(3, 4)
				l.beats(3, 4)
				require.True(t, l.serves(0))
				require.Equal(t, c.epoch+1, l.open[0].Epoch)
			}
		})
	}
}

func TestABackupWhoseHolderBeatsDoesNothing(t *testing.T) {
	l := newLab(t, 1, 1)
	l.copies(5, 2, true)
	for range 100 {
		l.pass(20 * ms)
		l.Receive(l.now, 2, &Beat{Sent: l.now, Term: l.pair(2).myTerm})
		ack := last[*BeatAck](l, 2)
		require.Equal(t, l.now, ack.Sent)
		require.Equal(t, l.pair(2).myTerm, ack.Term)
	}
	require.Nil(t, last[*Ask](l, 3))
	require.EqualValues(t, l.now+150*ms, l.pair(2).promised)

	// A beat under another term renews no promise, but tells the right one.
	before := l.pair(2).promised
	l.now += 20 * ms
	l.Receive(l.now, 2, &Beat{Sent: l.now, Term: 0})
	require.Equal(t, before, l.pair(2).promised)
}

// After a pause of its own a backup takes nobody's silence for death: what was
// said meanwhile waits to be read.
func TestAPauseOfTheBackup(t *testing.T) {
	l := newLab(t, 1, 1)
	l.copies(5, 2, true)
	l.now += 5000 * ms
	l.Tick(l.now)
	l.answerAsks(3)
	require.True(t, l.Holds(0, 5) || l.slots[0].role == roleCopy)
	woke := l.now
	for l.now < woke+149*ms {
		l.take()
		l.pass(min(5*ms, woke+149*ms-l.now))
		l.answerAsks(3)
		require.False(t, l.Holds(0, 6), "it took over %d ms after it woke", (l.now-woke)/ms)
	}
}

func TestTooFewMembers(t *testing.T) {
	l := newLab(t, 1, 2, func(c *Config) { c.MinMembers = 2 })
	l.view(1)
	l.pass(500 * ms)
	require.Empty(t, l.open)
	require.Equal(t, Verdict{Do: Refuse}, l.Verdict(l.now, 0, 0))

	l.hold()
	require.NotEqual(t, Verdict{Do: Refuse}, l.Verdict(l.now, 0, 0))
	l.wakes = map[uint16]int{}
	l.dead[2], l.dead[3] = true, true
	l.view(1)
	require.Empty(t, l.open, "shut at once")
	require.Equal(t, map[uint16]int{0: 1, 1: 1}, l.wakes, "those who wait are told")
	require.Equal(t, Verdict{Do: Refuse}, l.Verdict(l.now, 0, 0))
	l.pass(500 * ms)
	require.Empty(t, l.open)
}

// A no is a promise: who found nothing against a claim backs no other of equal
// rank for 150 ms; a better one it does.
func TestPromises(t *testing.T) {
	ask := func(l *lab, from ID, it AskItem) Known {
		l.Receive(l.now, from, &Ask{Sent: 1, Items: []AskItem{it}})
		return last[*Answer](l, from).Items[0]
	}
	take := AskItem{Claim: ClaimTake, Epoch: 5, View: 2, Full: true}
	l := newLab(t, 1, 1)
	l.view(1, 2, 3, 4)
	require.False(t, ask(l, 2, take).Busy)
	require.True(t, ask(l, 3, take).Busy, "promised to another")
	require.False(t, ask(l, 2, take).Busy, "the same one may ask again")
	worse := take
	worse.Full = false
	require.True(t, ask(l, 3, worse).Busy)
	better := take
	better.View = 3
	require.False(t, ask(l, 3, better).Busy, "a better copy goes before")
	require.True(t, ask(l, 2, take).Busy)
	l.pass(149 * ms)
	require.True(t, ask(l, 2, take).Busy)
	l.pass(1 * ms)
	require.False(t, ask(l, 2, take).Busy, "the promise is over")
	l.Gone(l.now, 2)
	require.False(t, ask(l, 3, take).Busy, "a promise to one who is dead binds nobody")
}

// Refused while a promise to another runs: a Sync of a reign that the promise
// goes before.
func TestASyncAgainstAPromise(t *testing.T) {
	l := newLab(t, 1, 1)
	l.view(2, 1, 3)
	l.Receive(l.now, 3, &Ask{Sent: 1, Items: []AskItem{{Claim: ClaimTake, Epoch: 5, View: 2, Full: true}}})
	l.Receive(l.now, 2, &Sync{Seq: 1 << 40, Items: []SyncItem{{As: AsBackup, Epoch: 5, View: 2, Fresh: true, Complete: true}}})
	ack := last[*SyncAck](l, 2)
	require.Len(t, ack.Refused, 1)
	require.True(t, ack.Refused[0].Busy)
	require.Empty(t, l.imports)
}

func TestSyncsAreTakenOnce(t *testing.T) {
	l := newLab(t, 1, 1)
	l.view(2, 1, 3)
	s := &Sync{Seq: 1 << 40, Sent: 1, Items: []SyncItem{{As: AsBackup, Epoch: 5, View: 2, Fresh: true, Complete: true, Entries: []byte("a")}}}
	l.Receive(l.now, 2, s)
	first := last[*SyncAck](l, 2)
	require.Empty(t, first.Refused)
	again := *s
	again.Sent = 30
	l.Receive(l.now, 2, &again)
	require.Equal(t, []string{"0 a"}, l.imports)
	require.EqualValues(t, 30, last[*SyncAck](l, 2).Sent, "the repeated one is acknowledged from its own sending")
	old := *s
	old.Seq--
	l.take()
	l.Receive(l.now, 2, &old)
	require.Empty(t, l.sent, "one that was overtaken is dropped")
	require.Equal(t, []string{"0 a"}, l.imports)
}

func TestItemsThatDoNotFitAreRefused(t *testing.T) {
	for name, c := range map[string]struct {
		it    SyncItem
		taken bool
	}{
		"the next change":                   {SyncItem{As: AsBackup, Epoch: 5, View: 2}, true},
		"an earlier epoch":                  {SyncItem{As: AsBackup, Epoch: 4, View: 9, Fresh: true}, false},
		"an earlier view":                   {SyncItem{As: AsBackup, Epoch: 5, View: 1, Fresh: true}, false},
		"a change of an epoch not known":    {SyncItem{As: AsBackup, Epoch: 6, View: 1}, false},
		"a fresh copy of a later epoch":     {SyncItem{As: AsBackup, Epoch: 6, View: 1, Fresh: true}, true},
		"possession of the next epoch":      {SyncItem{As: AsHolder, Epoch: 6, View: 1}, true},
		"possession of this epoch":          {SyncItem{As: AsHolder, Epoch: 5, View: 3}, false},
		"possession of an epoch beyond":     {SyncItem{As: AsHolder, Epoch: 7, View: 1}, false},
		"entries to merge, without holding": {SyncItem{As: AsMerge, Epoch: 5, View: 1}, false},
	} {
		l := newLab(t, 1, 1)
		l.copies(5, 2, true)
		l.imports = nil
		c.it.Entries = []byte("more")
		l.Receive(l.now, 2, &Sync{Seq: 1 << 50, Items: []SyncItem{c.it}})
		ack := last[*SyncAck](l, 2)
		require.Equal(t, c.taken, len(ack.Refused) == 0, name)
		require.Equal(t, c.taken, len(l.imports) > 0, name)
	}
}

func TestEntriesThatCannotBeReadAreRefused(t *testing.T) {
	l := newLab(t, 1, 1)
	l.copies(5, 2, true)
	l.refuse = true
	l.drops = nil
	l.Receive(l.now, 2, &Sync{Seq: 1 << 50, Items: []SyncItem{{As: AsBackup, Epoch: 5, View: 2, Entries: []byte("?")}}})
	require.Len(t, last[*SyncAck](l, 2).Refused, 1)
	require.Equal(t, []uint16{0}, l.drops, "half a copy is none")
	require.Equal(t, StandNone, l.known(0).Stand)
}

// Who drains takes no possession, and asks for none.
func TestADrainingMemberTakesNothing(t *testing.T) {
	l := newLab(t, 1, 1)
	l.copies(5, 2, true)
	l.Drain(l.now)
	require.False(t, l.Empty(), "it has a copy")
	l.Receive(l.now, 2, &Sync{Seq: 1 << 50, Items: []SyncItem{{As: AsHolder, Epoch: 6, View: 1}}})
	require.Len(t, last[*SyncAck](l, 2).Refused, 1)
	require.False(t, l.Holds(0, 6))
}

// The grant that comes with a hand-over counts from an instant of the taker's
// own clock that the giver had seen.
func TestTheGrantOfAHandOver(t *testing.T) {
	l := newLab(t, 1, 1)
	l.copies(5, 2, true)
	l.view(1, 2, 3)
	heard := l.now
	l.pass(20 * ms)
	l.Receive(l.now, 2, &Sync{Seq: 1 << 50, Echo: heard, YourTerm: 4, Items: []SyncItem{{As: AsHolder, Epoch: 6, View: 1}}})
	require.True(t, l.Holds(0, 6))
	// The term was not known before: nothing is served on it until it was
	// confirmed, or from the echo on if it was.
	if r := l.open[0]; r != nil {
		require.LessOrEqual(t, r.Grant.Until(), heard+150*ms)
	}
	l.pass(20 * ms)
	sent := l.beats(2, 4)
	require.True(t, l.serves(0))
	require.Equal(t, sent+150*ms, l.open[0].Grant.Until())
}

// A holder that hears of a later reign stops at once, and passes its entries
// on to be merged.
func TestOutranked(t *testing.T) {
	l := newLab(t, 1, 1)
	l.hold()
	l.collected = "mine"
	l.Receive(l.now, 3, &Announce{Items: []Known{{Epoch: 9, View: 1, Holder: 3, Backup: 2, Stand: StandHolder}}})
	require.Nil(t, l.open[0])
	require.Equal(t, Verdict{Do: Moved, To: 3, Epoch: 9}, l.Verdict(l.now, 0, 0))
	l.pass(5 * ms)
	s := last[*Sync](l, 3)
	require.NotNil(t, s)
	require.Equal(t, AsMerge, s.Items[0].As)
	require.Equal(t, "mine", string(s.Items[0].Entries))
	require.False(t, l.Empty())
	l.ack(3, 1)
	require.Equal(t, []uint16{0}, l.drops)

	// One of equal epoch loses to the higher boot ID only.
	l = newLab(t, 5, 1)
	l.view(5)
	l.pass(5 * ms)
	l.Receive(l.now, 3, &Announce{Items: []Known{{Epoch: 1, View: 9, Holder: 3, Stand: StandHolder}}})
	require.NotNil(t, l.open[0])
	l.Receive(l.now, 6, &Announce{Items: []Known{{Epoch: 1, View: 1, Holder: 6, Stand: StandHolder}}})
	require.Nil(t, l.open[0])
}

func TestMessagesFromNowhere(t *testing.T) {
	l := newLab(t, 1, 2)
	l.hold()
	later := []Known{{Slot: 0, Epoch: 9, Holder: 7, Stand: StandHolder}}
	for _, from := range []ID{0, 1} {
		l.Receive(l.now, from, &Announce{Items: later})
	}
	require.True(t, l.serves(0), "neither nobody nor it itself says anything")
	beyond := Known{Slot: 9, Epoch: 9, Holder: 7, Stand: StandHolder}
	l.Receive(l.now, 3, &Announce{Items: []Known{beyond}})
	l.Receive(l.now, 3, &Answer{Items: []Known{beyond}})
	l.Receive(l.now, 3, &Ask{Items: []AskItem{{Slot: 9}}})
	require.Empty(t, last[*Answer](l, 3).Items)
	l.Receive(l.now, 3, &Sync{Seq: 1 << 50, Items: []SyncItem{{Slot: 9, As: AsBackup, Epoch: 1, Fresh: true}}})
	l.Receive(l.now, 3, &SyncAck{Seq: 12345})
	require.True(t, l.serves(0) && l.serves(1))
}

// A holder whose backup has fallen silent asks around before it names another,
// and serves on only while the old grant runs.
func TestARenamedBackup(t *testing.T) {
	l := newLab(t, 1, 1)
	l.hold()
	until := l.open[0].Grant.Until()
	for l.now < until+100*ms && last[*Sync](l, 3) == nil {
		l.pass(5 * ms)
		l.answerAsks(3)
		require.Equal(t, l.now < until, l.serves(0))
	}
	s := last[*Sync](l, 3)
	require.NotNil(t, s, "%s", l.Describe(0))
	require.Equal(t, AsBackup, s.Items[0].As)
	require.True(t, s.Items[0].Fresh, "it starts anew")
	require.Equal(t, l.slots[0].view, s.Items[0].View)
	protected := true
	l.Held(func(_ uint16, _ uint64, p bool) { protected = p })
	require.False(t, protected)
	l.ack(3, 6)
	l.beats(3, 6)
	require.True(t, l.serves(0))
	l.Held(func(_ uint16, _ uint64, p bool) { protected = p })
	require.True(t, protected)
	backup, follower := l.Audience(0)
	require.True(t, backup)
	require.False(t, follower)
}

// Nobody at all answers: a split. It goes on alone.
func TestAlone(t *testing.T) {
	l := newLab(t, 1, 1)
	l.hold()
	l.pass(600 * ms)
	require.True(t, l.serves(0), "%s", l.Describe(0))
	require.Zero(t, l.slots[0].backup)
	alone := false
	for _, e := range l.events {
		alone = alone || e.Kind == Alone
	}
	require.True(t, alone)
}

func TestUrgeSendsAtOnce(t *testing.T) {
	l := newLab(t, 1, 2)
	l.hold()
	l.collected = "change"
	l.marked[1] = true
	l.Urge(l.now, 1)
	s := last[*Sync](l, 2)
	require.NotNil(t, s)
	require.EqualValues(t, 1, s.Items[0].Slot)
	l.take()
	l.Urge(l.now, 0)
	require.Nil(t, last[*Sync](l, 2), "one message is under way at a time")
	l.pass(60 * ms)
	require.Equal(t, s.Seq, last[*Sync](l, 2).Seq, "and sent again when it is not acknowledged")
	l.Receive(l.now, 2, &SyncAck{Seq: s.Seq, Sent: s.Sent, Term: 9})
	require.Greater(t, last[*Sync](l, 2).Seq, s.Seq, "the next follows")
}

func TestWhatSomebodyWaitsForGoesFirst(t *testing.T) {
	l := newLab(t, 1, 100)
	l.hold()
	l.cfg.SyncBytes = 100
	l.collected = "a change of some forty bytes in each of the"
	for slot := range uint16(100) {
		l.marked[slot] = true
	}
	l.pass(20 * ms)
	require.NotNil(t, last[*Sync](l, 2))
	l.Urge(l.now, 99)
	l.ack(2, 9)
	require.EqualValues(t, 99, last[*Sync](l, 2).Items[0].Slot)
	for range 200 {
		l.ack(2, 9)
		l.now += ms
	}
	l.pass(20 * ms)
	require.Zero(t, l.Lag(l.now), "the others follow")
}

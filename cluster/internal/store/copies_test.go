package store

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// sink is a member that is told of a slot's changes. Its clock is its own.
type sink struct {
	*numStore
	ahead int64            // of its clock
	had   map[string]int64 // the latest version of each key that it ever had
	whole bool             // it was told of everything once

	message []byte // under way to it
	at      int64  // when that was made
	waiting bool   // something is under way
	drained bool
	spent   map[string]int64 // what the message tells it of
}

// copying is a slot with two audiences, and what is expected of it.
type copying struct {
	slot   uint16
	keys   []string
	now    int64
	source *numStore
	marks  *Marks
	sinks  [2]*sink // nil: nobody

	version  int64 // given to the latest change
	versions map[string]int64
	backed   map[string]int64 // the latest version that a backup has had
	unacked  map[string]int64 // units that the backup does not know of
	alone    int              // how often the slot went on without a backup
	tickets  []*ticketed
}

// ticketed is an answer that is held back.
type ticketed struct {
	Ticket
	key      string
	version  int64
	alone    int // copying.alone when it was given
	awaited  bool
	answered bool
	ended    bool // it may be answered with false
}

func newCopying(slot uint16, keys []string) *copying {
	m := new(Marks)
	return &copying{
		slot: slot, keys: keys, now: 1, marks: m, source: newNums(100_000, m),
		versions: map[string]int64{}, backed: map[string]int64{}, unacked: map[string]int64{},
	}
}

func (c *copying) follow(l List, ahead int64) {
	c.source.Follow(c.slot, l, false)
	c.sinks[l] = &sink{numStore: newNums(100_000, nil), ahead: ahead, had: map[string]int64{}}
}

// do runs an operation and checks whether its answer must wait.
func (c *copying) do(t *rapid.T, key string, op change) {
	c.version++
	op.Version = c.version
	got, ticket := c.source.do(key, c.now, op)
	c.versions[key] = got.Version
	wait := false
	if c.sinks[Backup] != nil {
		c.unacked[key] += op.Spent
		wait = op.Wait || op.Bound > 0 && c.unacked[key] > op.Bound
	}
	require.Equal(t, wait, ticket.Wait(), "units that the backup does not know of: %d, bound %d", c.unacked[key], op.Bound)
	if wait {
		c.tickets = append(c.tickets, &ticketed{Ticket: ticket, key: key, version: got.Version, alone: c.alone})
	}
}

func (c *copying) await(t *rapid.T, w *ticketed) {
	w.awaited = true
	c.source.Await(c.slot, w.Ticket, func(acknowledged bool) {
		require.False(t, w.answered, "answered twice")
		w.answered = true
		if acknowledged {
			require.True(t, c.backed[w.key] >= w.version || c.alone > w.alone,
				"%s: version %d was confirmed, the backup has had %d", w.key, w.version, c.backed[w.key])
			return
		}
		require.True(t, w.ended, "given up without reason")
	})
}

func (c *copying) collect(t *rapid.T, l List, limit int) {
	s := c.sinks[l]
	var n int
	s.message, n, s.drained = c.source.Collect(c.slot, l, c.now, nil, limit)
	s.waiting, s.at, s.spent = true, c.now, map[string]int64{}
	require.Equal(t, n == 0, len(s.message) == 0)
	for rest := s.message; len(rest) > 0; {
		raw, more, err := parseEntry(rest)
		require.NoError(t, err)
		s.spent[string(raw.key)] = c.unacked[string(raw.key)]
		rest = more
	}
}

// deliver takes the message under way to l in.
func (c *copying) deliver(t *rapid.T, l List) {
	s := c.sinks[l]
	now := c.now + s.ahead
	require.NoError(t, s.Import(c.slot, s.message, now-(c.now-s.at), false))
	for rest := s.message; len(rest) > 0; {
		raw, more, err := parseEntry(rest)
		require.NoError(t, err)
		state, err := nums{}.ParseState(raw.state, now)
		require.NoError(t, err)
		s.had[string(raw.key)] = max(s.had[string(raw.key)], state.Version)
		rest = more
	}
	s.check(t)
	if l == Backup {
		c.backup(s)
	}
}

// backup notes what the backup has.
func (c *copying) backup(s *sink) {
	for key, v := range s.had {
		c.backed[key] = max(c.backed[key], v)
	}
}

func (c *copying) acked(l List) {
	s := c.sinks[l]
	s.waiting, s.whole = false, s.whole || s.drained
	if l == Backup {
		for key, n := range s.spent {
			c.unacked[key] -= n
		}
	}
	c.source.Acked(c.slot, l)
}

// end: the slot's time here is over, and answers may be given up.
func (c *copying) end() {
	for _, w := range c.tickets {
		w.ended = true
	}
	clear(c.unacked)
}

// same compares what an audience that was told everything has to the source.
func (c *copying) same(t *rapid.T, l List) {
	want := c.source.contents(c.slot, c.now)
	got := c.sinks[l].contents(c.slot, c.now+c.sinks[l].ahead)
	for key, s := range got {
		s.Mark -= c.sinks[l].ahead
		got[key] = s
	}
	require.Equal(t, want, got)
	for _, key := range c.keys {
		a := entryOf(c.source, key)
		b := entryOf(c.sinks[l].numStore, key)
		if a != nil && a.expires > c.now {
			require.Equal(t, a.expires, b.expires-c.sinks[l].ahead)
		}
	}
}

func entryOf(st *numStore, key string) *entry[num] {
	sh := &st.shards[slotOf(key)%shardCount]
	for i := uint32(1); i <= sh.used; i++ {
		if e := sh.at(i); e.key.String() == key {
			return e
		}
	}
	return nil
}

// drain tells l everything.
func (c *copying) drain(t *rapid.T, l List) {
	if s := c.sinks[l]; s.waiting {
		c.deliver(t, l)
		c.acked(l)
	}
	for {
		c.collect(t, l, 40)
		c.deliver(t, l)
		c.acked(l)
		if c.sinks[l].drained {
			break
		}
	}
	c.same(t, l)
}

// TestCopiesFollow puts a slot with a backup and a follower through random
// changes, messages that arrive and that are lost, promotions and ends.
func TestCopiesFollow(t *testing.T) {
	slot := uint16(300)
	keys := keysOf(slot, 6)
	rapid.Check(t, func(t *rapid.T) {
		c := newCopying(slot, keys)
		if rapid.Bool().Draw(t, "start with a backup") {
			c.follow(Backup, 5*second)
		}
		list := rapid.SampledFrom([]List{Backup, Follower})
		existing := func(t *rapid.T) List {
			l := list.Draw(t, "list")
			if c.sinks[l] == nil {
				t.Skip("nobody")
			}
			return l
		}
		t.Repeat(map[string]func(*rapid.T){
			"change": func(t *rapid.T) {
				c.do(t, rapid.SampledFrom(keys).Draw(t, "key"), change{
					Add: 1, Life: rapid.Int64Range(0, 3*second).Draw(t, "life"),
					Wait:  rapid.IntRange(0, 3).Draw(t, "wait") == 0,
					Spent: rapid.Int64Range(0, 2).Draw(t, "spent"), Bound: rapid.Int64Range(0, 3).Draw(t, "bound"),
				})
			},
			"look": func(t *rapid.T) {
				_, ticket := c.source.do(rapid.SampledFrom(keys).Draw(t, "key"), c.now, change{Look: true})
				require.False(t, ticket.Wait())
			},
			"time": func(t *rapid.T) {
				c.now += rapid.Int64Range(0, second).Draw(t, "pass")
			},
			"sweep": func(t *rapid.T) { c.source.Sweep(c.now, 100) },
			"await": func(t *rapid.T) {
				for _, w := range c.tickets {
					if !w.awaited {
						c.await(t, w)
						return
					}
				}
			},
			"collect": func(t *rapid.T) {
				l := existing(t)
				if c.sinks[l].waiting {
					t.Skip("one message at a time")
				}
				c.collect(t, l, rapid.IntRange(1, 120).Draw(t, "limit"))
			},
			"arrive": func(t *rapid.T) {
				l := existing(t)
				if !c.sinks[l].waiting {
					t.Skip("nothing under way")
				}
				c.deliver(t, l)
				c.acked(l)
			},
			"the acknowledgement is lost": func(t *rapid.T) {
				l := existing(t)
				if !c.sinks[l].waiting {
					t.Skip("nothing under way")
				}
				c.deliver(t, l)
				c.follow(l, c.sinks[l].ahead)
			},
			"follow": func(t *rapid.T) { // what was under way is lost
				c.follow(list.Draw(t, "list"), rapid.Int64Range(-1, 1).Draw(t, "ahead")*100*second)
			},
			"promote": func(t *rapid.T) {
				f := c.sinks[Follower]
				if f == nil || f.waiting || !f.whole {
					t.Skip("no follower that has been told everything once")
				}
				c.source.Promote(c.slot)
				c.sinks[Backup], c.sinks[Follower] = f, nil
				c.backup(f)
				for _, key := range c.keys {
					if f.had[key] >= c.versions[key] {
						c.unacked[key] = 0
					}
				}
			},
			"unfollow": func(t *rapid.T) {
				l := existing(t)
				acknowledged := rapid.Bool().Draw(t, "acknowledged")
				switch {
				case l == Backup && acknowledged:
					c.alone++
					for _, w := range c.tickets {
						w.ended = true // an Await that comes later may not know of it any more
					}
					clear(c.unacked)
				case l == Backup:
					c.end()
				}
				c.source.Unfollow(c.slot, l, acknowledged)
				c.sinks[l] = nil
				for _, w := range c.tickets {
					require.True(t, l == Follower || !w.awaited || w.answered, "the backup is gone and somebody still waits")
				}
			},
			"drop": func(t *rapid.T) {
				if rapid.IntRange(0, 4).Draw(t, "rarely") > 0 {
					t.Skip()
				}
				c.end()
				c.source.Drop(c.slot)
				c.sinks = [2]*sink{}
				clear(c.versions)
				clear(c.backed)
				require.Zero(t, c.source.shards[slot%shardCount].n)
			},
			"": func(t *rapid.T) {
				c.source.check(t)
				owes, awaited := c.source.Owes(c.slot)
				waiting := false
				for _, w := range c.tickets {
					waiting = waiting || w.awaited && !w.answered
				}
				require.Equal(t, waiting, awaited)
				marked := false
				c.marks.Take(func(s uint16) { marked = marked || s == slot; c.marks.set(s) })
				require.False(t, owes && !marked, "changes are owed in a slot without a mark")
			},
		})
		for l := range c.sinks {
			if c.sinks[l] != nil {
				c.drain(t, List(l))
			}
		}
		for _, w := range c.tickets {
			if !w.awaited {
				c.await(t, w)
			}
		}
		if c.sinks[Backup] != nil {
			owes, awaited := c.source.Owes(slot)
			require.False(t, owes || awaited, "something is owed after everything was told")
		}
		c.end()
		c.source.Unfollow(slot, Backup, false)
		c.source.Unfollow(slot, Follower, false)
		for _, w := range c.tickets {
			require.True(t, w.answered, "never answered")
		}
		c.source.Sweep(c.now+10*second, 100)
		require.Zero(t, c.source.shards[slot%shardCount].n, "what has expired can't be reclaimed")
		c.source.check(t)
	})
}

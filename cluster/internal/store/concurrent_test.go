package store

import (
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cespare/xxhash/v2"
	"github.com/stretchr/testify/require"
)

// witness is a state machine that notes the latest epoch in which a slot may be
// served no more, and fails where something runs in it all the same.
type witness struct {
	ended *[Slots]atomic.Uint64
	late  *atomic.Int64
}

func (w witness) Apply(c Call, s num, op uint16) (num, num, Effect) {
	if c.Epoch <= w.ended[op].Load() {
		w.late.Add(1)
	}
	s.Sum++
	s.Version = int64(c.Epoch)
	return s, s, Effect{Changed: true, Expires: c.Now + 3600*second}
}
func (witness) AppendState(b []byte, s num, now int64) []byte { return nums{}.AppendState(b, s, now) }
func (witness) ParseState(b []byte, now int64) (num, error)   { return nums{}.ParseState(b, now) }
func (witness) AppendOp(b []byte, _ uint16) []byte            { return b }
func (witness) ParseOp([]byte) (op uint16, err error)         { return op, nil }
func (witness) AppendResult(b []byte, _ num) []byte           { return b }
func (witness) ParseResult([]byte) (num, error)               { return num{}, nil }
func (witness) Merge(a, _ num) num                            { return a }

// Once a slot's gate is shut and the slot was flushed, nothing runs in it.
func TestNothingRunsBehindTheGate(t *testing.T) {
	w := witness{new([Slots]atomic.Uint64), new(atomic.Int64)}
	st := New[num, uint16, num](w, 100_000, new(Marks))
	gate := new(Gate)
	slots := []uint16{3, 3 + shardCount, 4} // two of them share a lock
	var ran, refused atomic.Int64
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			slot := slots[i%len(slots)]
			key := []byte(keysOf(slot, 4)[i])
			hash := xxhash.Sum64(key)
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, _, reign := st.run(gate, hash, key, Call{Now: 1}, slot); reign != nil {
					ran.Add(1)
				} else {
					refused.Add(1)
				}
			}
		})
	}
	for epoch := uint64(1); epoch <= 300 || ran.Load() < 1000 || refused.Load() < 100; epoch++ {
		slot := slots[int(epoch)%len(slots)]
		gate.Set(slot, &Reign{Epoch: epoch, Holder: 7, Grant: Forever})
		for before := ran.Load(); epoch%64 == 0 && ran.Load() == before; { // let something run now and then
		}
		gate.Set(slot, nil)
		st.Flush(slot)
		w.ended[slot].Store(epoch)
	}
	close(stop)
	wg.Wait()
	require.Zero(t, w.late.Load(), "operations ran after the gate was shut and the slot flushed")
	total := int64(0)
	st.Range(1, nil, func(_ string, s num) bool { total += s.Sum; return true })
	require.Equal(t, ran.Load(), total, "every operation that was let through counts once")
	st.check(t)
}

func TestGateAndGrant(t *testing.T) {
	gate := new(Gate)
	require.False(t, gate.Open(9, 1))
	g := new(Grant)
	gate.Set(9, &Reign{Epoch: 4, Holder: 8, Grant: g})
	require.False(t, gate.Open(9, 1), "a grant that was never given")
	g.Extend(100)
	require.True(t, gate.Open(9, 99))
	require.False(t, gate.Open(9, 100), "the grant ends at its instant")
	require.False(t, gate.Open(10, 1))
	g.Extend(50)
	require.EqualValues(t, 100, g.Until(), "a grant is never made shorter")
	require.True(t, gate.Get(9).Holds(99))
	require.False(t, gate.Get(9).Holds(100))
	g.End()
	require.False(t, gate.Open(9, 1))

	st := newNums(10, nil)
	key := []byte(keysOf(9, 1)[0])
	_, _, reign := st.run(gate, xxhash.Sum64(key), key, Call{Now: 1}, change{Add: 1, Life: second})
	require.Nil(t, reign)
	require.Zero(t, st.Len(1, nil), "nothing happened")
	g.Extend(100)
	_, _, reign = st.run(gate, xxhash.Sum64(key), key, Call{Now: 1}, change{Add: 1, Life: second})
	require.EqualValues(t, 4, reign.Epoch)
}

// Everything at once: operations, messages to two audiences, promotions, looks,
// sweeps, waiting answers. Each ticket is answered once, and the copy ends up
// equal.
func TestEverythingAtOnce(t *testing.T) {
	st := newNums(100_000, new(Marks))
	slot := uint16(77)
	keys := keysOf(slot, 8)
	st.Follow(slot, Backup, false)
	stop := make(chan struct{})
	var work, wg sync.WaitGroup
	var tickets, answered atomic.Int64
	for i := range 3 {
		work.Go(func() {
			for n := range 1500 {
				op := change{Add: 1, Life: 3600 * second, Wait: n%3 == 0, Spent: 1, Bound: 4}
				if _, ticket := st.do(keys[(i+n)%len(keys)], 1, op); ticket.Wait() {
					tickets.Add(1)
					var once atomic.Bool
					st.Await(slot, ticket, func(bool) {
						if once.Swap(true) {
							t.Error("answered twice")
						}
						answered.Add(1)
					})
				}
			}
		})
	}
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			st.Len(1, func(s uint16) bool { return s == slot })
			st.contents(slot, 1)
			st.Sweep(1, 4)
			st.Peek(xxhash.Sum64String(keys[0]), []byte(keys[0]), 1)
			st.Owes(slot)
			st.marks.Take(func(uint16) {})
		}
	})
	copied := newNums(100_000, nil)
	wg.Go(func() { // what the protocol does: one message a list at a time
		for round := 0; ; round++ {
			select {
			case <-stop:
				return
			default:
			}
			if err := copied.Import(slot, st.collectAll(slot, Backup, 1), 1, false); err != nil {
				t.Error(err)
			}
			st.Acked(slot, Backup)
			if round%10 == 0 {
				st.Follow(slot, Follower, false)
				next := newNums(100_000, nil)
				if err := next.Import(slot, st.collectAll(slot, Follower, 1), 1, false); err != nil {
					t.Error(err)
				}
				st.Acked(slot, Follower)
				st.Promote(slot)
				copied = next
			}
		}
	})
	work.Wait()
	close(stop)
	wg.Wait()
	require.NoError(t, copied.Import(slot, st.collectAll(slot, Backup, 1), 1, false))
	st.Acked(slot, Backup)
	require.Equal(t, st.contents(slot, 1), copied.contents(slot, 1))
	require.Equal(t, tickets.Load(), answered.Load())
	sum := int64(0)
	for _, s := range copied.contents(slot, 1) {
		sum += s.Sum
	}
	require.EqualValues(t, 3*1500, sum)
	st.check(t)
}

func TestMarks(t *testing.T) {
	m := new(Marks)
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for s := i; s < Slots; s += 4 {
				m.set(uint16(s))
			}
		})
	}
	got := map[uint16]int{}
	for range 100 {
		m.Take(func(s uint16) { got[s]++ })
	}
	wg.Wait()
	m.Take(func(s uint16) { got[s]++ })
	require.Len(t, got, Slots)
	for s, n := range got {
		require.Equal(t, 1, n, "slot %d", s)
	}
}

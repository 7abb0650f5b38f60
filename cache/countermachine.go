package cache

import (
	"math"
	"time"

	"github.com/peerlimit/peerlimit/cluster"
)

// counterMachine is the state machine of counters, pure functions.
type counterMachine struct{}

var _ cluster.Machine[counterState, counterOp, counterResult] = counterMachine{}

// What an operation does.
const (
	counterAdd   = 1 // add delta, make the counter for ttl if there is none
	counterGet   = 2
	counterReset = 3 // remove it
	counterUndo  = 4 // remove it if it is the one that was born so
)

type counterOp struct {
	what  byte
	delta int64
	ttl   int64  // ns
	born  uint64 // of counterUndo
}

// What came of it.
const (
	counterNone      = 0 // there is none
	counterThere     = 1 // value and ttl are its own
	counterMade      = 2 // as counterThere, and this operation made it
	counterOverflow  = 3 // nothing was changed
	counterUncertain = 4 // sent again, and whether it was counted can't be told
)

type counterResult struct {
	outcome byte
	value   int64
	ttl     int64 // ns
	born    uint64
}

const (
	// seenFor is for how long an increment is remembered by its ID, so that the
	// same one, sent again because its answer was lost, is not counted twice.
	seenFor = int64(time.Second)
	// seenMax is how many are. One that is sent again after so many others
	// within that time gets counterUncertain. Only those can be sent again whose
	// callers still wait.
	seenMax = 8
	// resetFor is for how long a reset is remembered, so that it also holds for
	// the state that another part of a split network went on with.
	resetFor = int64(time.Minute)
)

// counterState is a counter, or the memory of a reset. The zero value is none.
// It takes about 220 bytes.
type counterState struct {
	value   int64
	expires int64  // instant; 0: none
	born    uint64 // ID of the operation that made it
	bornAt  int64  // instant at which it was made, or was reset
	gone    bool   // it was reset

	// The reign under which it was changed last, and the value that it began
	// with: what two reigns added to one counter can be summed by that.
	epoch, holder uint64
	before        int64

	seen   [seenMax]seenOp
	next   uint8 // place in seen for the next one
	pushed int64 // instant of the last one that was pushed out before its time
}

type seenOp struct {
	id    uint64
	at    int64 // instant; 0: none
	value int64 // what it answered
}

func (s *counterState) live(now int64) bool { return s.expires > now && !s.gone }

// Apply implements cluster.Machine.
func (counterMachine) Apply(c cluster.Call, s counterState, op counterOp) (counterState, counterResult, cluster.Effect) {
	live := s.live(c.Now)
	there := counterResult{}
	if live {
		there = counterResult{outcome: counterThere, value: s.value, ttl: s.expires - c.Now, born: s.born}
	}
	switch op.what {
	case counterAdd:
		return applyAdd(c, s, op, live)
	case counterReset, counterUndo:
		if !live || op.what == counterUndo && s.born != op.born {
			return s, there, cluster.Effect{}
		}
		s = counterState{
			gone: true, bornAt: c.Now, expires: c.Now + resetFor,
			epoch: c.Epoch, holder: c.Holder,
		}
		return s, there, cluster.Effect{Changed: true, Wait: true, Expires: s.expires}
	default:
		return s, there, cluster.Effect{}
	}
}

func applyAdd(c cluster.Call, s counterState, op counterOp, live bool) (counterState, counterResult, cluster.Effect) {
	if c.Again {
		if r, known := s.recall(c); known {
			return s, r, cluster.Effect{}
		}
	}
	outcome := byte(counterThere)
	switch {
	case !live:
		outcome = counterMade
		s = counterState{
			expires: c.Now + op.ttl, born: c.ID, bornAt: c.Now,
			epoch: c.Epoch, holder: c.Holder,
			seen: s.seen, next: s.next, pushed: s.pushed,
		}
	case s.epoch != c.Epoch || s.holder != c.Holder:
		s.epoch, s.holder, s.before = c.Epoch, c.Holder, s.value
	}
	sum := s.value + op.delta
	if (sum > s.value) != (op.delta > 0) && op.delta != 0 {
		return s, counterResult{outcome: counterOverflow, value: s.value}, cluster.Effect{}
	}
	s.value = sum
	s.remember(c)
	r := counterResult{outcome: outcome, value: sum, ttl: s.expires - c.Now, born: s.born}
	return s, r, cluster.Effect{Changed: true, Wait: true, Expires: s.expires}
}

// recall answers an operation that was sent before, if it can't have been
// forgotten.
func (s *counterState) recall(c cluster.Call) (r counterResult, known bool) {
	for _, o := range s.seen {
		if o.at != 0 && o.id == c.ID && o.at > c.Now-seenFor {
			r := counterResult{outcome: counterThere, value: o.value, ttl: s.expires - c.Now, born: s.born}
			if s.born == c.ID {
				r.outcome = counterMade
			}
			return r, true
		}
	}
	if s.pushed != 0 && s.pushed > c.Now-seenFor {
		return counterResult{outcome: counterUncertain}, true
	}
	return r, false
}

func (s *counterState) remember(c cluster.Call) {
	o := &s.seen[s.next%seenMax]
	if o.at != 0 && o.at > c.Now-seenFor {
		s.pushed = c.Now
	}
	*o = seenOp{id: c.ID, at: c.Now, value: s.value}
	s.next = (s.next + 1) % seenMax
}

// Merge implements cluster.Machine: one counter that was served under two reigns
// has what the lower one came to and what the higher one added to what it began
// with. Two that were made independently have the sum of both. A reset holds for
// what was made before it.
func (counterMachine) Merge(a, b counterState) counterState {
	switch {
	case a.expires == 0:
		return b
	case b.expires == 0:
		return a
	}
	if a.epoch > b.epoch || a.epoch == b.epoch && (a.holder > b.holder || a.holder == b.holder && later(a, b)) {
		a, b = b, a // b is of the higher reign
	}
	switch {
	case a.gone && b.gone:
		if a.bornAt > b.bornAt {
			return a
		}
		return b
	case a.gone:
		if a.bornAt > b.bornAt {
			return a
		}
		return b
	case b.gone:
		if b.bornAt >= a.bornAt {
			return b
		}
		return a
	}
	m := b
	switch {
	case a.born != b.born:
		m.value = addSaturated(a.value, b.value)
		m.before = addSaturated(m.before, a.value)
		m.expires = max(a.expires, b.expires)
	case a.epoch == b.epoch && a.holder == b.holder:
		// Two copies of one reign: b is the later.
	default:
		m.value = addSaturated(a.value, addSaturated(b.value, -b.before))
		m.before = a.value
	}
	for _, o := range a.seen {
		if o.at != 0 {
			m.adopt(o)
		}
	}
	m.pushed = max(a.pushed, b.pushed, m.pushed)
	return m
}

// later orders two copies of one reign: that which has seen more.
func later(a, b counterState) bool {
	var at [2]int64
	for i, s := range []counterState{a, b} {
		for _, o := range s.seen {
			at[i] = max(at[i], o.at)
		}
	}
	return at[0] > at[1] || at[0] == at[1] && a.value > b.value
}

// adopt takes in an operation of the other state; the oldest makes room.
func (s *counterState) adopt(o seenOp) {
	oldest := 0
	for i, mine := range s.seen {
		if mine.at != 0 && mine.id == o.id {
			return
		}
		if mine.at < s.seen[oldest].at {
			oldest = i
		}
	}
	if s.seen[oldest].at == 0 || s.seen[oldest].at < o.at {
		o, s.seen[oldest] = s.seen[oldest], o
	}
	if o.at != 0 {
		s.pushed = max(s.pushed, o.at)
	}
	s.next = 0
	for i, mine := range s.seen {
		if mine.at < s.seen[s.next].at {
			s.next = uint8(i)
		}
	}
}

func addSaturated(a, b int64) int64 {
	sum := a + b
	switch {
	case b > 0 && sum < a:
		return math.MaxInt64
	case b < 0 && sum > a:
		return math.MinInt64
	}
	return sum
}

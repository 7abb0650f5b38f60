package ratelimit

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/peerlimit/peerlimit/cluster"
)

// A simulator of leases: one key, a holder with a backup, and members that
// borrow. Time is simulated, and one seed decides all of a run: what is asked
// when, what is lost, late or sent again, who stalls, who dies, when the key is
// reset and when its policy changes. What runs is the limiter's own machine and
// its slices; clocks, network and copies are simulated by the rules of
// package cluster.

const simMs = int64(time.Millisecond)

// leaseFaults says what may happen in a run.
type leaseFaults struct {
	loss, again bool // of messages: lost, sent twice
	slow        bool // some take up to 40 ms
	kills       bool // of the holder
	synced      bool // what members take themselves waits for the backup, so that kills cost nothing
	crashes     bool // of borrowers
	stalls      bool // of borrowers
	resets      bool
	changes     bool // of the policy
	skew        bool // clocks apart, and not at the same rate
}

// leaseBroken are rules left out on purpose.
type leaseBroken struct {
	outlives        bool // a slice does not end
	fromAnswer      bool // its time counts from the answer
	handOutFirst    bool // permits are used before they are lent
	noWait          bool // a grant does not wait for the backup
	returnTwice     bool // a return counts each time that it comes
	lapseFree       bool // what is not returned comes back by itself
	noRecallOnReset bool
	noRecallOnRule  bool
	chargeEarly     bool // a bucket's slice is charged when it is granted
}

type leaseWorld struct {
	rnd    *rand.Rand
	now    int64 // true time, ns
	events eventQueue
	serial int

	policy  Policy // as it is now; members learn of it later
	faults  leaseFaults
	broken  leaseBroken
	holder  *simHolder
	members []*simBorrower

	log    []simEntry
	resets int
	takes  int // take-overs
	lost   int64
	judged int64 // true time of the entry that is being judged
	wrong  []string
}

// simEntry is something that the run is judged by: a use of permits, or the
// window that is open at the holder from then on.
type simEntry struct {
	at, serial int64
	cost       int64 // 0: a window
	limit      int64
	gen        int // resets before the permits were spent
	leased     bool
	start, end int64 // of the window, true time
	reset      bool
}

func (w *leaseWorld) note(e simEntry) {
	w.serial++
	e.serial = int64(w.serial)
	w.log = append(w.log, e)
}

type event struct {
	at     int64
	serial int
	do     func()
}

type eventQueue []event

func (q eventQueue) Len() int { return len(q) }
func (q eventQueue) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].serial < q[j].serial
}
func (q eventQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *eventQueue) Push(x any)   { *q = append(*q, x.(event)) }
func (q *eventQueue) Pop() any {
	old := *q
	e := old[len(old)-1]
	*q = old[:len(old)-1]
	return e
}

func (w *leaseWorld) after(d int64, do func()) {
	w.serial++
	heap.Push(&w.events, event{w.now + d, w.serial, do})
}

func (w *leaseWorld) runUntil(end int64) {
	for len(w.events) > 0 && w.events[0].at <= end {
		e := heap.Pop(&w.events).(event)
		w.now = e.at
		e.do()
	}
	w.now = end
}

// delay of a message: mostly short, at times long.
func (w *leaseWorld) delay() int64 {
	if w.faults.slow && w.rnd.IntN(12) == 0 {
		return w.rnd.Int64N(40 * simMs)
	}
	return simMs/10 + w.rnd.Int64N(2*simMs)
}

// send has do happen at the other end, or not.
func (w *leaseWorld) send(do func()) {
	if w.faults.loss && w.rnd.IntN(30) == 0 {
		return
	}
	w.after(w.delay(), do)
}

// newClock returns a member's clock: what has to be added to the true time, and
// its rate in parts per million.
func (w *leaseWorld) newClock() (offset, ppm int64) {
	if !w.faults.skew {
		return int64(time.Hour), 0
	}
	return int64(time.Hour) + w.rnd.Int64N(int64(time.Hour)), w.rnd.Int64N(401) - 200
}

// simHolder holds the key. Its clock runs at the true rate.
type simHolder struct {
	alive    bool
	offset   int64
	machine  machine
	state    state
	expires  int64
	version  int // of the state
	unacked  []simSpent
	waiting  []simWaiting
	answered map[uint64]result

	// The backup, and the version of its copy; it is safe to kill when the
	// first copy is complete.
	copied      int
	backupState []byte
	backupSince int64
	full        bool
}

type simSpent struct {
	version int
	n       int64
}

type simWaiting struct {
	version int
	answer  func()
}

func (w *leaseWorld) newHolder() *simHolder {
	offset, _ := w.newClock()
	return &simHolder{alive: true, offset: offset, machine: machine{clustered: true}, answered: map[uint64]result{}}
}

func (h *simHolder) clock(w *leaseWorld) int64 { return w.now + h.offset }

// wallOffset makes the wall clock of all the true time.
func (h *simHolder) wallOffset() int64 { return simEpoch - h.offset }

var simEpoch = time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC).UnixNano()

// execute runs an operation and answers it, now or when the backup has it.
func (w *leaseWorld) execute(o op, id uint64, again bool, answer func(result)) {
	h := w.holder
	if !h.alive {
		return
	}
	if res, ok := h.answered[id]; ok && again {
		answer(res)
		return
	}
	now := h.clock(w)
	old := h.state
	if h.expires <= now {
		old = state{}
	}
	call := cluster.Call{Now: now, ID: id, Again: again, WallOffset: h.wallOffset()}
	s, res, e := w.apply(call, old, o)
	if o.kind == opReset && res.allowed() {
		w.resets++
		w.note(simEntry{at: w.now, reset: true})
	}
	if o.kind != opReset && res.flags&(resultNotRun) == 0 && e.Changed {
		w.noteWindow(&s)
	}
	respond := func() {
		h.answered[id] = res
		answer(res)
	}
	if !e.Changed {
		respond()
		return
	}
	h.state, h.expires = s, e.Expires
	h.version++
	version := h.version
	outstanding := e.Spent
	for _, u := range h.unacked {
		outstanding += u.n
	}
	if e.Spent > 0 {
		h.unacked = append(h.unacked, simSpent{version, e.Spent})
	}
	if e.Wait || e.Bound > 0 && outstanding > e.Bound {
		h.waiting = append(h.waiting, simWaiting{version, respond})
		w.after(0, func() { w.copyTo(h) })
		return
	}
	respond()
	w.after(w.rnd.Int64N(20*simMs), func() { w.copyTo(h) })
}

// copyTo sends the state to the backup, in order.
func (w *leaseWorld) copyTo(h *simHolder) {
	if !h.alive || h.copied >= h.version && h.full {
		return
	}
	version, from := h.version, h.clock(w)
	bytes := h.machine.AppendState(nil, h.state, from)
	if h.expires <= from {
		bytes = nil
	}
	w.after(w.delay(), func() {
		if version >= h.copied {
			h.copied, h.backupState, h.full = version, bytes, true
			h.backupSince = w.now
		}
		w.after(w.delay(), func() {
			if !h.alive {
				return
			}
			var left []simSpent
			for _, u := range h.unacked {
				if u.version > version {
					left = append(left, u)
				}
			}
			h.unacked = left
			var waiting []simWaiting
			for _, v := range h.waiting {
				if v.version > version {
					waiting = append(waiting, v)
				} else {
					v.answer()
				}
			}
			h.waiting = waiting
		})
	})
}

// kill ends the holder; its backup takes over after a while.
func (w *leaseWorld) kill() {
	h := w.holder
	if !h.alive || !h.full {
		return
	}
	h.alive = false
	w.takes++
	w.after(115*simMs+w.rnd.Int64N(100*simMs), func() {
		next := w.newHolder()
		if h.backupState != nil {
			// The backup has read it when it came.
			since := h.backupSince + next.offset
			s, err := next.machine.ParseState(h.backupState, since)
			if err != nil {
				panic(err)
			}
			next.state = s
			next.expires = next.clock(w) + int64(time.Hour)
		}
		w.holder = next
		w.copyTo(next)
	})
}

// apply is the machine, with the rules that are broken.
func (w *leaseWorld) apply(c cluster.Call, s state, o op) (state, result, cluster.Effect) {
	mc := w.holder.machine
	m := moment{now: c.Now, wall: c.Now + c.WallOffset}
	l := s.extra.lentOrNil()
	if w.broken.lapseFree && l != nil {
		for _, v := range l.out {
			if v.kept <= m.now {
				settle(&s, &l.rule, m)
				leaseBack(&s, &l.rule, m, &op{id: v.borrower, seq: v.seq, cost: v.permits})
			}
		}
		l = s.extra.lentOrNil()
	}
	if w.broken.noRecallOnReset && o.kind == opReset {
		s.extra = s.extra.withLent(nil)
	}
	if w.broken.noRecallOnRule && l != nil && o.kind < opLease {
		s.extra = s.extra.withLent(&lent{o.rule, l.quiet, l.out})
	}
	if w.broken.returnTwice && o.kind == opReturn && l.find(o.id, o.seq) < 0 && s.kind != kindNone && s.kind != kindGone {
		settle(&s, &o.rule, m)
		giveBack(&s, &o.rule, m, o.cost)
		return s, result{flags: resultAllowed}, cluster.Effect{Changed: true, Expires: m.now + max(whole(&s, m), 1)}
	}
	before := s
	s, res, e := mc.Apply(c, s, o)
	if w.broken.noWait && o.kind == opLease {
		e.Wait = false
	}
	if w.broken.chargeEarly && s.kind == kindBucket && o.kind == opLease && res.allowed() && before.extra.lentOrNil().find(o.id, o.seq) < 0 {
		bucketSpend(&s, m, res.granted)
		l := s.extra.lent
		i := l.find(o.id, o.seq)
		l.out[i].permits = 0
		e.Expires += int64(time.Hour)
	}
	return s, res, e
}

// noteWindow logs the window that is open at the holder.
func (w *leaseWorld) noteWindow(s *state) {
	h := w.holder
	switch s.kind {
	case kindFixed, kindSliding:
		if s.b > 0 || s.c > 0 {
			w.note(simEntry{at: w.now, start: s.a - h.offset, end: s.a + s.d - h.offset})
		}
	case kindCalendar:
		w.note(simEntry{at: w.now, start: s.a - simEpoch, end: s.c - simEpoch})
	}
}

// do carries an operation to the holder and its answer back: sent again after
// 100 ms, given up after 250.
func (w *leaseWorld) do(b *simBorrower, o op, done func(result, bool)) {
	id, life := w.rnd.Uint64(), b.lives()
	over := false
	finish := func(res result, ok bool) {
		if !over && b.lives() == life {
			over = true
			done(res, ok)
		}
	}
	try := func(again bool) {
		if over {
			return
		}
		w.send(func() {
			w.execute(o, id, again, func(res result) { w.send(func() { finish(res, true) }) })
		})
	}
	try(false)
	if w.faults.again && w.rnd.IntN(8) == 0 {
		w.after(w.rnd.Int64N(30*simMs), func() { try(true) })
	}
	w.after(100*simMs, func() { try(true) })
	w.after(200*simMs, func() { try(true) })
	w.after(250*simMs, func() { finish(result{}, false) })
}

func (w *leaseWorld) fault(format string, args ...any) {
	if len(w.wrong) < 5 {
		w.wrong = append(w.wrong, fmt.Sprintf("%v: ", time.Duration(w.judged))+fmt.Sprintf(format, args...))
	}
}

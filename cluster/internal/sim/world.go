package sim

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"

	"github.com/cespare/xxhash/v2"

	"github.com/peerlimit/peerlimit/cluster/internal/possess"
	"github.com/peerlimit/peerlimit/cluster/internal/store"
)

const (
	ms      = int64(1_000_000)
	second  = 1000 * ms
	nSlots  = 6
	perSlot = 2 // keys
	tick    = 5 * ms
)

// Options shape a run.
type Options struct {
	Seed    uint64
	Members int
	Limit   int64   // of every key, in a window that does not end
	Sync    bool    // answers wait for the backup
	Loss    float64 // of the protocol's messages; a connection that loses an operation breaks
	Dup     float64 // of the protocol's messages
	// OpEvery is the time between two calls of one member.
	OpEvery int64
	Broken  possess.Broken
	Trace   bool
}

// World is one run.
type World struct {
	opt     Options
	rng     *rand.Rand
	now     int64
	events  queue
	silence timers // of what was sent
	ends    timers // of calls
	seq     uint64
	members []*member // in the order they were started
	byID    map[possess.ID]*member
	keys    []key
	split   func(a, b possess.ID) bool // whether the link is cut; nil: none is
	splits  int
	stopped bool // no new calls

	// What happened.
	Takeovers   map[uint16]int
	Unavailable int // calls that nobody answered in time
	Slow        int64
	Calls       int
	Resent      int // operations that may have run twice
	Violations  []string
	trace       []string

	wire []byte // the memory of the latest messages
}

type key struct {
	name     string
	hash     uint64
	slot     uint16
	admitted int64
	unknown  int64 // operations that may have been admitted without anybody having been told
}

// keyNames are keys that fall into the first slots, found once.
var keyNames = sync.OnceValue(func() [][]string {
	names := make([][]string, nSlots)
	for i, found := 0, 0; found < nSlots*perSlot; i++ {
		name := "key:" + strconv.Itoa(i)
		if s := xxhash.Sum64String(name) % store.Slots; s < nSlots && len(names[s]) < perSlot {
			names[s] = append(names[s], name)
			found++
		}
	}
	return names
})

// New returns a world with its first members started all at once.
func New(opt Options) *World {
	w := &World{
		opt: opt, rng: rand.New(rand.NewPCG(opt.Seed, 1)), byID: map[possess.ID]*member{},
		Takeovers: map[uint16]int{},
	}
	for s, names := range keyNames() {
		for _, name := range names {
			w.keys = append(w.keys, key{name: name, hash: xxhash.Sum64String(name), slot: uint16(s)})
		}
	}
	for range opt.Members {
		w.Join()
	}
	return w
}

// after has the world do something.
func (w *World) after(d int64, do func()) { w.receives(d, nil, do) }

// receives has a member receive something, now or when it runs again.
func (w *World) receives(d int64, to *member, do func()) {
	w.seq++
	w.events.push(event{w.now + d, w.seq, to, do})
}

// between returns a random duration.
func (w *World) between(a, b int64) int64 { return a + w.rng.Int64N(b-a+1) }

// Run lets virtual time pass.
func (w *World) Run(d int64) {
	end := w.now + d
	for w.step(end) {
	}
	w.now = end
}

// step does what comes next, unless that is after end.
func (w *World) step(end int64) bool {
	var from *timers
	at, seq := end, ^uint64(0)
	for _, l := range [...]*timers{&w.silence, &w.ends} {
		if t := l.next(); t != nil && (t.at < at || t.at == at && t.seq < seq) {
			from, at, seq = l, t.at, t.seq
		}
	}
	if len(w.events) > 0 && w.events[0].before(at, seq) {
		e := w.events.pop()
		w.now = e.at
		if e.to == nil {
			e.do()
		} else {
			e.to.receive(e.do)
		}
		return true
	}
	if from == nil {
		return false
	}
	t := from.queue[from.head]
	from.head++
	w.now = t.at
	if m := t.c.by; m.paused {
		m.receive(func() { m.timeout(t) })
	} else if !m.dead {
		m.timeout(t)
	}
	return true
}

func (w *World) tracef(format string, args ...any) {
	if w.opt.Trace {
		w.trace = append(w.trace, fmt.Sprintf("%8.1f ", float64(w.now)/1e6)+fmt.Sprintf(format, args...))
	}
}

func (w *World) violate(format string, args ...any) {
	v := fmt.Sprintf(format, args...)
	w.tracef("VIOLATION %s", v)
	if len(w.Violations) < 10 {
		w.Violations = append(w.Violations, v)
	}
}

// Trace returns what was noted, with Options.Trace.
func (w *World) Trace() []string { return w.trace }

// Up returns the members that have not died or left.
func (w *World) Up() []*member {
	var up []*member
	for _, m := range w.members {
		if !m.dead {
			up = append(up, m)
		}
	}
	return up
}

// Pick returns a random living member that is not draining.
func (w *World) Pick() *member {
	up := slices.DeleteFunc(w.Up(), func(m *member) bool { return m.draining || m.paused })
	return up[w.rng.IntN(len(up))]
}

// transmit carries something over the network, a message of the protocol where
// lost is nil. dst is who has the boot ID to, if anybody.
func (w *World) transmit(from, to possess.ID, dst *member, deliver, lost func()) {
	if w.split != nil && w.split(from, to) {
		return
	}
	if dst == nil || dst.dead {
		if lost != nil {
			w.after(w.delay(), lost) // the connection is reset
		}
		return
	}
	if lost == nil && w.rng.Float64() < w.opt.Loss {
		return
	}
	n := 1
	if lost == nil && w.rng.Float64() < w.opt.Dup {
		n = 2 // of the protocol's messages; a connection delivers an operation once
	}
	for range n {
		w.receives(w.delay(), dst, deliver)
	}
}

// encode returns msg's encoding. Messages are small and many, and share memory.
func (w *World) encode(msg possess.Message) []byte {
	if cap(w.wire)-len(w.wire) < 4<<10 {
		w.wire = make([]byte, 0, 32<<10)
	}
	n := len(w.wire)
	w.wire = possess.Append(w.wire, msg)
	return w.wire[n:len(w.wire):len(w.wire)]
}

// delay keeps round trips under 16 ms.
func (w *World) delay() int64 {
	if w.rng.IntN(4) > 0 {
		return w.between(ms/20, ms)
	}
	return w.between(ms/20, 8*ms-1)
}

package sim

import (
	"container/heap"
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
	events  eventHeap
	seq     uint64
	members []*member // in the order they were started
	byID    map[possess.ID]*member
	nextID  possess.ID
	keys    []key
	split   func(a, b possess.ID) bool // whether the link is cut
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
	inFlight    map[string]int // most operations under way at a death, a key
}

type key struct {
	name     string
	hash     uint64
	slot     uint16
	admitted int64
	unknown  int64 // operations that may have been admitted without anybody having been told
}

type event struct {
	at  int64
	seq uint64
	do  func()
}

type eventHeap []event

func (h eventHeap) Len() int { return len(h) }
func (h eventHeap) Less(i, j int) bool {
	return h[i].at < h[j].at || h[i].at == h[j].at && h[i].seq < h[j].seq
}
func (h eventHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *eventHeap) Push(x any)   { *h = append(*h, x.(event)) }
func (h *eventHeap) Pop() any {
	old := *h
	e := old[len(old)-1]
	old[len(old)-1] = event{}
	*h = old[:len(old)-1]
	return e
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
		split: func(a, b possess.ID) bool { return false }, Takeovers: map[uint16]int{}, nextID: 1,
		inFlight: map[string]int{},
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

func (w *World) at(t int64, do func()) {
	w.seq++
	heap.Push(&w.events, event{t, w.seq, do})
}

func (w *World) after(d int64, do func()) { w.at(w.now+d, do) }

// between returns a random duration.
func (w *World) between(a, b int64) int64 { return a + w.rng.Int64N(b-a+1) }

// Run lets virtual time pass.
func (w *World) Run(d int64) {
	end := w.now + d
	for len(w.events) > 0 && w.events[0].at <= end {
		e := heap.Pop(&w.events).(event)
		w.now = e.at
		e.do()
	}
	w.now = end
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

// transmit carries a message over the network.
func (w *World) transmit(from, to possess.ID, deliver func(m *member), lost func()) {
	if w.split(from, to) {
		return
	}
	dst := w.byID[to]
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
		w.after(w.delay(), func() { dst.receive(func() { deliver(dst) }) })
	}
}

// delay keeps round trips under 16 ms.
func (w *World) delay() int64 {
	if w.rng.IntN(4) > 0 {
		return w.between(ms/20, ms)
	}
	return w.between(ms/20, 8*ms-1)
}

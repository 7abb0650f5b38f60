package sim

import "github.com/peerlimit/peerlimit/cluster/internal/possess"

// Scenario is a kind of bad day.
type Scenario struct {
	Name string
	// Planned: nothing may be lost and nobody may go without an answer.
	Planned bool
	// Single: one fault at a time, in which every call is answered.
	Single bool
	Do     func(w *World)
}

// Scenarios are the kinds of bad days.
var Scenarios = []Scenario{
	{"steady", true, true, func(w *World) { w.Run(second) }},
	{"join", true, true, func(w *World) { w.Join(); w.Run(2 * second) }},
	{"three join at once", true, true, func(w *World) { w.Join(); w.Join(); w.Join(); w.Run(2500 * ms) }},
	{"leave", true, true, func(w *World) { w.Leave(w.Pick()); w.Run(2 * second) }},
	{"two leave at once", true, true, func(w *World) {
		w.Join()
		w.Join()
		w.Run(2 * second)
		w.Leave(w.Pick())
		w.Leave(w.Pick())
		w.Run(2500 * ms)
	}},
	{"leave down to one", true, true, func(w *World) {
		for len(w.Up()) > 1 {
			w.Leave(w.Up()[0])
			w.Run(w.between(300*ms, 1500*ms))
		}
		w.Run(second)
	}},
	{"surge: one joins as another leaves", true, true, func(w *World) {
		for range 3 {
			w.Join()
			w.Run(w.between(0, 400*ms))
			w.Leave(w.Pick())
			w.Run(w.between(500*ms, 1500*ms))
		}
	}},
	{"rolling restart", true, true, func(w *World) {
		for range w.opt.Members {
			w.Leave(w.Up()[0])
			w.Run(1500 * ms)
			w.Join()
			w.Run(w.between(200*ms, 1500*ms))
		}
	}},
	{"kill", false, true, func(w *World) { w.Kill(w.Pick()); w.Run(3500 * ms) }},
	{"kill and rebirth", false, true, func(w *World) { w.Rebirth(w.Pick(), w.between(20*ms, second)); w.Run(3500 * ms) }},
	{"stall", false, true, func(w *World) {
		d := []int64{160 * ms, 200 * ms, 300 * ms, 600 * ms, 2 * second, 4 * second}[w.rng.IntN(6)]
		w.Stall(w.Pick(), d)
		w.Run(d + 2*second)
	}},
	{"join and kill", false, false, func(w *World) { w.Join(); w.Run(w.between(0, 600*ms)); w.Kill(w.Pick()); w.Run(3500 * ms) }},
	{"join and stall", false, false, func(w *World) {
		w.Join()
		w.Run(w.between(0, 600*ms))
		w.Stall(w.Pick(), w.between(150*ms, 3*second))
		w.Run(4 * second)
	}},
	{"leave and kill", false, false, func(w *World) { w.Leave(w.Pick()); w.Run(w.between(0, 600*ms)); w.Kill(w.Pick()); w.Run(3500 * ms) }},
	{"leave and stall", false, false, func(w *World) {
		w.Leave(w.Pick())
		w.Run(w.between(0, 600*ms))
		w.Stall(w.Pick(), w.between(150*ms, 3*second))
		w.Run(4 * second)
	}},
	{"stall in the middle of a move", false, false, func(w *World) { w.stallMoving(150*ms, 800*ms) }},
	{"short stall in the middle of a move", false, false, func(w *World) {
		w.opt.OpEvery /= 4 // who serves wrongly does for some ms
		w.stallMoving(100*ms, 200*ms)
	}},
	{"link between two cut", false, false, func(w *World) {
		// Both see all others, so it is no split, and nobody serves twice.
		a, b := w.Pick(), w.Pick()
		w.split = func(x, y possess.ID) bool { return x == a.id && y == b.id || x == b.id && y == a.id }
		w.Run(w.between(200*ms, 2*second))
		w.split = nil
		w.Run(2 * second)
	}},
	{"two kills in turn", false, false, func(w *World) {
		w.Kill(w.Pick())
		w.Run(5 * second)
		if len(w.Up()) > 2 {
			w.Kill(w.Pick())
			w.Run(4 * second)
		}
	}},
	{"split", false, false, func(w *World) {
		side := map[possess.ID]bool{}
		up := w.Up()
		for _, m := range up[:1+w.rng.IntN(len(up)-1)] {
			side[m.id] = true
		}
		d := w.between(500*ms, 8*second)
		w.Split(side, d)
		w.Run(d + 4*second)
	}},
}

// Run runs a scenario from a seed.
func Run(s Scenario, opt Options) *World {
	w := New(opt)
	w.Run(2 * second)
	s.Do(w)
	w.Settle(s.Planned && opt.Loss == 0)
	if s.Single && w.Unavailable > 0 && opt.Loss == 0 {
		w.violate("%d calls unanswered", w.Unavailable)
	}
	return w
}

// stallMoving has somebody join, and one that moves a slot just then stand still
// for a time.
func (w *World) stallMoving(least, most int64) {
	w.Join()
	for range 500 {
		w.Run(ms)
		for _, m := range w.Up() {
			if m.machine.Moving() {
				w.Run(w.between(0, 4*ms))
				d := w.between(least, most)
				w.Stall(m, d)
				w.Run(d + 2*second)
				return
			}
		}
	}
}

package sim

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/peerlimit/peerlimit/cluster/internal/possess"
)

func sortedCalls(calls []*call) []*call {
	return slices.SortedFunc(slices.Values(calls), func(a, b *call) int { return cmp.Compare(a.id, b.id) })
}

// Settle lets things come to rest, spends what is left of every limit and
// checks what must hold: one holder a slot, who is the ring's first, and the
// number admitted between the bounds.
func (w *World) Settle(planned bool) {
	w.stopped = true
	for i := 0; i < 60; i++ { // a merge may wait for others to be seen again
		w.Run(100 * ms)
		if i >= 15 && w.settled() {
			break
		}
	}
	for slot := range uint16(nSlots) {
		var holders []possess.ID
		for _, m := range w.Up() {
			if m.gate.Open(slot, m.clock()) {
				holders = append(holders, m.id)
			}
		}
		if len(holders) != 1 {
			w.violate("slot %d has holders %x at the end", slot, holders)
		}
	}
	for _, m := range w.Up() {
		if !m.machine.Settled() {
			w.violate("%x is not settled at the end", m.id)
			if w.opt.Trace {
				for slot := range uint16(nSlots) {
					w.tracef("%x slot %d: %s", m.id, slot, m.machine.Describe(slot))
				}
			}
		}
	}
	unavailable := w.Unavailable
	for round := 0; round < 3; round++ {
		for i := range w.keys {
			more := int64(3)
			if round == 0 {
				more += w.opt.Limit - w.keys[i].admitted
			}
			for range more {
				w.Pick().call(i)
			}
		}
		w.Run(300 * ms)
	}
	if w.Unavailable > unavailable {
		w.violate("%d calls unanswered at rest", w.Unavailable-unavailable)
	}
	for i := range w.keys {
		k := &w.keys[i]
		high := w.opt.Limit
		if !w.opt.Sync {
			high += int64(w.Takeovers[k.slot]) * max(1, w.opt.Limit/100)
		}
		low := w.opt.Limit - k.unknown
		if planned && (k.admitted != w.opt.Limit) || k.admitted < low || k.admitted > high && w.splits == 0 {
			w.violate("key %s of slot %d: %d admitted of %d, want %d to %d (%d take-overs, %d operations unknown)",
				k.name, k.slot, k.admitted, w.opt.Limit, low, high, w.Takeovers[k.slot], k.unknown)
		}
	}
}

// settled reports whether every member is where it should be.
func (w *World) settled() bool {
	for _, m := range w.Up() {
		if !m.machine.Settled() {
			return false
		}
	}
	return true
}

func (w *World) String() string {
	return fmt.Sprintf("seed %d: %d calls, %d unanswered, slowest %d ms, take-overs %v", w.opt.Seed, w.Calls, w.Unavailable, w.Slow/ms, w.Takeovers)
}

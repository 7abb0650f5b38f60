package ratelimit

import (
	"sync/atomic"
	"time"
)

// How much a key has to be asked for to be worth a slice.
const (
	// hotAfter calls to a holder within hotWithin make a key hot.
	hotAfter  = 32
	hotWithin = int64(100 * time.Millisecond)
	// coolBelow permits in 100 ms end it.
	coolBelow = 16
	// firstWant is how many permits are asked for first; later as many as were
	// used, but not more than growth times as many as the time before.
	firstWant = 64
	growth    = 8
)

// sketch counts how often keys were asked for in the present tenth of a second:
// a count-min sketch (Cormode and Muthukrishnan, "An improved data stream
// summary: the count-min sketch and its applications", 2005) of two rows. It
// takes 64 KiB whatever the number of keys, and may count too much, never too
// little: then a cold key gets a slice it does not need, and gives it back.
type sketch struct{ rows [2][sketchWidth]atomic.Uint64 }

const sketchWidth = 4096

// count counts one more and returns how many there were. Concurrent counts may
// lose one of each other where a new tenth begins.
func (s *sketch) count(hash uint64, now int64) uint32 {
	tenth := uint64(now/hotWithin+1) << 32
	n := count(&s.rows[0][hash%sketchWidth], tenth)
	return min(n, count(&s.rows[1][hash>>32%sketchWidth], tenth))
}

func count(word *atomic.Uint64, tenth uint64) uint32 {
	for {
		old := word.Load()
		next := tenth + 1
		if old&^(1<<32-1) == tenth {
			next = old + 1
		}
		if word.CompareAndSwap(old, next) {
			return uint32(next)
		}
	}
}

// wanted returns how many permits to ask for when used of them were used within
// elapsed ns and the last slice had last: as many as a slice's time takes, and a
// quarter more.
func wanted(used, elapsed, last int64) int64 {
	n, _ := mul(used, leaseFor+leaseFor/4).div(max(elapsed, 1), MaxLimit)
	return max(min(n, growth*max(last, firstWant), MaxLimit), leaseLeast)
}

// cool reports whether used permits within elapsed ns are too few.
func cool(used, elapsed int64) bool {
	return mul(used, leaseFor).less(mul(coolBelow, elapsed))
}

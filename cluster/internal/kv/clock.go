package kv

import (
	"sync/atomic"
	"time"
)

// maxSkew is how far another member's clock may be ahead and still be
// followed. Following a clock that is a year ahead would expire everything.
const maxSkew = time.Minute

// clock is the cluster's clock as this member knows it: its own, moved forward
// by what the fastest clock it has heard of is ahead. Members exchange it
// whenever they open a connection, so theirs agree to about a round trip even
// where their wall clocks are seconds apart. Versions and expiries are instants
// on it, in nanoseconds since 1970.
//
// Its own part is monotonic: a wall clock that is set does not move it.
type clock struct {
	base     time.Time
	baseNano int64
	ahead    atomic.Int64
}

func newClock() *clock {
	now := time.Now()
	return &clock{base: now, baseNano: now.UnixNano()}
}

func (c *clock) now() int64 {
	return c.baseNano + int64(time.Since(c.base)) + c.ahead.Load()
}

// observe takes in another member's clock. It returns false where that is so
// far ahead that it is not believed.
func (c *clock) observe(other int64) bool {
	for {
		ahead := c.ahead.Load()
		d := other - (c.baseNano + int64(time.Since(c.base)) + ahead)
		switch {
		case d <= 0:
			return true
		case d > int64(maxSkew):
			return false
		case c.ahead.CompareAndSwap(ahead, ahead+d):
			return true
		}
	}
}

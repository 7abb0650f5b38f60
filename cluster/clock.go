package cluster

import (
	"sync/atomic"
	"time"
)

// clock is a member's monotonic clock in nanoseconds, always above zero, and
// what has to be added to it to get the wall clock.
type clock struct {
	base     time.Time
	injected func() int64

	// offset is refreshed once a second, so that a wall clock which is set
	// right is followed without reading it for every operation.
	offset, refreshed atomic.Int64
}

// newClock returns a clock; injected replaces it in tests: nanoseconds since
// 1970, both clocks in one.
func newClock(injected func() int64) *clock {
	c := &clock{base: time.Now().Add(-time.Nanosecond), injected: injected}
	if injected == nil {
		c.refresh(c.now())
	}
	return c
}

func (c *clock) now() int64 {
	if c.injected != nil {
		return c.injected()
	}
	return int64(time.Since(c.base))
}

func (c *clock) wallOffset(now int64) int64 {
	if c.injected == nil && now-c.refreshed.Load() > int64(time.Second) {
		c.refresh(now)
	}
	return c.offset.Load()
}

func (c *clock) refresh(now int64) {
	c.refreshed.Store(now)
	c.offset.Store(time.Now().UnixNano() - now)
}

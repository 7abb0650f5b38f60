package auth

import "time"

// moment is one reading of both clocks, in nanoseconds.
type moment struct {
	mono int64 // since the Authenticator was made, on the monotonic clock
	wall int64 // since 1970, on the wall clock
}

// clock reads both clocks in one call of time.Now (42 ns where this was written).
//
// Whether a confirmation is old has to be told by a clock that runs while the process is stopped. The monotonic
// clock does (a SIGSTOP does not stop it), but not while the whole machine sleeps; the wall clock does then too. So
// both have to agree: see moment.within. CLOCK_BOOTTIME would tell the same in one number, but Go reads it by a
// system call: 216 ns, more than all the rest of a cached verification.
type clock struct {
	now  func() time.Time
	base time.Time
}

func newClock(now func() time.Time) clock { return clock{now, now()} }

func (c *clock) read() moment {
	t := c.now()
	return moment{int64(t.Sub(c.base)), t.UnixNano()}
}

// within reports whether less than d has passed from m to now by both clocks. A clock that is behind m counts as too
// long: a wall clock that was set back could hide a sleep.
func (m *moment) within(now moment, d time.Duration) bool {
	return uint64(now.mono-m.mono) < uint64(d) && uint64(now.wall-m.wall) < uint64(d)
}

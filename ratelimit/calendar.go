package ratelimit

import (
	"sync/atomic"
	"time"
)

// Alignment makes a fixed window one of the calendar's.
type Alignment uint8

// The windows of a calendar. A week begins on Monday (ISO 8601).
const (
	Unaligned Alignment = iota // a window starts at the first hit
	Second
	Minute
	Hour
	Day
	Week
	Month
)

var alignmentNames = [...]string{"", "second", "minute", "hour", "day", "week", "month"}

// String returns the name that JSON and YAML use; empty for Unaligned.
func (a Alignment) String() string {
	if int(a) < len(alignmentNames) {
		return alignmentNames[a]
	}
	return "invalid"
}

// ParseAlignment is the inverse of String.
func ParseAlignment(s string) (Alignment, error) {
	for i, name := range alignmentNames {
		if s == name {
			return Alignment(i), nil
		}
	}
	return 0, badField("align", "must be second, minute, hour, day, week or month, is %.40q", s)
}

// Calendar window: a fixed window whose edges are those of the calendar in a
// time zone. The caller computes the edges around its own now, and the holder
// picks the window that its wall clock lies in, so that one clock decides and
// no member needs another's time zones. Wall clocks of members are taken to be
// within a second of one another.
//
// An open window stays open until its end as last written: if a caller brings
// another time zone or alignment, what was used is kept and the window takes
// the new edges. A wall clock that is set back does not open the last window
// again.
//
//	a  start of the window     b  permits spent in it
//	c  end of the window       d  –
//
// a and c are wall-clock instants in ns since 1970.

// windows are the edges of calendar windows around some instant.
type windows struct {
	// For windows of one length: the length, and what the zone is ahead of
	// UTC by, both in ns.
	unit, ahead int64
	// Else three windows: before, current, after.
	edges [4]int64
}

// at returns the window that wall lies in. Outside of the three known windows
// it goes on in steps as long as the outermost one.
func (w *windows) at(wall int64) (start, end int64) {
	if w.unit > 0 {
		return windowOf(wall, -w.ahead, w.unit)
	}
	e := &w.edges
	switch {
	case wall < e[0]:
		return windowOf(wall, e[0], e[1]-e[0])
	case wall < e[1]:
		return e[0], e[1]
	case wall < e[2]:
		return e[1], e[2]
	case wall < e[3]:
		return e[2], e[3]
	}
	return windowOf(wall, e[3], e[3]-e[2])
}

// windowOf returns the window of length unit, counted from origin, that t lies in.
func windowOf(t, origin, unit int64) (start, end int64) {
	past := (t - origin) % unit
	if past < 0 {
		past += unit
	}
	return t - past, t - past + unit
}

// valid says whether windows that came from outside can be used.
func (w *windows) valid() bool {
	const far = 1 << 62 // ns: the years 1823 to 2116
	if w.unit != 0 {
		return w.unit > 0 && w.unit <= int64(MaxPeriod) && -far < w.ahead && w.ahead < far
	}
	e := &w.edges
	return -far < e[0] && e[0] < e[1] && e[1] < e[2] && e[2] < e[3]
}

func newWindows(a Alignment, loc *time.Location, now time.Time) *windows {
	now = now.In(loc)
	_, ahead := now.Zone()
	switch a {
	case Second:
		return &windows{unit: int64(time.Second)}
	case Minute:
		return &windows{unit: int64(time.Minute), ahead: int64(ahead) * int64(time.Second)}
	case Hour:
		return &windows{unit: int64(time.Hour), ahead: int64(ahead) * int64(time.Second)}
	}
	w := new(windows)
	for i := range w.edges {
		w.edges[i] = edge(a, now, i-1).UnixNano()
	}
	return w
}

// edge returns the start of the window n windows after the one now lies in.
func edge(a Alignment, now time.Time, n int) time.Time {
	year, month, day := now.Date()
	switch a {
	case Week:
		day -= (int(now.Weekday()) + 6) % 7
		day += 7 * n
	case Month:
		month, day = month+time.Month(n), 1
	default:
		day += n
	}
	return startOfDay(year, month, day, now.Location())
}

// startOfDay returns the first instant of a day. Where the clocks go forward at
// midnight there is no 00:00, and time.Date answers with an instant of the day
// before or of 01:00; the day then starts at the change itself.
func startOfDay(year int, month time.Month, day int, loc *time.Location) time.Time {
	t := time.Date(year, month, day, 0, 0, 0, 0, loc)
	noon := time.Date(year, month, day, 12, 0, 0, 0, loc)
	if t.Day() == noon.Day() {
		if start, _ := t.ZoneBounds(); !start.IsZero() && start.Before(t) && start.Day() == noon.Day() {
			return start
		}
		return t
	}
	_, change := t.ZoneBounds()
	return change
}

// calendars keeps the windows of the alignments and zones in use, so that they
// are computed once a window and not once a call.
type calendars struct {
	known atomic.Pointer[[]calendarEntry]
}

type calendarEntry struct {
	align   Alignment
	loc     *time.Location
	until   int64 // wall clock, ns; the windows are good until then
	windows *windows
}

func (c *calendars) get(a Alignment, loc *time.Location, now time.Time) *windows {
	if loc == nil {
		loc = time.UTC
	}
	var old []calendarEntry
	known := c.known.Load()
	if known != nil {
		old = *known
	}
	wall := now.UnixNano()
	for i := range old {
		if e := &old[i]; e.align == a && e.loc == loc && wall < e.until && wall >= e.until-int64(time.Hour) {
			return e.windows
		}
	}
	fresh := make([]calendarEntry, 0, len(old)+1)
	for _, e := range old {
		if (e.align != a || e.loc != loc) && wall < e.until {
			fresh = append(fresh, e)
		}
	}
	w := newWindows(a, loc, now)
	fresh = append(fresh, calendarEntry{a, loc, goodUntil(w, wall), w})
	c.known.CompareAndSwap(known, &fresh) // another's is as good
	return w
}

// goodUntil is when windows must be computed again: at the end of the current
// one, and every quarter of an hour, in which a zone may change its offset.
func goodUntil(w *windows, wall int64) int64 {
	_, end := windowOf(wall, 0, int64(15*time.Minute))
	if w.unit == 0 {
		end = min(end, w.edges[2])
	}
	return end
}

func calendarSettle(s *state, r *rule, m moment) {
	start, end := r.calendar.at(m.wall)
	switch {
	case s.b == 0 || m.wall >= s.c:
		s.a, s.b, s.c = start, 0, end
	case end == s.a:
		// The wall clock went back over an edge: stay in the later window.
	default:
		s.a, s.c = start, end
	}
}

func calendarUsed(s *state, m moment) int64 {
	if m.wall >= s.c {
		return 0
	}
	return s.b
}

func calendarCharge(s *state, n int64) { s.b = addPermits(s.b, n) }

func calendarWhole(s *state, m moment) int64 {
	if s.b == 0 {
		return 0
	}
	return max(s.c-m.wall, 1)
}

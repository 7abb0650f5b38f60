package ratelimit

import (
	"fmt"
	"math/big"
	"math/rand/v2"
	"testing"
	"time"
)

func zone(t testing.TB, name string) *time.Location {
	t.Helper()
	loc, err := time.LoadLocation(name)
	if err != nil {
		t.Skipf("no time zones on this system: %v", err)
	}
	return loc
}

func TestCalendarEdges(t *testing.T) {
	for _, c := range []struct {
		align      Alignment
		zone, at   string
		start, end string
	}{
		{Second, "UTC", "2026-03-01T10:20:30Z", "2026-03-01T10:20:30Z", "2026-03-01T10:20:31Z"},
		{Minute, "UTC", "2026-03-01T10:20:30Z", "2026-03-01T10:20:00Z", "2026-03-01T10:21:00Z"},
		{Hour, "UTC", "2026-03-01T10:20:30Z", "2026-03-01T10:00:00Z", "2026-03-01T11:00:00Z"},
		{Hour, "Asia/Kolkata", "2026-03-01T10:20:30Z", "2026-03-01T09:30:00Z", "2026-03-01T10:30:00Z"},
		{Day, "UTC", "2026-03-01T23:59:59Z", "2026-03-01T00:00:00Z", "2026-03-02T00:00:00Z"},
		{Day, "America/New_York", "2026-03-01T02:00:00Z", "2026-02-28T05:00:00Z", "2026-03-01T05:00:00Z"},
		// 23 and 25 hours: the clocks change in Berlin.
		{Day, "Europe/Berlin", "2026-03-29T12:00:00Z", "2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z"},
		{Day, "Europe/Berlin", "2026-10-25T12:00:00Z", "2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z"},
		// The day begins at 01:00, the clocks go forward at midnight.
		{Day, "Africa/Cairo", "2026-04-24T12:00:00Z", "2026-04-23T22:00:00Z", "2026-04-24T21:00:00Z"},
		{Day, "America/Havana", "2026-03-08T12:00:00Z", "2026-03-08T05:00:00Z", "2026-03-09T04:00:00Z"},
		// Midnight comes twice.
		{Day, "America/Havana", "2026-11-01T12:00:00Z", "2026-11-01T04:00:00Z", "2026-11-02T05:00:00Z"},
		{Week, "UTC", "2026-03-01T12:00:00Z", "2026-02-23T00:00:00Z", "2026-03-02T00:00:00Z"}, // a Sunday
		{Week, "UTC", "2026-03-02T00:00:00Z", "2026-03-02T00:00:00Z", "2026-03-09T00:00:00Z"}, // a Monday
		{Month, "UTC", "2028-02-29T12:00:00Z", "2028-02-01T00:00:00Z", "2028-03-01T00:00:00Z"},
		{Month, "UTC", "2026-12-31T23:59:59Z", "2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z"},
		{Month, "Asia/Tokyo", "2026-12-31T23:59:59Z", "2026-12-31T15:00:00Z", "2027-01-31T15:00:00Z"},
	} {
		t.Run(fmt.Sprintf("%s %s %s", c.align, c.zone, c.at), func(t *testing.T) {
			at, err := time.Parse(time.RFC3339, c.at)
			if err != nil {
				t.Fatal(err)
			}
			start, end := newWindows(c.align, zone(t, c.zone), at).at(at.UnixNano())
			if got := time.Unix(0, start).UTC().Format(time.RFC3339); got != c.start {
				t.Errorf("start %s, want %s", got, c.start)
			}
			if got := time.Unix(0, end).UTC().Format(time.RFC3339); got != c.end {
				t.Errorf("end %s, want %s", got, c.end)
			}
		})
	}
}

// Windows that a caller computed serve a holder whose clock is in the window
// before or after, and go on beyond that.
func TestCalendarEdgesFromAnotherClock(t *testing.T) {
	loc := zone(t, "Europe/Berlin")
	at := time.Date(2026, 3, 28, 12, 0, 0, 0, loc)
	for _, align := range []Alignment{Second, Minute, Hour, Day, Week, Month} {
		w := newWindows(align, loc, at)
		for _, ahead := range []int{-1, 0, 1} {
			other := at
			switch align {
			case Day:
				other = at.AddDate(0, 0, ahead)
			case Week:
				other = at.AddDate(0, 0, 7*ahead)
			case Month:
				other = time.Date(2026, 3+time.Month(ahead), 15, 0, 0, 0, 0, loc)
			}
			start, end := w.at(other.UnixNano())
			wantStart, wantEnd := newWindows(align, loc, other).at(other.UnixNano())
			if start != wantStart || end != wantEnd {
				t.Errorf("%s, %d ahead: [%d, %d), want [%d, %d)", align, ahead, start, end, wantStart, wantEnd)
			}
		}
		for _, years := range []int{-3, 3} {
			far := at.AddDate(years, 0, 0).UnixNano()
			if start, end := w.at(far); far < start || far >= end {
				t.Errorf("%s: %d years off is not in its window [%d, %d)", align, years, start, end)
			}
		}
	}
}

func TestCalendarSteps(t *testing.T) {
	const h = time.Hour
	p := Calendar("p", 5, Day, nil)
	runSteps(t, p, []step{ // from 12:00 UTC
		{0, 3, true, 2, 0, 12 * h, 12 * h},
		{11 * h, 3, false, 2, 1 * h, 1 * h, 1 * h},
		{1*h - 1, 2, true, 0, 0, 1, 1},
		{1, 5, true, 0, 0, 24 * h, 24 * h},
	})
}

// A wall clock that is set back over an edge does not open the old window
// again; one that was wrong by more is followed, and keeps what was used.
func TestCalendarClockSetBack(t *testing.T) {
	p := Calendar("p", 5, Hour, nil)
	c := newCell(t)
	c.take(p, 5)
	c.advance(time.Hour)
	if r := c.take(p, 4); !r.allowed() {
		t.Fatal("next hour: denied")
	}
	c.wall -= int64(10 * time.Minute)
	if r := c.take(p, 2); r.allowed() || time.Duration(r.retry) != 70*time.Minute {
		t.Fatalf("set back over the edge: %+v", r)
	}
	if r := c.take(p, 1); !r.allowed() {
		t.Fatal("set back over the edge: the fifth was denied")
	}
	c.wall += int64(365 * 24 * time.Hour)
	if r := c.take(p, 5); !r.allowed() {
		t.Fatal("a year on: denied")
	}
	c.wall -= int64(365 * 24 * time.Hour)
	if r := c.take(p, 1); r.allowed() || time.Duration(r.retry) > time.Hour {
		t.Fatalf("a year back: %+v, want what was used kept, for an hour at most", r)
	}
}

// calendarModel keeps every permit with the window it was granted in.
type calendarModel struct {
	spent []int64
	end   int64 // of the window they were granted in, wall clock
	start int64
}

func (m *calendarModel) window(wall int64, p Policy) (start, end int64) {
	at := time.Unix(0, wall).In(p.Location)
	y, mo, d := at.Date()
	var from, to time.Time
	switch p.Align {
	case Second:
		from = at.Truncate(time.Second)
		to = from.Add(time.Second)
	case Minute:
		from = at.Truncate(time.Minute)
		to = from.Add(time.Minute)
	case Hour:
		from = at.Truncate(time.Hour)
		to = from.Add(time.Hour)
	case Day:
		from = time.Date(y, mo, d, 0, 0, 0, 0, p.Location)
		to = time.Date(y, mo, d+1, 0, 0, 0, 0, p.Location)
	case Month:
		from = time.Date(y, mo, 1, 0, 0, 0, 0, p.Location)
		to = time.Date(y, mo+1, 1, 0, 0, 0, 0, p.Location)
	case Week:
		for from = time.Date(y, mo, d, 0, 0, 0, 0, p.Location); from.Weekday() != time.Monday; {
			d--
			from = time.Date(y, mo, d, 0, 0, 0, 0, p.Location)
		}
		to = time.Date(y, mo, d+7, 0, 0, 0, 0, p.Location)
	}
	start, end = from.UnixNano(), to.UnixNano()
	if len(m.spent) > 0 && end == m.start {
		return m.start, m.end // set back
	}
	return start, end
}

func (m *calendarModel) look(now, wall int64, p Policy) func(int64) *big.Int {
	start, end := m.window(wall, p)
	over := len(m.spent) == 0 || wall >= m.end
	if over {
		end = wall
	}
	_ = start
	return func(t int64) *big.Int {
		sum := new(big.Int)
		if wall+t < end {
			for _, cost := range m.spent {
				sum.Add(sum, big.NewInt(cost))
			}
		}
		return sum
	}
}

func (m *calendarModel) charge(now, wall int64, p Policy, cost int64) {
	if wall >= m.end {
		m.spent = nil
	}
	m.start, m.end = m.window(wall, p)
	m.spent = append(m.spent, cost)
}

func TestCalendarEqualsModel(t *testing.T) {
	berlin := zone(t, "Europe/Berlin")
	sequences(t, func(t *testing.T, rnd *rand.Rand) {
		p := Calendar("p", randomLimit(rnd), Second+Alignment(rnd.IntN(int(Month))), time.UTC)
		if rnd.IntN(3) == 0 {
			p.Location = berlin
		}
		compare(t, rnd, &calendarModel{}, func() Policy {
			if rnd.IntN(6) == 0 {
				p.Limit = randomLimit(rnd)
			}
			return p
		})
	})
}

func TestCalendarsAreComputedOnceAWindow(t *testing.T) {
	var c calendars
	at := time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)
	berlin := zone(t, "Europe/Berlin")
	day := c.get(Day, nil, at)
	if c.get(Day, time.UTC, at.Add(time.Minute)) != day {
		t.Error("computed again within a quarter of an hour")
	}
	if c.get(Day, berlin, at) == day || c.get(Month, nil, at) == day {
		t.Error("one zone's or alignment's windows for another's")
	}
	if c.get(Day, nil, at.Add(time.Minute)) != day {
		t.Error("another zone drove it out")
	}
	later := at.Add(13 * time.Hour)
	start, _ := c.get(Day, nil, later).at(later.UnixNano())
	if !time.Unix(0, start).Equal(time.Date(2026, 7, 2, 0, 0, 0, 0, time.UTC)) {
		t.Error("the next day has the last day's windows")
	}
	if n := testing.AllocsPerRun(100, func() { c.get(Day, nil, later) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

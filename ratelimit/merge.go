package ratelimit

import "time"

// sameWindow is how far apart two members may put the start of one window: a
// state travels as durations, and so gains the time it was under way.
const sameWindow = int64(time.Second)

// Merge joins two states of a key that two members served while the network
// was split. The later reset, the later policy and the later window win; of
// equals the one with more used.
func (machine) Merge(x, y state) state {
	switch {
	case x.kind == kindNone:
		return y
	case y.kind == kindNone:
		return x
	case x.reset != y.reset:
		return later(x, y, int16(x.reset-y.reset) > 0)
	case x.kind == kindGone:
		return y
	case y.kind == kindGone:
		return x
	case x.version != y.version:
		return later(x, y, x.version > y.version)
	case x.kind != y.kind:
		return later(x, y, x.kind > y.kind)
	}
	s := mergeUsed(x, y)
	mergeExtra(&s, &x, &y)
	return s
}

func later(x, y state, first bool) state {
	if first {
		return x
	}
	return y
}

func mergeUsed(x, y state) state {
	switch x.kind {
	case kindBucket:
		return later(x, y, x.a > y.a || x.a == y.a && !mul(x.b, y.c).less(mul(y.b, x.c)))
	case kindSliding, kindFixed:
		if x.a-y.a > sameWindow || y.a-x.a > sameWindow {
			return later(x, y, x.a > y.a)
		}
	case kindCalendar:
		if x.a != y.a {
			return later(x, y, x.a > y.a)
		}
	}
	s := later(x, y, x.a > y.a || x.a == y.a && x.d >= y.d)
	s.b, s.c = max(x.b, y.b), max(x.c, y.c)
	return s
}

// mergeExtra joins reservations and places by their IDs.
func mergeExtra(s, x, y *state) {
	if x.extra == nil && y.extra == nil {
		return
	}
	var reserved []reservation
	var places []place
	seenReserved, seenPlaces := make(map[uint64]int), make(map[uint64]int)
	for _, from := range []*state{x, y} {
		if from.extra == nil {
			continue
		}
		for _, v := range from.extra.reserved {
			i, seen := seenReserved[v.id]
			if !seen {
				seenReserved[v.id] = len(reserved)
				reserved = append(reserved, v)
				continue
			}
			reserved[i].until = max(reserved[i].until, v.until)
		}
		for _, p := range from.extra.places {
			i, seen := seenPlaces[p.id]
			if !seen {
				seenPlaces[p.id] = len(places)
				places = append(places, p)
				continue
			}
			places[i].until = max(places[i].until, p.until)
		}
	}
	s.extra = s.extra.with(reserved, places).withLent(mergeLent(x.extra.lentOrNil(), y.extra.lentOrNil(), s.kind))
	if s.kind == kindInFlight {
		setPlaces(s, places)
	}
}

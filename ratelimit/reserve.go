package ratelimit

import (
	"slices"
	"time"
)

// reserveFor is how long a reservation lives. All holders of an all-or-nothing
// check have to say yes and be told so within it; what a caller that crashed
// had reserved is free again after it.
const reserveFor = time.Second

// reservation is permits set aside for one check over several keys. It counts
// as used until it is confirmed, released or runs out, and is charged when it
// is confirmed: so one that runs out leaves no trace.
type reservation struct {
	id      uint64
	permits int64
	until   int64 // holder's monotonic clock, ns
}

// with returns x with these parts, nil if there is nothing in it then.
func (x *extra) with(reserved []reservation, places []place) *extra {
	y := extra{lent: x.lentOrNil()}
	if len(reserved) > 0 {
		y.reserved = reserved
	}
	if len(places) > 0 {
		y.places = places
	}
	if y.reserved == nil && y.places == nil && y.lent == nil {
		return nil
	}
	return &y
}

// held returns the permits set aside, a bucket's slices among them, and when the
// last of them run out. It drops reservations that have.
func held(s *state, m moment) (permits, until int64) {
	if s.extra == nil {
		return 0, 0
	}
	if l := s.extra.lent; l != nil && s.kind == kindBucket {
		permits = l.permits()
		_, until = l.last()
	}
	if len(s.extra.reserved) == 0 {
		return permits, until
	}
	live := 0
	for _, v := range s.extra.reserved {
		if v.until > m.now {
			live++
			permits += v.permits
			until = max(until, v.until)
		}
	}
	if live < len(s.extra.reserved) {
		kept := make([]reservation, 0, live)
		for _, v := range s.extra.reserved {
			if v.until > m.now {
				kept = append(kept, v)
			}
		}
		s.extra = s.extra.with(kept, s.extra.places)
	}
	return permits, until
}

func reservationFind(s *state, id uint64) int {
	if s.extra == nil {
		return -1
	}
	return slices.IndexFunc(s.extra.reserved, func(v reservation) bool { return v.id == id })
}

func reservationAdd(s *state, v reservation) {
	var old []reservation
	if s.extra != nil {
		old = s.extra.reserved
	}
	reserved := make([]reservation, len(old), len(old)+1)
	copy(reserved, old)
	s.extra = s.extra.with(append(reserved, v), s.extra.placesOrNil())
}

func reservationDrop(s *state, i int) {
	if len(s.extra.reserved) == 1 {
		s.extra = s.extra.with(nil, s.extra.places)
		return
	}
	s.extra = s.extra.with(slices.Delete(slices.Clone(s.extra.reserved), i, i+1), s.extra.places)
}

// lastReserved is when the last reservation runs out.
func lastReserved(s *state) int64 {
	var last int64
	if s.extra != nil {
		for _, v := range s.extra.reserved {
			last = max(last, v.until)
		}
	}
	return last
}

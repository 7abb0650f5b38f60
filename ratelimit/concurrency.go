package ratelimit

import (
	"slices"
	"time"
)

// Concurrency limit: how many calls are in flight. Each takes a place, named by
// an ID, and gives it back when it is done; a place that is not renewed in time
// is free again, so that a caller that crashed blocks nothing for longer than
// the policy's period.
//
//	allowed when places taken + cost ≤ limit
//
// It errs only when a call outlives its place without renewing it. Memory: 24
// bytes for each place taken, and a change copies them all, so limits of tens
// to hundreds are meant.
//
//	a  instant at which the first place runs out     b  permits in all places
//	c  instant at which the last place runs out      d  –

// place is one call in flight.
type place struct {
	id      uint64
	permits int64
	until   int64 // holder's monotonic clock, ns
}

func (x *extra) placesOrNil() []place {
	if x == nil {
		return nil
	}
	return x.places
}

func placesSettle(s *state, m moment) {
	if s.b == 0 || m.now < s.a {
		return
	}
	live := make([]place, 0, len(s.extra.placesOrNil()))
	for _, p := range s.extra.placesOrNil() {
		if p.until > m.now {
			live = append(live, p)
		}
	}
	setPlaces(s, live)
}

// setPlaces replaces the places, which nobody else may hold on to.
func setPlaces(s *state, places []place) {
	s.a, s.b, s.c = 0, 0, 0
	for i, p := range places {
		if i == 0 || p.until < s.a {
			s.a = p.until
		}
		s.b += p.permits
		s.c = max(s.c, p.until)
	}
	var reserved []reservation
	if s.extra != nil {
		reserved = s.extra.reserved
	}
	s.extra = s.extra.with(reserved, places)
}

// placeTake takes a place, or finds it taken by the same call.
func placeTake(s *state, p place) {
	old := s.extra.placesOrNil()
	places := make([]place, len(old), len(old)+1)
	copy(places, old)
	setPlaces(s, append(places, p))
}

func placeFind(s *state, id uint64) int {
	return slices.IndexFunc(s.extra.placesOrNil(), func(p place) bool { return p.id == id })
}

func placeFree(s *state, i int) {
	setPlaces(s, slices.Delete(slices.Clone(s.extra.places), i, i+1))
}

func placeRenew(s *state, i int, until int64) {
	places := slices.Clone(s.extra.places)
	places[i].until = max(places[i].until, until)
	setPlaces(s, places)
}

// placesAgain is how long it is worth waiting for a place: calls give theirs back
// at any time, and when can't be known.
const placesAgain = int64(time.Second)

// placesWait is when the first place runs out, and a second at most.
func placesWait(s *state, r *rule, m moment, n int64) int64 {
	if n <= r.limit-s.b {
		return 0
	}
	return min(max(s.a-m.now, 1), placesAgain)
}

func placesWhole(s *state, m moment) int64 {
	if s.b == 0 {
		return 0
	}
	return max(s.c-m.now, 1)
}

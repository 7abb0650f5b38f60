package ratelimit

import (
	"encoding/binary"
	"errors"
	"math"
)

// What travels between members: integers as varints, instants as durations from
// the sender's now, calendar edges as they are.

var errMalformed = errors.New("ratelimit: malformed message")

// maxItems bounds the reservations and places of a state that is parsed.
const maxItems = 4 * MaxPlaces

// AppendState writes s; see [cluster.Machine].
func (machine) AppendState(b []byte, s state, now int64) []byte {
	b = append(b, byte(s.kind))
	b = binary.AppendUvarint(b, uint64(s.reset))
	b = binary.AppendUvarint(b, uint64(s.version))
	if s.kind != kindGone && s.kind != kindNone {
		a, c := s.a, s.c
		switch s.kind {
		case kindCalendar:
		case kindInFlight:
			a, c = a-now, c-now
		default:
			a -= now
		}
		b = binary.AppendVarint(b, a)
		b = binary.AppendVarint(b, s.b)
		b = binary.AppendVarint(b, c)
		b = binary.AppendVarint(b, s.d)
	}
	var x extra
	if s.extra != nil {
		x = *s.extra
	}
	b = binary.AppendUvarint(b, uint64(len(x.reserved)))
	for _, v := range x.reserved {
		b = appendItem(b, v.id, v.permits, v.until-now)
	}
	b = binary.AppendUvarint(b, uint64(len(x.places)))
	for _, p := range x.places {
		b = appendItem(b, p.id, p.permits, p.until-now)
	}
	if l := x.lent; l != nil {
		b = appendRule(b, &l.rule)
		b = binary.AppendVarint(b, l.quiet-now)
		b = binary.AppendUvarint(b, uint64(len(l.out)))
		for _, v := range l.out {
			b = appendItem(b, v.borrower, v.permits, v.until-now)
			b = binary.AppendVarint(b, v.kept-now)
			b = binary.AppendUvarint(b, v.seq)
		}
	}
	return b
}

func appendItem(b []byte, id uint64, permits, left int64) []byte {
	b = binary.LittleEndian.AppendUint64(b, id)
	b = binary.AppendVarint(b, permits)
	return binary.AppendVarint(b, left)
}

// ParseState reads what AppendState wrote. It refuses values that the
// algorithms could not work with.
func (machine) ParseState(b []byte, now int64) (state, error) {
	r := reader{b: b}
	s := state{kind: kind(r.byte())}
	s.reset = uint16(r.uvarint(math.MaxUint16))
	s.version = uint32(r.uvarint(math.MaxUint32))
	if s.kind != kindGone && s.kind != kindNone {
		s.a, s.b, s.c, s.d = r.varint(), r.varint(), r.varint(), r.varint()
		if !validWords(&s) {
			return state{}, errMalformed
		}
		switch s.kind {
		case kindCalendar:
		case kindInFlight:
			s.a, s.c = s.a+now, s.c+now
		default:
			s.a += now
		}
	}
	var x extra
	for range r.count() {
		id, permits, left := r.item()
		x.reserved = append(x.reserved, reservation{id, permits, now + left})
	}
	var taken int64
	for range r.count() {
		id, permits, left := r.item()
		taken += permits
		x.places = append(x.places, place{id, permits, now + left})
	}
	if !r.bad && len(r.b) > 0 {
		x.lent = r.lent(now)
	}
	if r.bad || len(r.b) > 0 || (s.kind == kindInFlight && taken != s.b) {
		return state{}, errMalformed
	}
	s.extra = x.with(x.reserved, x.places)
	return s, nil
}

// lent reads what a state has lent.
func (r *reader) lent(now int64) *lent {
	l := &lent{rule: r.rule()}
	quiet := r.varint()
	if r.bad || !l.rule.valid() || quiet < -maxDebt || quiet > maxDebt {
		r.bad = true
		return nil
	}
	l.quiet = now + quiet
	for range r.count() {
		borrower, permits, left := r.item()
		kept := r.varint()
		if kept < left || kept > maxDebt {
			r.bad = true
			return nil
		}
		l.out = append(l.out, lease{borrower, r.uvarint(math.MaxUint64), permits, now + left, now + kept})
	}
	return l
}

// validWords checks the words of a state whose instants are still durations.
func validWords(s *state) bool {
	const far = maxDebt
	between := func(v, least, most int64) bool { return least <= v && v <= most }
	switch s.kind {
	case kindBucket:
		return between(s.a, -far, far) && between(s.c, 1, MaxLimit) && between(s.b, 0, s.c-1) &&
			between(s.d, 1, int64(MaxPeriod))
	case kindSliding:
		return between(s.a, -far, far) && between(s.b, 0, 2*MaxLimit) && between(s.c, 0, 2*MaxLimit) &&
			between(s.d, 1, int64(MaxPeriod))
	case kindFixed:
		return between(s.a, -far, far) && between(s.b, 0, 2*MaxLimit) && s.c == 0 &&
			between(s.d, 1, int64(MaxPeriod))
	case kindCalendar:
		return between(s.a, -far, far) && between(s.b, 0, 2*MaxLimit) && between(s.c, s.a+1, far) && s.d == 0
	case kindInFlight:
		return between(s.a, -far, far) && between(s.b, 0, maxItems*MaxPlaces) && between(s.c, -far, far) && s.d == 0
	}
	return false
}

// AppendOp writes o.
func (machine) AppendOp(b []byte, o op) []byte {
	b = append(b, byte(o.kind), byte(o.flags))
	b = appendRule(b, &o.rule)
	b = binary.AppendUvarint(b, uint64(o.cost))
	if o.kind >= opReserve {
		b = binary.LittleEndian.AppendUint64(b, o.id)
	}
	if o.kind >= opLease {
		b = binary.AppendUvarint(b, o.seq)
	}
	return b
}

func appendRule(b []byte, r *rule) []byte {
	b = append(b, byte(r.algorithm), byte(r.align))
	b = binary.AppendUvarint(b, uint64(r.version))
	b = binary.AppendUvarint(b, uint64(r.limit))
	b = binary.AppendUvarint(b, uint64(r.burst))
	b = binary.AppendUvarint(b, uint64(r.period))
	if w := r.calendar; w != nil {
		b = binary.AppendVarint(b, w.unit)
		if w.unit != 0 {
			return binary.AppendVarint(b, w.ahead)
		}
		for _, e := range w.edges {
			b = binary.AppendVarint(b, e)
		}
	}
	return b
}

// ParseOp reads what AppendOp wrote. It refuses values that no policy has.
func (machine) ParseOp(b []byte) (op, error) {
	r := reader{b: b}
	o := op{kind: opKind(r.byte()), flags: opFlags(r.byte()), rule: r.rule()}
	o.cost = int64(r.uvarint(MaxLimit))
	if o.kind >= opReserve {
		o.id = r.uint64()
	}
	if o.kind >= opLease {
		o.seq = r.uvarint(math.MaxUint64)
	}
	if r.bad || len(r.b) > 0 || !o.valid() {
		return op{}, errMalformed
	}
	return o, nil
}

func (r *reader) rule() rule {
	q := rule{algorithm: Algorithm(r.byte()), align: Alignment(r.byte())}
	q.version = uint32(r.uvarint(math.MaxUint32))
	q.limit = int64(r.uvarint(MaxLimit))
	q.burst = int64(r.uvarint(MaxLimit))
	q.period = int64(r.uvarint(uint64(MaxPeriod)))
	if q.align != Unaligned {
		w := &windows{unit: r.varint()}
		if w.unit != 0 {
			w.ahead = r.varint()
		} else {
			for i := range w.edges {
				w.edges[i] = r.varint()
			}
		}
		q.calendar = w
	}
	return q
}

func (o *op) valid() bool {
	if o.kind == 0 || o.kind >= opKindEnd || o.flags >= flagsEnd || o.rule.algorithm > Concurrency || o.rule.align > Month {
		return false
	}
	return o.kind == opReset || o.rule.valid()
}

// valid says whether a rule that came from outside is one that a policy has.
func (r *rule) valid() bool {
	if r.algorithm > Concurrency || r.align > Month {
		return false
	}
	if r.limit < 1 || r.burst < 1 || (r.align == Unaligned) == (r.period < 1) {
		return false
	}
	if r.align != Unaligned && (r.algorithm != FixedWindow || !r.calendar.valid()) {
		return false
	}
	if r.algorithm == Concurrency && r.limit > MaxPlaces {
		return false
	}
	if r.algorithm != TokenBucket {
		return r.burst == r.limit
	}
	fill, _ := mul(r.burst, r.period).div(r.limit, math.MaxInt64)
	return fill <= int64(MaxPeriod)
}

// AppendResult writes r.
func (machine) AppendResult(b []byte, r result) []byte {
	b = append(b, byte(r.flags))
	b = binary.AppendUvarint(b, uint64(r.granted))
	b = binary.AppendUvarint(b, uint64(r.remaining))
	b = binary.AppendUvarint(b, uint64(r.retry))
	b = binary.AppendUvarint(b, uint64(r.whole))
	b = binary.AppendUvarint(b, uint64(r.next))
	if r.flags&resultLent != 0 {
		b = binary.AppendUvarint(b, uint64(r.lasts))
	}
	if r.out != nil {
		b = binary.AppendUvarint(b, uint64(r.out.home))
		for _, borrower := range r.out.borrowers {
			b = binary.LittleEndian.AppendUint64(b, borrower)
		}
	}
	return b
}

// ParseResult reads what AppendResult wrote.
func (machine) ParseResult(b []byte) (result, error) {
	r := reader{b: b}
	res := result{flags: resultFlags(r.byte())}
	res.granted = int64(r.uvarint(math.MaxInt64))
	res.remaining = int64(r.uvarint(math.MaxInt64))
	res.retry = int64(r.uvarint(math.MaxInt64))
	res.whole = int64(r.uvarint(math.MaxInt64))
	res.next = int64(r.uvarint(math.MaxInt64))
	if res.flags&resultLent != 0 {
		res.lasts = int64(r.uvarint(math.MaxInt64))
	}
	if res.flags&resultOut != 0 {
		res.out = &outstanding{home: int64(r.uvarint(math.MaxInt64))}
		for len(r.b) >= 8 && len(res.out.borrowers) < 2*leasesOut {
			res.out.borrowers = append(res.out.borrowers, r.uint64())
		}
	}
	if r.bad || len(r.b) > 0 {
		return result{}, errMalformed
	}
	return res, nil
}

// reader takes a message apart. After the first fault it is bad and returns
// zeros.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) byte() byte {
	if len(r.b) == 0 {
		r.bad = true
		return 0
	}
	c := r.b[0]
	r.b = r.b[1:]
	return c
}

func (r *reader) uvarint(most uint64) uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 || v > most {
		r.bad, r.b = true, nil
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) varint() int64 {
	v, n := binary.Varint(r.b)
	if n <= 0 {
		r.bad, r.b = true, nil
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) uint64() uint64 {
	if len(r.b) < 8 {
		r.bad, r.b = true, nil
		return 0
	}
	v := binary.LittleEndian.Uint64(r.b)
	r.b = r.b[8:]
	return v
}

// count reads how many items follow; each has at least ten bytes.
func (r *reader) count() int {
	n := r.uvarint(maxItems)
	if n*10 > uint64(len(r.b)) {
		r.bad, r.b = true, nil
		return 0
	}
	return int(n)
}

func (r *reader) item() (id uint64, permits, left int64) {
	id, permits, left = r.uint64(), r.varint(), r.varint()
	if permits < 0 || permits > MaxLimit || left < -maxDebt || left > maxDebt {
		r.bad, r.b = true, nil
	}
	return id, permits, left
}

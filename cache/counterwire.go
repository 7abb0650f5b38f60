package cache

import (
	"encoding/binary"
	"errors"
)

var errCounter = errors.New("cache: malformed counter")

// AppendState implements cluster.Machine. Operations that are not remembered any
// more are left out.
func (counterMachine) AppendState(b []byte, s counterState, now int64) []byte {
	var flags byte
	if s.gone {
		flags = 1
	}
	b = append(b, flags)
	b = binary.AppendVarint(b, s.value)
	b = appendInstant(b, s.expires, now)
	b = binary.BigEndian.AppendUint64(b, s.born)
	b = appendInstant(b, s.bornAt, now)
	b = binary.AppendUvarint(b, s.epoch)
	b = binary.BigEndian.AppendUint64(b, s.holder)
	b = binary.AppendVarint(b, s.before)
	b = appendInstant(b, s.pushed, now)
	var fresh []seenOp
	for i := range s.seen {
		// In their order: the oldest first.
		o := s.seen[(int(s.next)+i)%seenMax]
		if o.at != 0 && o.at > now-seenFor {
			fresh = append(fresh, o)
		}
	}
	b = append(b, byte(len(fresh)))
	for _, o := range fresh {
		b = binary.BigEndian.AppendUint64(b, o.id)
		b = appendInstant(b, o.at, now)
		b = binary.AppendVarint(b, o.value)
	}
	return b
}

// ParseState implements cluster.Machine.
func (counterMachine) ParseState(b []byte, now int64) (counterState, error) {
	r := reader{b: b, now: now}
	var s counterState
	flags := r.byte()
	s.gone = flags == 1
	s.value = r.varint()
	s.expires = r.instant()
	s.born = r.uint64()
	s.bornAt = r.instant()
	s.epoch = r.uvarint()
	s.holder = r.uint64()
	s.before = r.varint()
	s.pushed = r.instant()
	n := r.byte()
	if n > seenMax || flags > 1 {
		return counterState{}, errCounter
	}
	for i := range n {
		s.seen[i] = seenOp{id: r.uint64(), at: r.instant(), value: r.varint()}
	}
	s.next = n % seenMax
	if r.bad || len(r.b) > 0 {
		return counterState{}, errCounter
	}
	return s, nil
}

// AppendOp implements cluster.Machine.
func (counterMachine) AppendOp(b []byte, op counterOp) []byte {
	b = append(b, op.what)
	b = binary.AppendVarint(b, op.delta)
	b = binary.AppendVarint(b, op.ttl)
	return binary.BigEndian.AppendUint64(b, op.born)
}

// ParseOp implements cluster.Machine.
func (counterMachine) ParseOp(b []byte) (counterOp, error) {
	r := reader{b: b}
	op := counterOp{what: r.byte(), delta: r.varint(), ttl: r.varint(), born: r.uint64()}
	switch {
	case r.bad || len(r.b) > 0,
		op.what < counterAdd || op.what > counterUndo,
		op.what == counterAdd && (op.ttl < int64(MinTTL) || op.ttl > int64(MaxTTL)):
		return counterOp{}, errCounter
	}
	return op, nil
}

// AppendResult implements cluster.Machine.
func (counterMachine) AppendResult(b []byte, r counterResult) []byte {
	b = append(b, r.outcome)
	b = binary.AppendVarint(b, r.value)
	b = binary.AppendVarint(b, r.ttl)
	return binary.BigEndian.AppendUint64(b, r.born)
}

// ParseResult implements cluster.Machine.
func (counterMachine) ParseResult(b []byte) (counterResult, error) {
	r := reader{b: b}
	res := counterResult{outcome: r.byte(), value: r.varint(), ttl: r.varint(), born: r.uint64()}
	if r.bad || len(r.b) > 0 || res.outcome > counterUncertain {
		return counterResult{}, errCounter
	}
	return res, nil
}

// appendInstant appends an instant as a duration from now; 0 stays 0.
func appendInstant(b []byte, instant, now int64) []byte {
	if instant == 0 {
		return append(b, 0)
	}
	return binary.AppendVarint(append(b, 1), instant-now)
}

// reader reads what was appended; once something is missing it is bad, and all
// that is read is zero.
type reader struct {
	b   []byte
	now int64
	bad bool
}

func (r *reader) byte() byte {
	if len(r.b) < 1 {
		r.bad = true
		return 0
	}
	v := r.b[0]
	r.b = r.b[1:]
	return v
}

func (r *reader) uint64() uint64 {
	if len(r.b) < 8 {
		r.b, r.bad = nil, true
		return 0
	}
	v := binary.BigEndian.Uint64(r.b)
	r.b = r.b[8:]
	return v
}

func (r *reader) varint() int64 {
	v, n := binary.Varint(r.b)
	if n <= 0 {
		r.b, r.bad = nil, true
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.b, r.bad = nil, true
		return 0
	}
	r.b = r.b[n:]
	return v
}

// instant reads one; an instant that would be 0 is moved by a nanosecond.
func (r *reader) instant() int64 {
	switch r.byte() {
	case 0:
		return 0
	case 1:
		d := r.varint()
		at := addSaturated(r.now, d)
		if at == 0 {
			at = -1
		}
		return at
	default:
		r.b, r.bad = nil, true
		return 0
	}
}

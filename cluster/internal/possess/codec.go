package possess

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// ErrMalformed is returned for a message that can't be read.
var ErrMalformed = errors.New("possess: malformed message")

// Append appends m's encoding: its kind and its fields, numbers as varints.
func Append(b []byte, m Message) []byte {
	b = append(b, m.kind())
	switch m := m.(type) {
	case *Beat:
		b = putInt(b, m.Sent)
		b = putUint(b, m.Term)
	case *BeatAck:
		b = putInt(b, m.Sent)
		b = putUint(b, m.Term)
	case *Sync:
		b = putUint(b, m.Seq)
		b = putInt(b, m.Sent)
		b = putUint(b, m.Term)
		b = putInt(b, m.Age)
		b = putInt(b, m.Echo)
		b = putUint(b, m.YourTerm)
		b = append(b, flags(m.Draining, false))
		b = putUint(b, uint64(len(m.Items)))
		for i := range m.Items {
			it := &m.Items[i]
			b = putUint(b, uint64(it.Slot))
			b = append(b, byte(it.As), flags(it.Fresh, it.Complete))
			b = putUint(b, it.Epoch)
			b = putUint(b, uint64(it.View))
			b = putUint(b, uint64(len(it.Entries)))
			b = append(b, it.Entries...)
		}
	case *SyncAck:
		b = putUint(b, m.Seq)
		b = putInt(b, m.Sent)
		b = putUint(b, m.Term)
		b = putInt(b, m.Now)
		b = append(b, flags(m.Draining, false))
		b = putKnown(b, m.Refused)
	case *Ask:
		b = putInt(b, m.Sent)
		b = putUint(b, uint64(len(m.Items)))
		for _, it := range m.Items {
			b = putUint(b, uint64(it.Slot))
			b = append(b, byte(it.Claim), flags(it.Full, false))
			b = putUint(b, it.Epoch)
			b = putUint(b, uint64(it.View))
		}
	case *Answer:
		b = putInt(b, m.Sent)
		b = putKnown(b, m.Items)
	case *Announce:
		b = putKnown(b, m.Items)
	}
	return b
}

// Parse reads a message. Byte slices in it share b's memory.
func Parse(b []byte) (Message, error) { return new(Parser).Parse(b) }

// Parser reads messages, one after the other, into the same memory.
type Parser struct {
	beat     Beat
	beatAck  BeatAck
	sync     Sync
	syncAck  SyncAck
	ask      Ask
	answer   Answer
	announce Announce
	items    []SyncItem
	asked    []AskItem
	known    []Known
}

// Parse reads a message, which is good until the next one is read. Byte slices
// in it share b's memory.
func (p *Parser) Parse(b []byte) (Message, error) {
	p.items, p.asked, p.known = keep(p.items), keep(p.asked), keep(p.known)
	r := &reader{b: b}
	var m Message
	switch kind := r.byte(); kind {
	case 1:
		p.beat = Beat{Sent: r.int(), Term: r.uint()}
		m = &p.beat
	case 2:
		p.beatAck = BeatAck{Sent: r.int(), Term: r.uint()}
		m = &p.beatAck
	case 3:
		s := &p.sync
		*s = Sync{Seq: r.uint(), Sent: r.int(), Term: r.uint(), Age: r.int(), Echo: r.int(), YourTerm: r.uint()}
		s.Draining, _ = r.flags()
		for range r.count(6) {
			it := SyncItem{Slot: r.slot(), As: As(r.max(byte(AsMerge)))}
			it.Fresh, it.Complete = r.flags()
			it.Epoch, it.View = r.uint(), r.uint32()
			it.Entries = r.bytes()
			p.items = append(p.items, it)
		}
		s.Items = p.items
		m = s
	case 4:
		a := &p.syncAck
		*a = SyncAck{Seq: r.uint(), Sent: r.int(), Term: r.uint(), Now: r.int()}
		a.Draining, _ = r.flags()
		a.Refused = p.readKnown(r)
		m = a
	case 5:
		a := &p.ask
		*a = Ask{Sent: r.int()}
		for range r.count(5) {
			it := AskItem{Slot: r.slot(), Claim: Claim(r.max(byte(ClaimFound)))}
			it.Full, _ = r.flags()
			it.Epoch, it.View = r.uint(), r.uint32()
			p.asked = append(p.asked, it)
		}
		a.Items = p.asked
		m = a
	case 6:
		p.answer = Answer{Sent: r.int(), Items: p.readKnown(r)}
		m = &p.answer
	case 7:
		p.announce = Announce{Items: p.readKnown(r)}
		m = &p.announce
	default:
		return nil, fmt.Errorf("%w: kind %d", ErrMalformed, kind)
	}
	if r.bad || len(r.b) > 0 {
		return nil, fmt.Errorf("%w: kind %d", ErrMalformed, b[0])
	}
	return m, nil
}

func (p *Parser) readKnown(r *reader) []Known {
	for range r.count(21) {
		k := Known{Slot: r.slot(), Stand: Stand(r.max(byte(StandHolder)))}
		k.Busy, _ = r.flags()
		k.Epoch, k.View = r.uint(), r.uint32()
		k.Holder, k.Backup = r.id(), r.id()
		p.known = append(p.known, k)
	}
	return p.known
}

func putUint(b []byte, v uint64) []byte { return binary.AppendUvarint(b, v) }
func putInt(b []byte, v int64) []byte   { return binary.AppendVarint(b, v) }

func putKnown(b []byte, items []Known) []byte {
	b = putUint(b, uint64(len(items)))
	for i := range items {
		k := &items[i]
		b = putUint(b, uint64(k.Slot))
		b = append(b, byte(k.Stand), flags(k.Busy, false))
		b = putUint(b, k.Epoch)
		b = putUint(b, uint64(k.View))
		b = binary.BigEndian.AppendUint64(b, k.Holder)
		b = binary.BigEndian.AppendUint64(b, k.Backup)
	}
	return b
}

func flags(a, b bool) byte {
	var f byte
	if a {
		f |= 1
	}
	if b {
		f |= 2
	}
	return f
}

// reader reads fields until one is bad; from then on it reads zeros.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) fail() {
	r.bad, r.b = true, nil
}

func (r *reader) byte() byte {
	if len(r.b) == 0 {
		r.fail()
		return 0
	}
	v := r.b[0]
	r.b = r.b[1:]
	return v
}

func (r *reader) max(limit byte) byte {
	v := r.byte()
	if v > limit {
		r.fail()
		return 0
	}
	return v
}

func (r *reader) flags() (bool, bool) {
	f := r.max(3)
	return f&1 != 0, f&2 != 0
}

func (r *reader) uint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) int() int64 {
	v, n := binary.Varint(r.b)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) uint32() uint32 {
	v := r.uint()
	if v > 1<<32-1 {
		r.fail()
		return 0
	}
	return uint32(v)
}

func (r *reader) slot() uint16 {
	v := r.uint()
	if v >= maxSlots {
		r.fail()
		return 0
	}
	return uint16(v)
}

func (r *reader) id() ID {
	if len(r.b) < 8 {
		r.fail()
		return 0
	}
	v := binary.BigEndian.Uint64(r.b)
	r.b = r.b[8:]
	return v
}

// count reads the number of items of at least size bytes each that follow.
func (r *reader) count(size int) int {
	v := r.uint()
	if v > uint64(len(r.b)/size) {
		r.fail()
		return 0
	}
	return int(v)
}

func (r *reader) bytes() []byte {
	n := r.count(1)
	v := r.b[:n:n]
	r.b = r.b[n:]
	return v
}

package kv

import (
	"encoding/binary"
	"errors"
)

// Kind is what a key holds.
type Kind byte

// The kinds. A tombstone says that the key was deleted; a counter mark that
// the key is a counter's and no value may be stored under it.
const (
	KindValue     Kind = 1
	KindTombstone Kind = 2
	KindCounter   Kind = 3
)

// mode says how the owner of a key treats an envelope.
type mode byte

const (
	modeStored mode = 0 // has its version: the later of two versions stays
	modeWrite  mode = 1 // the owner gives it a version; it replaces what is there
	modeFill   mode = 2 // as a write, unless something was written since the version given
	modeAbsent mode = 3 // as a write, unless there is a live value or mark
)

// An envelope is what olric stores for a key:
//
//	format (1 byte, envelopeFormat), mode, kind,
//	version (8 bytes, big endian), expires (8 bytes),
//	length of the key (2 bytes), the key, the payload.
//
// The key is in it because olric finds entries by a 64-bit hash alone: two
// keys with one hash must not be taken for each other.
const (
	envelopeFormat = 1
	headerLen      = 1 + 1 + 1 + 8 + 8 + 2
)

type envelope []byte

var errEnvelope = errors.New("kv: malformed entry")

func newEnvelope(m mode, k Kind, version, expires int64, key string, payload []byte) envelope {
	e := make(envelope, 0, headerLen+len(key)+len(payload))
	e = append(e, envelopeFormat, byte(m), byte(k))
	e = binary.BigEndian.AppendUint64(e, uint64(version))
	e = binary.BigEndian.AppendUint64(e, uint64(expires))
	e = binary.BigEndian.AppendUint16(e, uint16(len(key)))
	e = append(e, key...)
	return append(e, payload...)
}

// parseEnvelope checks b, which it doesn't copy.
func parseEnvelope(b []byte) (envelope, error) {
	if len(b) < headerLen || b[0] != envelopeFormat {
		return nil, errEnvelope
	}
	e := envelope(b)
	keyLen := int(binary.BigEndian.Uint16(b[19:]))
	switch {
	case e.mode() > modeAbsent,
		e.kind() < KindValue || e.kind() > KindCounter,
		e.version() < 0,
		e.expires() <= 0,
		keyLen == 0 || keyLen > MaxKey || headerLen+keyLen > len(b),
		len(b) > headerLen+keyLen+MaxValue,
		e.kind() != KindValue && len(b) != headerLen+keyLen:
		return nil, errEnvelope
	}
	return e, nil
}

func (e envelope) mode() mode     { return mode(e[1]) }
func (e envelope) kind() Kind     { return Kind(e[2]) }
func (e envelope) version() int64 { return int64(binary.BigEndian.Uint64(e[3:])) }
func (e envelope) expires() int64 { return int64(binary.BigEndian.Uint64(e[11:])) }

func (e envelope) key() []byte {
	return e[headerLen : headerLen+int(binary.BigEndian.Uint16(e[19:]))]
}

func (e envelope) payload() []byte {
	return e[headerLen+int(binary.BigEndian.Uint16(e[19:])):]
}

// stored returns a copy of e as it is kept, with the version it was given.
func (e envelope) stored(version int64) envelope {
	c := append(envelope(nil), e...)
	c[1] = byte(modeStored)
	binary.BigEndian.PutUint64(c[3:], uint64(version))
	return c
}

// live tells whether e is a value or a mark that has not expired.
func (e envelope) live(now int64) bool {
	return e != nil && e.kind() != KindTombstone && e.expires() > now
}

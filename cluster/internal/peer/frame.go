package peer

import (
	"encoding/binary"
	"fmt"
)

// Sizes of frames, in bytes.
const (
	MaxFrame   = 1 << 20                // header and payload
	MaxPayload = MaxFrame - headerBytes // of a Message
	maxHello   = 64                     // a whole frame, before the peer is known

	lengthBytes = 4
	headerBytes = 32 // the length included
)

// This package's own frame types.
const (
	typeHello byte = 1 + iota
	typeWelcome
	typePing
	typePong
	typeCall
	typeReply
	typeCancel
)

// header is a frame's first 32 bytes, but for the length. Its layout is the same in all versions of the protocol, so
// that a hello of any version can be read.
type header struct {
	kind    byte
	version byte
	slot    uint16
	id      uint64
	target  Boot
	epoch   uint64
}

// append appends the frame's header for a payload of n bytes.
func (h header) append(b []byte, n int) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(headerBytes-lengthBytes+n))
	b = append(b, h.kind, h.version)
	b = binary.BigEndian.AppendUint16(b, h.slot)
	b = binary.BigEndian.AppendUint64(b, h.id)
	b = binary.BigEndian.AppendUint64(b, uint64(h.target))
	return binary.BigEndian.AppendUint64(b, h.epoch)
}

// parseHeader reads a header. b has headerBytes bytes or more.
func parseHeader(b []byte) header {
	_ = b[headerBytes-1]
	return header{
		kind:    b[4],
		version: b[5],
		slot:    binary.BigEndian.Uint16(b[6:]),
		id:      binary.BigEndian.Uint64(b[8:]),
		target:  Boot(binary.BigEndian.Uint64(b[16:])),
		epoch:   binary.BigEndian.Uint64(b[24:]),
	}
}

// nextFrame takes the first frame off b. size is the whole frame's length, header included; zero when b is too short to
// tell. The frame is complete when len(b) >= size > 0; only then are h and payload set. The error is a *refusal: no
// sender of ours makes such a frame, and nothing after it can be trusted.
func nextFrame(b []byte, most int) (h header, payload []byte, size int, err error) {
	if len(b) < lengthBytes {
		return header{}, nil, 0, nil
	}
	n := binary.BigEndian.Uint32(b)
	if n < headerBytes-lengthBytes || n > uint32(most-lengthBytes) {
		return header{}, nil, 0, refuse(reasonLength, fmt.Errorf("frame of %d bytes, %d to %d allowed",
			int64(n)+lengthBytes, headerBytes, most))
	}
	size = lengthBytes + int(n)
	if len(b) < size {
		return header{}, nil, size, nil
	}
	return parseHeader(b), b[headerBytes:size], size, nil
}

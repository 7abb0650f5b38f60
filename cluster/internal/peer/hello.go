package peer

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Versions of the protocol that are spoken: the present one and the one before, so that members can be replaced one by
// one. Version 1 has none before it.
const (
	Version       uint8 = 1
	OldestVersion uint8 = max(1, Version-1)
)

// versionRange is what a member speaks, in a hello.
type versionRange struct{ oldest, newest uint8 }

// agree returns the newest version both speak.
func (r versionRange) agree(o versionRange) (uint8, bool) {
	v := min(r.newest, o.newest)
	return v, v >= max(r.oldest, o.oldest) && v > 0
}

func (r versionRange) pack() uint16 { return uint16(r.oldest)<<8 | uint16(r.newest) }

func unpackVersions(v uint16) versionRange { return versionRange{uint8(v >> 8), uint8(v)} }

func (r versionRange) String() string { return fmt.Sprintf("%d to %d", r.oldest, r.newest) }

const (
	magic      = 0x7065_6572_6c69_6d74 // "peerlimt", where other frames have their ID
	maxService = maxHello - headerBytes - 8 - 1
)

// hello is the first frame of who dials: a header with the magic as ID, the versions as slot, the cluster as epoch and
// the boot that is wanted as target; then the own boot, the lane, and a stream's service.
type hello struct {
	versions versionRange
	cluster  uint64
	from, to Boot
	lane     Lane
	service  string // of a stream, 1 to 23 bytes
}

// append appends the whole frame.
func (h hello) append(b []byte) []byte {
	head := header{kind: typeHello, version: h.versions.newest, slot: h.versions.pack(), id: magic, target: h.to, epoch: h.cluster}
	b = head.append(b, 8+1+len(h.service))
	b = binary.BigEndian.AppendUint64(b, uint64(h.from))
	b = append(b, byte(h.lane))
	return append(b, h.service...)
}

// parseHello reads a hello from a frame's parts.
func parseHello(head header, payload []byte) (hello, error) {
	if head.kind != typeHello || head.id != magic {
		return hello{}, refuse(reasonMagic, errors.New("not a hello"))
	}
	if len(payload) < 9 {
		return hello{}, refuse(reasonHello, errors.New("short hello"))
	}
	h := hello{
		versions: unpackVersions(head.slot),
		cluster:  head.epoch,
		from:     Boot(binary.BigEndian.Uint64(payload)),
		to:       head.target,
		lane:     Lane(payload[8]),
		service:  string(payload[9:]),
	}
	if h.from == 0 || (h.lane >= laneCount && h.lane != laneStream) || (h.lane == laneStream) != (h.service != "") {
		return hello{}, refuse(reasonHello, errors.New("malformed hello"))
	}
	return h, nil
}

// verdict is the answer to a hello.
type verdict uint8

const (
	welcomed verdict = iota
	refusedCluster
	refusedVersion
	refusedGone // the hello is for another boot: that one is dead
	refusedSelf // the dialer is the one it dialed
	refusedService
	refusedBusy
	verdictCount
)

// welcome answers a hello: a header like the hello's, with the agreed version; then the verdict and the own boot.
type welcome struct {
	version  uint8 // agreed; zero when refused
	versions versionRange
	cluster  uint64
	to       Boot
	verdict  verdict
	boot     Boot // who answers
}

func (w welcome) append(b []byte) []byte {
	head := header{kind: typeWelcome, version: w.version, slot: w.versions.pack(), id: magic, target: w.to, epoch: w.cluster}
	b = head.append(b, 1+8)
	b = append(b, byte(w.verdict))
	return binary.BigEndian.AppendUint64(b, uint64(w.boot))
}

func parseWelcome(head header, payload []byte) (welcome, error) {
	if head.kind != typeWelcome || head.id != magic {
		return welcome{}, refuse(reasonMagic, errors.New("not an answer to a hello"))
	}
	if len(payload) != 9 || verdict(payload[0]) >= verdictCount {
		return welcome{}, refuse(reasonHello, errors.New("malformed answer to a hello"))
	}
	return welcome{
		version:  head.version,
		versions: unpackVersions(head.slot),
		cluster:  head.epoch,
		to:       head.target,
		verdict:  verdict(payload[0]),
		boot:     Boot(binary.BigEndian.Uint64(payload[1:])),
	}, nil
}

// How TLS records begin, followed by the major version 3 (RFC 8446, section 5.1).
const (
	recordAlert     = 21
	recordHandshake = 22
)

// readOpening reads one frame of at most maxHello bytes and not a byte beyond it: a stream's bytes follow.
func readOpening(r io.Reader) (header, []byte, error) {
	var b [maxHello]byte
	if _, err := io.ReadFull(r, b[:lengthBytes]); err != nil {
		return header{}, nil, err
	}
	if (b[0] == recordHandshake || b[0] == recordAlert) && b[1] == 3 { // no frame begins so: it would be too long
		return header{}, nil, refuse(reasonSecret, errors.New("it speaks TLS; this member has neither secret nor certificates"))
	}
	_, _, size, err := nextFrame(b[:lengthBytes], maxHello)
	if err != nil {
		return header{}, nil, err
	}
	if _, err := io.ReadFull(r, b[lengthBytes:size]); err != nil {
		return header{}, nil, err
	}
	h, payload, _, err := nextFrame(b[:size], maxHello)
	return h, payload, err
}

// clusterHash is how a hello names the cluster.
func clusterHash(name string) uint64 {
	sum := sha256.Sum256([]byte("peerlimit cluster\x00" + name))
	return binary.BigEndian.Uint64(sum[:])
}

// judge decides on a hello. The version is that to speak when it is welcomed.
func (t *Transport) judge(h hello) (verdict, uint8) {
	version, ok := t.cfg.versions.agree(h.versions)
	switch {
	case h.cluster != t.cluster:
		return refusedCluster, 0
	case !ok:
		return refusedVersion, 0
	case h.from == t.cfg.Self:
		return refusedSelf, 0
	case h.to != t.cfg.Self:
		return refusedGone, 0
	case h.lane == laneStream && t.streamHandler(h.service) == nil:
		return refusedService, 0
	}
	return welcomed, version
}

package membership

import (
	"errors"
	"fmt"
	"strings"
)

// Bounds of the texts a member tells of itself, in bytes. Together they fill
// 477 of the 512 bytes that memberlist allows (memberlist.MetaMaxSize).
const (
	MaxID      = 64
	MaxZone    = 64
	MaxVersion = 32
	MaxAddr    = 100
)

// Meta is what a member tells of itself.
type Meta struct {
	ID       string // stable node ID
	Zone     string // failure domain, may be empty
	Version  string // of the software, for people
	Peer     string // host:port for peer calls
	KV       string // host:port of the KV's server, empty if there is none
	KVGossip string // host:port of the KV's own gossip, empty if there is none
	Draining bool
	ProtoMin uint8 // oldest peer protocol it speaks
	ProtoMax uint8 // newest peer protocol it speaks
}

// metaFormat is the first byte. Later formats only append, so a reader takes
// any text that begins with what it knows and ignores the rest.
const metaFormat = 1

const flagDraining = 1

var errMeta = errors.New("membership: malformed meta")

// check returns an error that names the field which is out of bounds.
func (m Meta) check() error {
	for _, f := range []struct {
		name, value string
		max         int
	}{
		{"ID", m.ID, MaxID},
		{"Zone", m.Zone, MaxZone},
		{"Version", m.Version, MaxVersion},
		{"Peer", m.Peer, MaxAddr},
		{"KV", m.KV, MaxAddr},
		{"KVGossip", m.KVGossip, MaxAddr},
	} {
		if len(f.value) > f.max {
			return fmt.Errorf("membership: %s has %d bytes, at most %d", f.name, len(f.value), f.max)
		}
		if strings.ContainsFunc(f.value, func(r rune) bool { return r <= ' ' || r > '~' }) {
			return fmt.Errorf("membership: %s %q: only printable ASCII without spaces", f.name, f.value)
		}
	}
	if m.ID == "" || strings.Contains(m.ID, "@") {
		return fmt.Errorf("membership: ID %q must not be empty or contain @", m.ID)
	}
	if m.ProtoMin == 0 || m.ProtoMin > m.ProtoMax {
		return fmt.Errorf("membership: protocol %d to %d: the lower must be at least 1 and not above the higher", m.ProtoMin, m.ProtoMax)
	}
	return nil
}

// append appends the encoding of m, which must have passed check:
//
//	format, flags, lowest and highest protocol (a byte each),
//	then ID, Zone, Version, Peer, KV, KVGossip, each after a byte of length.
func (m Meta) append(b []byte) []byte {
	var flags byte
	if m.Draining {
		flags |= flagDraining
	}
	b = append(b, metaFormat, flags, m.ProtoMin, m.ProtoMax)
	for _, s := range []string{m.ID, m.Zone, m.Version, m.Peer, m.KV, m.KVGossip} {
		b = append(b, byte(len(s)))
		b = append(b, s...)
	}
	return b
}

// parseMeta reads what append wrote. It keeps nothing of b.
func parseMeta(b []byte) (Meta, error) {
	if len(b) < 4 || b[0] < metaFormat {
		return Meta{}, errMeta
	}
	m := Meta{Draining: b[1]&flagDraining != 0, ProtoMin: b[2], ProtoMax: b[3]}
	b = b[4:]
	for _, s := range []*string{&m.ID, &m.Zone, &m.Version, &m.Peer, &m.KV, &m.KVGossip} {
		if len(b) < 1 || len(b) < 1+int(b[0]) {
			return Meta{}, errMeta
		}
		*s, b = string(b[1:1+int(b[0])]), b[1+int(b[0]):]
	}
	if err := m.check(); err != nil {
		return Meta{}, err
	}
	return m, nil
}

// speaks tells whether the two have a peer protocol in common.
func (m Meta) speaks(other Meta) bool {
	return m.ProtoMin <= other.ProtoMax && other.ProtoMin <= m.ProtoMax
}

package auth

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/peerlimit/peerlimit/cluster"
)

// changelogSize is how many of the latest changes the cluster's record names. A member that missed more than that
// between two confirmations (a quarter of a second apart while it is used) drops what it has cached. 1,024 of 8
// bytes are copied to the backup with every change.
const changelogSize = 1024

// changelogLife keeps the record for as long as anybody could care; it is one entry.
const changelogLife = 10 * 365 * 24 * time.Hour

// changelog is the record of changed keys that the cluster agrees on: one entry of an owned table, written before a
// revocation returns and read by each member to confirm what it has cached.
type changelog struct {
	// incarnation is drawn when the record is made. Where it differs from what a member knew, the record was lost
	// or merged, and nothing that was cached before can be confirmed.
	incarnation uint64
	// position counts the changes of this incarnation: the revocation sequence.
	position uint64
	// recent are the fingerprints of the last ones, the newest at the end. Never changed in place: copies of the
	// state share it.
	recent []uint64
}

// changelogOp reads the record after a position, or (publish) adds a change to it.
type changelogOp struct {
	publish     bool
	fingerprint uint64 // the changed key, where publish
	nonce       uint64 // becomes the incarnation where there is no record
	// What the asking member knows: the record up to position since of an incarnation, whose last change named
	// last. (A holder that took over from a copy short of the last change counts that position anew: its number
	// alone would not show it.)
	incarnation, since, last uint64
}

// changelogResult is what a reader learns: every change after position from, up to position.
type changelogResult struct {
	incarnation, position, from uint64
	// gap: what the reader knew does not lead here; it has missed changes that recent does not name.
	gap    bool
	recent []uint64
}

// changelogMachine runs the record in an owned table.
type changelogMachine struct{}

// Apply publishes or reads.
func (changelogMachine) Apply(c cluster.Call, s changelog, op changelogOp) (changelog, changelogResult, cluster.Effect) {
	effect := cluster.Effect{Expires: c.Now + int64(changelogLife)}
	if s.incarnation == 0 {
		s = changelog{incarnation: max(op.nonce, 1)}
		effect.Changed, effect.Wait = true, true
	}
	if op.publish {
		s.position++
		s.recent = append(slices.Clone(s.recent[max(0, len(s.recent)-changelogSize+1):]), op.fingerprint)
		effect.Changed, effect.Wait = true, true
		return s, changelogResult{incarnation: s.incarnation, position: s.position, from: s.position}, effect
	}
	return s, s.after(op), effect
}

// oldest is the position after which recent names every change.
func (s *changelog) oldest() uint64 { return s.position - uint64(len(s.recent)) }

func (s *changelog) after(op changelogOp) changelogResult {
	r := changelogResult{incarnation: s.incarnation, position: s.position, from: s.oldest(), recent: s.recent}
	if op.incarnation != s.incarnation || op.since > s.position || op.since < r.from {
		r.gap = true
		return r
	}
	known := int(op.since - r.from)
	if known > 0 && s.recent[known-1] != op.last {
		r.gap = true
		return r
	}
	r.from, r.recent = op.since, s.recent[known:]
	return r
}

// Merge joins two records that were both written while the network was split. If one continues the other it stands.
// Otherwise members of either side have missed changes of the other, so the result is a new incarnation.
func (changelogMachine) Merge(a, b changelog) changelog {
	switch {
	case a.incarnation == 0:
		return b
	case b.incarnation == 0 || a.continues(b):
		return a
	case b.continues(a):
		return b
	}
	if a.incarnation > b.incarnation || a.incarnation == b.incarnation && a.position > b.position {
		a, b = b, a
	}
	// Both sides compute the same, whichever of the two is "a" there.
	h := uint64(14695981039346656037) // FNV-1a's offset and prime, over words
	for _, w := range []uint64{a.incarnation, a.position, b.incarnation, b.position} {
		h = (h ^ w) * 1099511628211
	}
	for _, s := range []changelog{a, b} {
		var sum uint64 // of equal length and position, the order of the two is not known: a sum does not mind
		for i, f := range s.recent {
			sum += f * (2*uint64(i) + 1)
		}
		h += sum * 1099511628211
	}
	return changelog{incarnation: max(h, 1), position: max(a.position, b.position) + 1}
}

// continues reports whether s is b with nothing, or with further changes, added.
func (s changelog) continues(b changelog) bool {
	if s.incarnation != b.incarnation || s.position < b.position || b.position < s.oldest() {
		return false
	}
	from := max(s.oldest(), b.oldest())
	return slices.Equal(s.recent[from-s.oldest():b.position-s.oldest()], b.recent[from-b.oldest():])
}

var errEncoding = errors.New("auth: malformed record of changes")

func appendWords(b []byte, words []uint64) []byte {
	for _, w := range words {
		b = binary.LittleEndian.AppendUint64(b, w)
	}
	return b
}

func parseWords(b []byte) ([]uint64, error) {
	if len(b)%8 != 0 || len(b) > 8*changelogSize {
		return nil, fmt.Errorf("%w: %d bytes of changes, want a multiple of 8 up to %d", errEncoding, len(b), 8*changelogSize)
	}
	if len(b) == 0 {
		return nil, nil
	}
	words := make([]uint64, len(b)/8)
	for i := range words {
		words[i] = binary.LittleEndian.Uint64(b[8*i:])
	}
	return words, nil
}

// AppendState writes incarnation, position and the changes.
func (changelogMachine) AppendState(b []byte, s changelog, _ int64) []byte {
	return appendWords(appendWords(b, []uint64{s.incarnation, s.position}), s.recent)
}

// ParseState reads what AppendState wrote.
func (changelogMachine) ParseState(b []byte, _ int64) (s changelog, err error) {
	if len(b) < 16 {
		return changelog{}, fmt.Errorf("%w: %d bytes of state, want at least 16", errEncoding, len(b))
	}
	s.incarnation, s.position = binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:])
	if s.recent, err = parseWords(b[16:]); err != nil {
		return changelog{}, err
	}
	if uint64(len(s.recent)) > s.position {
		return changelog{}, fmt.Errorf("%w: %d changes up to position %d", errEncoding, len(s.recent), s.position)
	}
	return s, nil
}

const changelogOpSize = 1 + 5*8

// AppendOp writes an operation in 41 bytes.
func (changelogMachine) AppendOp(b []byte, op changelogOp) []byte {
	kind := byte(0)
	if op.publish {
		kind = 1
	}
	return appendWords(append(b, kind), []uint64{op.fingerprint, op.nonce, op.incarnation, op.since, op.last})
}

// ParseOp reads what AppendOp wrote.
func (changelogMachine) ParseOp(b []byte) (changelogOp, error) {
	if len(b) != changelogOpSize || b[0] > 1 {
		return changelogOp{}, fmt.Errorf("%w: operation of %d bytes, want %d", errEncoding, len(b), changelogOpSize)
	}
	w := func(i int) uint64 { return binary.LittleEndian.Uint64(b[1+8*i:]) }
	return changelogOp{publish: b[0] == 1, fingerprint: w(0), nonce: w(1), incarnation: w(2), since: w(3), last: w(4)}, nil
}

// AppendResult writes a result.
func (changelogMachine) AppendResult(b []byte, r changelogResult) []byte {
	gap := byte(0)
	if r.gap {
		gap = 1
	}
	return appendWords(appendWords(append(b, gap), []uint64{r.incarnation, r.position, r.from}), r.recent)
}

// ParseResult reads what AppendResult wrote.
func (changelogMachine) ParseResult(b []byte) (r changelogResult, err error) {
	if len(b) < 25 || b[0] > 1 {
		return changelogResult{}, fmt.Errorf("%w: %d bytes of result, want at least 25", errEncoding, len(b))
	}
	r.gap = b[0] == 1
	w := func(i int) uint64 { return binary.LittleEndian.Uint64(b[1+8*i:]) }
	r.incarnation, r.position, r.from = w(0), w(1), w(2)
	if r.recent, err = parseWords(b[25:]); err != nil {
		return changelogResult{}, err
	}
	if r.from > r.position || uint64(len(r.recent)) != r.position-r.from {
		return changelogResult{}, fmt.Errorf("%w: %d changes from position %d to %d", errEncoding, len(r.recent), r.from, r.position)
	}
	return r, nil
}

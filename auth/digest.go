package auth

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"unsafe"
)

// Digest is the SHA-256 of a key: all that is stored, cached, and sent between members.
type Digest [sha256.Size]byte

// DigestOf returns the digest of a key as it is presented, without allocating.
func DigestOf(key string) Digest {
	// sha256.Sum256([]byte(key)) copies the key to the heap (48 B, 15 ns); Sum256 only reads what it is given.
	return sha256.Sum256(unsafe.Slice(unsafe.StringData(key), len(key)))
}

// ParseDigest reads 64 hexadecimal digits, as sha256sum prints them.
func ParseDigest(s string) (Digest, error) {
	var d Digest
	if len(s) != hex.EncodedLen(len(d)) {
		return Digest{}, fmt.Errorf("auth: sha256: %d characters, want %d hexadecimal digits", len(s), hex.EncodedLen(len(d)))
	}
	if _, err := hex.Decode(d[:], []byte(s)); err != nil {
		return Digest{}, fmt.Errorf("auth: sha256: %w", err)
	}
	return d, nil
}

// Equal reports whether both are the same, in a time that does not depend on where they differ.
func (d *Digest) Equal(other *Digest) bool {
	return subtle.ConstantTimeCompare(d[:], other[:]) == 1
}

// IsZero reports whether the digest is unset.
func (d Digest) IsZero() bool { return d == Digest{} }

// Hex returns all 64 hexadecimal digits.
func (d Digest) Hex() string { return hex.EncodeToString(d[:]) }

// String returns the first 8 hexadecimal digits and an ellipsis: enough to tell keys apart in a log, too little to
// try guesses of a weak imported key against.
func (d Digest) String() string { return hex.EncodeToString(d[:4]) + "…" }

// Format prints what String returns, whatever the verb.
func (d Digest) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, d.String()) }

// LogValue logs what String returns.
func (d Digest) LogValue() slog.Value { return slog.StringValue(d.String()) }

// MarshalText returns what Hex returns.
func (d Digest) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, d[:]), nil }

// UnmarshalText reads what MarshalText wrote.
func (d *Digest) UnmarshalText(b []byte) (err error) {
	*d, err = ParseDigest(string(b))
	return err
}

// fingerprint is the first 8 bytes: what caches are indexed by and what the cluster's log of changes names. Two
// keys that share one (2^64 guesses to make such a pair on purpose) cost each other cache hits, never a wrong
// verdict: a cached digest is compared whole.
func (d *Digest) fingerprint() uint64 { return binary.LittleEndian.Uint64(d[:8]) }

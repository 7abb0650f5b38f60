package auth

import (
	"crypto/rand"
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"strings"
	"time"
	"unsafe"
)

// A key made here is PREFIX_ENV_ + 32 random base62 digits + 6 base62 digits of the CRC-32 (IEEE) of all before
// them, as GitHub's tokens have it since 2021 ("Behind GitHub's new authentication token formats"): a scanner can
// find leaked keys without asking, and a mistyped one costs no look-up. 32 digits are 190 bits; the display prefix
// gives 4 of them away, 166 stay secret. 46 characters with the default prefix fit one block of SHA-256 (55 bytes).
const (
	randomDigits   = 32
	checksumDigits = 6
	displayDigits  = 4

	// MaxKeyLength bounds a presented key, in bytes; a longer one is Malformed.
	MaxKeyLength = 512
	// MinImportLength bounds an imported key from below, in bytes: 16 characters of base62 are 95 bits.
	MinImportLength = 16

	// DefaultPrefix is what keys start with where Config.Prefix is empty.
	DefaultPrefix = "pl"
	maxPrefix     = 16
)

const base62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// Environment says whether a key is for real use or for trials. It is part of the key, so that one is not taken for
// the other by mistake; it grants and denies nothing by itself.
type Environment uint8

// The environments.
const (
	Live Environment = iota
	Test
)

// String returns "live" or "test".
func (e Environment) String() string {
	if e == Test {
		return "test"
	}
	return "live"
}

// format makes and checks keys of one prefix.
type format struct {
	live, test string // "pl_live_", "pl_test_"
}

func newFormat(prefix string) (format, error) {
	if len(prefix) == 0 || len(prefix) > maxPrefix {
		return format{}, fmt.Errorf("auth: Config.Prefix: %d characters, want 1 to %d", len(prefix), maxPrefix)
	}
	for i, c := range []byte(prefix) {
		if !(c >= 'a' && c <= 'z' || i > 0 && c >= '0' && c <= '9') {
			return format{}, fmt.Errorf("auth: Config.Prefix: %q, want lower-case letters and digits, a letter first", prefix)
		}
	}
	return format{live: prefix + "_live_", test: prefix + "_test_"}, nil
}

func (f format) start(env Environment) string {
	if env == Test {
		return f.test
	}
	return f.live
}

// generate returns a new key. It never fails: crypto/rand.Read ends the program where the system has no randomness.
func (f format) generate(env Environment) Secret {
	b := make([]byte, 0, len(f.live)+randomDigits+checksumDigits)
	b = append(b, f.start(env)...)
	b = appendRandom(b, randomDigits)
	b = appendChecksum(b, crc32.ChecksumIEEE(b))
	return NewSecret(string(b))
}

// appendRandom appends n uniformly random base62 digits.
func appendRandom(b []byte, n int) []byte {
	var buf [64]byte
	for n > 0 {
		_, _ = rand.Read(buf[:])
		for _, c := range buf {
			// 248 is the largest multiple of 62 in a byte; what is above would favour the first digits.
			if c < 248 && n > 0 {
				b = append(b, base62[c%62])
				n--
			}
		}
	}
	return b
}

func appendChecksum(b []byte, sum uint32) []byte {
	var digits [checksumDigits]byte
	for i := len(digits) - 1; i >= 0; i-- {
		digits[i] = base62[sum%62]
		sum /= 62
	}
	return append(b, digits[:]...)
}

// ours reports whether a key starts as ours do.
func (f format) ours(key string) bool {
	return strings.HasPrefix(key, f.live) || strings.HasPrefix(key, f.test)
}

// wellFormed reports whether a key is worth looking up: one of ours has to have the right length, digits and
// checksum; any other consists of visible ASCII characters.
func (f format) wellFormed(key string) bool {
	if len(key) == 0 || len(key) > MaxKeyLength {
		return false
	}
	if !f.ours(key) {
		for i := range len(key) {
			if key[i] <= ' ' || key[i] > '~' {
				return false
			}
		}
		return true
	}
	body := len(key) - checksumDigits
	if body != len(f.live)+randomDigits {
		return false
	}
	for i := len(f.live); i < len(key); i++ {
		c := key[i]
		if !(c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z') {
			return false
		}
	}
	var want [checksumDigits]byte
	sum := crc32.ChecksumIEEE(unsafe.Slice(unsafe.StringData(key), body)) // only read
	return key[body:] == string(appendChecksum(want[:0], sum))
}

// display returns what of a key is shown in lists and logs: its prefix and 4 digits; of a foreign key at most 4
// characters and never more than an eighth of it.
func (f format) display(key string) string {
	if f.ours(key) {
		return key[:min(len(key), len(f.live)+displayDigits)] + "…"
	}
	return key[:min(displayDigits, len(key)/8)] + "…"
}

// idEncoding keeps the order of the bytes it encodes, so that IDs sort by the time they were made.
var idEncoding = base32.NewEncoding("0123456789abcdefghijklmnopqrstuv").WithPadding(base32.NoPadding)

// newID returns "key_" and 26 digits: 48 bits of milliseconds since 1970, then 80 random bits. Keys are listed by
// it, so pages are in order of creation.
func newID(now time.Time) string {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], uint64(now.UnixMilli())<<16)
	_, _ = rand.Read(b[6:])
	return "key_" + idEncoding.EncodeToString(b[:])
}

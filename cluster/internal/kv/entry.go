package kv

import (
	"crypto/sha256"

	"github.com/cespare/xxhash/v2"
	"github.com/olric-data/olric/pkg/storage"
)

// entry is an envelope as olric handles it: storage.Entry. On its way in, an
// owner's entry is asked for its encoding, which goes to the backup, and then
// stored; both must be the same, so what the key is to hold is decided once,
// by whichever comes first. An entry that is not to be stored (an old copy, a
// fill that came too late) is decided to be what is there: so the backup is
// told of that again, and has it if it had not.
//
// Olric never sees a time to live: entries expire by the instant within, on the
// cluster's clock, each copy by itself.
type entry struct {
	shard   *shard // where it is going to be stored, nil for an answer
	owner   bool   // by the owner of the partition
	raw     envelope
	decided envelope
	bad     bool
}

var _ storage.Entry = (*entry)(nil)

func (e *entry) SetKey(string)       {}
func (e *entry) SetTTL(int64)        {}
func (e *entry) SetTimestamp(int64)  {}
func (e *entry) SetLastAccess(int64) {}
func (e *entry) TTL() int64          { return 0 }
func (e *entry) LastAccess() int64   { return 0 }

func (e *entry) Key() string {
	if e.raw == nil {
		return ""
	}
	return digest(string(e.raw.key()))
}

func (e *entry) SetValue(b []byte) {
	raw, err := parseEnvelope(b)
	e.raw, e.decided, e.bad = raw, nil, err != nil
}

func (e *entry) Value() []byte { return e.current() }

// Timestamp decides between copies of a key that olric finds on several
// members: the later version wins.
func (e *entry) Timestamp() int64 {
	if c := e.current(); c != nil {
		return c.version()
	}
	return 0
}

func (e *entry) current() envelope {
	if e.decided != nil {
		return e.decided
	}
	return e.raw
}

// Encode is called by an owner under the partition's lock, before the entry is
// stored, and for answers.
func (e *entry) Encode() []byte {
	if e.raw == nil {
		return nil
	}
	if e.shard != nil {
		if _, err := e.decide(hashOf(string(e.raw.key()))); err != nil {
			return nil
		}
	}
	return e.current()
}

// Decode reads an answer. The buffer it is given is reused by the caller.
func (e *entry) Decode(b []byte) {
	e.SetValue(append([]byte(nil), b...))
}

func (e *entry) decide(hkey uint64) (envelope, error) {
	if e.decided != nil {
		return e.decided, nil
	}
	if e.bad || e.raw == nil || e.shard == nil {
		return nil, errEnvelope
	}
	e.decided, _ = e.shard.resolve(hkey, e.raw)
	return e.decided, nil
}

// dmapName is the one map of ours in olric.
const dmapName = "peerlimit"

// digest is a key as olric knows it. Olric's keys are bounded by 255 bytes,
// are found by a hash that anyone can find collisions of, and appear in its
// log; a digest is none of that.
func digest(key string) string {
	d := sha256.Sum256([]byte(key))
	return string(d[:])
}

// hasher is given to olric, so that its hash of a key is known to us.
type hasher struct{}

func (hasher) Sum64(b []byte) uint64 { return xxhash.Sum64(b) }

// hashOf is olric's hash of a key: internal/cluster/partitions/hkey.go.
func hashOf(key string) uint64 { return hashOfDigest(digest(key)) }

func hashOfDigest(d string) uint64 { return xxhash.Sum64String(dmapName + d) }

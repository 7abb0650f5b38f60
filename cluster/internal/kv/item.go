package kv

import (
	"context"
	"fmt"
	"time"
)

// Item is what a key holds.
type Item struct {
	// Value must not be modified.
	Value []byte
	// Kind is KindValue or KindCounter.
	Kind Kind
	// Version is the instant, on the cluster's clock, at which it was written.
	Version int64
	// TTL is what is left of its time to live, above zero.
	TTL time.Duration
}

// backend is where entries are: olric, or this process alone.
type backend interface {
	// fetch returns the entry of key, which may be a tombstone or have
	// expired, or nil.
	fetch(ctx context.Context, key string) (envelope, error)
	// fetchSurely does the same, and says ErrUnavailable where it finds nothing
	// but some copy could not be asked for.
	fetchSurely(ctx context.Context, key string) (envelope, error)
	// store offers an entry to the key's owner. With sameKind it says
	// ErrWrongKind where the key has a counter's mark.
	store(ctx context.Context, key string, e envelope, sameKind bool) error
	time() int64
}

// Map is the calls that a store with any backend has. They may be made
// concurrently. Every one may answer [ErrUnavailable].
type Map struct{ backend }

// Now is the cluster's clock: nanoseconds since 1970 of the fastest clock among
// the members. Versions are instants on it.
func (m Map) Now() int64 { return m.time() }

// Get returns what key holds. ok is false where there is nothing.
func (m Map) Get(ctx context.Context, key string) (it Item, ok bool, err error) {
	if err := checkKey(key); err != nil {
		return Item{}, false, err
	}
	e, err := m.fetch(ctx, key)
	if err != nil {
		return Item{}, false, err
	}
	now := m.time()
	if !e.live(now) || string(e.key()) != key {
		return Item{}, false, nil
	}
	return Item{
		Value:   e.payload(),
		Kind:    e.kind(),
		Version: e.version(),
		TTL:     time.Duration(e.expires() - now),
	}, true, nil
}

// Set stores a value for ttl: 1 ms to [MaxTTL]. It is refused with
// [ErrWrongKind] where the key is a counter's.
func (m Map) Set(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	return m.write(ctx, modeWrite, KindValue, 0, key, value, ttl)
}

// Fill stores a value that was loaded, unless the key was written or deleted
// since the instant at which the load began, or within 100 ms before, or the
// load took more than 30 s. Whether it was stored is not told.
//
// It reads first: the owner decides by what it has itself, and one that has
// just become the owner may not have everything yet.
func (m Map) Fill(ctx context.Context, key string, value []byte, ttl time.Duration, since int64) error {
	if err := check(key, value, ttl); err != nil {
		return err
	}
	cur, err := m.fetchSurely(ctx, key)
	if err != nil {
		return err
	}
	if refuses(cur, key, since, m.time()) {
		return nil
	}
	return m.write(ctx, modeFill, KindValue, max(since, 0), key, value, ttl)
}

// SetIfAbsent stores a value unless key holds one, and tells whether it did.
func (m Map) SetIfAbsent(ctx context.Context, key string, value []byte, ttl time.Duration) (bool, error) {
	if err := check(key, value, ttl); err != nil {
		return false, err
	}
	expires := m.time() + int64(ttl)
	return m.settle(ctx, key, newEnvelope(modeAbsent, KindValue, 0, expires, key, value))
}

// settle offers an entry that may be refused and looks what came of it: its
// expiry, in nanoseconds, tells it from others.
func (m Map) settle(ctx context.Context, key string, e envelope) (bool, error) {
	cur, err := m.fetchSurely(ctx, key)
	if err != nil {
		return false, err
	}
	if cur.live(m.time()) && string(cur.key()) == key {
		if cur.kind() != e.kind() {
			return false, ErrWrongKind
		}
		return false, nil
	}
	if err := m.store(ctx, key, e, e.kind() == KindValue); err != nil {
		return false, err
	}
	got, err := m.fetch(ctx, key)
	if err != nil {
		return false, err
	}
	if got.live(m.time()) && got.kind() != e.kind() {
		return false, ErrWrongKind
	}
	return got != nil && got.kind() == e.kind() && got.expires() == e.expires() &&
		string(got.payload()) == string(e.payload()), nil
}

// Delete removes a value: for a minute nothing that was written before can
// bring it back. It is refused with [ErrWrongKind] where the key is a
// counter's.
func (m Map) Delete(ctx context.Context, key string) error {
	return m.bury(ctx, key, true)
}

// DeleteAt removes what was written before an instant, and nothing newer: a
// delete that could not be made then.
func (m Map) DeleteAt(ctx context.Context, key string, at int64) error {
	if err := checkKey(key); err != nil {
		return err
	}
	expires := m.time() + int64(TombstoneTTL)
	return m.store(ctx, key, newEnvelope(modeStored, KindTombstone, max(at, 0), expires, key, nil), true)
}

func (m Map) bury(ctx context.Context, key string, sameKind bool) error {
	if err := checkKey(key); err != nil {
		return err
	}
	expires := m.time() + int64(TombstoneTTL)
	return m.store(ctx, key, newEnvelope(modeWrite, KindTombstone, 0, expires, key, nil), sameKind)
}

// Mark makes key a counter's for ttl. It is refused with [ErrWrongKind] where
// the key holds a value.
func (m Map) Mark(ctx context.Context, key string, ttl time.Duration) error {
	if err := check(key, nil, ttl); err != nil {
		return err
	}
	expires := m.time() + int64(ttl)
	_, err := m.settle(ctx, key, newEnvelope(modeAbsent, KindCounter, 0, expires, key, nil))
	return err
}

// Unmark undoes Mark.
func (m Map) Unmark(ctx context.Context, key string) error {
	return m.bury(ctx, key, false)
}

func (m Map) write(ctx context.Context, md mode, k Kind, version int64, key string, value []byte, ttl time.Duration) error {
	if err := check(key, value, ttl); err != nil {
		return err
	}
	expires := m.time() + int64(ttl)
	return m.store(ctx, key, newEnvelope(md, k, version, expires, key, value), true)
}

func check(key string, value []byte, ttl time.Duration) error {
	if err := checkKey(key); err != nil {
		return err
	}
	if len(value) > MaxValue {
		return fmt.Errorf("kv: value has %d bytes: want at most %d", len(value), MaxValue)
	}
	if ttl < time.Millisecond || ttl > MaxTTL {
		return fmt.Errorf("kv: ttl %v: want %v to %v", ttl, time.Millisecond, MaxTTL)
	}
	return nil
}

func checkKey(key string) error {
	if len(key) == 0 || len(key) > MaxKey {
		return fmt.Errorf("kv: key has %d bytes: want 1 to %d", len(key), MaxKey)
	}
	return nil
}

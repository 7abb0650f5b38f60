package cache

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Set stores v for ttl, [MinTTL] to [MaxTTL]. An encoded value has at most
// [MaxValue] bytes. When it returns, no member that was reached answers an older
// value. Where the shared store can't take it, nothing is stored: the key is a
// miss then, and never the older value.
func (c *Cache[V]) Set(ctx context.Context, key string, v V, ttl time.Duration) error {
	if err := c.check(key); err != nil {
		return err
	}
	if err := checkTTL(ttl); err != nil {
		return err
	}
	b, err := c.encode(v)
	if err != nil {
		return err
	}
	defer c.observe("set", time.Now())
	c.stats.sets.Add(1)
	return c.write(ctx, key, func(ctx context.Context) error {
		return c.kv.Set(ctx, c.stored(key), b, ttl)
	})
}

func (c *Cache[V]) encode(v V) ([]byte, error) {
	b, err := c.codec.Encode(v)
	if err != nil {
		return nil, fmt.Errorf("cache: encode: %w", err)
	}
	if len(b) > MaxValue {
		return nil, fmt.Errorf("cache: %w value of %d bytes: want at most %d", ErrInvalid, len(b), MaxValue)
	}
	return b, nil
}

// Delete removes what key holds: when it returns, no member that was reached
// answers it any more, and for a minute no load that began before brings it back.
// Where the shared store can't be reached now the members remember that the key
// is void, and this one deletes it as soon as it can; the error is
// [ErrUnavailable] where it has too many to remember already.
func (c *Cache[V]) Delete(ctx context.Context, key string) error {
	if err := c.check(key); err != nil {
		return err
	}
	defer c.observe("delete", time.Now())
	c.stats.deletes.Add(1)
	return c.write(ctx, key, func(ctx context.Context) error {
		return c.kv.Delete(ctx, c.stored(key))
	})
}

// voidMargin is what members' clocks may differ by after they were exchanged:
// what was written that much after a write which failed is void with the rest.
const voidMargin = 10 * time.Millisecond

// write changes the shared store, then has all members forget the key.
func (c *Cache[V]) write(ctx context.Context, key string, change func(ctx context.Context) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	at := c.kv.Now() + int64(voidMargin)
	// The rest is for telling the members.
	deadline := time.Now().Add(c.cfg.Timeout)
	bounded, cancel := context.WithTimeout(ctx, c.cfg.Timeout*3/4)
	err := change(bounded)
	cancel()
	void := false
	if err != nil {
		if errors.Is(err, ErrWrongKind) {
			return ErrWrongKind
		}
		// It may have been done or not. Either way what was there before must
		// not be used any more.
		_ = c.swallow(context.Background(), err)
		c.stats.droppedWrites.Add(1)
		void = true
		if !c.graves.dig(key, at, true) {
			err = fmt.Errorf("%w: and %d writes are owed already", ErrUnavailable, maxGraves)
		} else {
			err = nil
		}
	}
	c.tell(ctx, key, at, void, deadline)
	if err == nil {
		err = ctx.Err()
	}
	return err
}

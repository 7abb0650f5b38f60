package cache

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/peerlimit/peerlimit/cluster"
)

// Counter is integers under keys, changed atomically over the whole cluster: an
// increment that was answered is counted once, through joins, leaves and the
// death of one member at a time.
//
// A counter is made by its first increment and ends a time to live later,
// however often it is incremented in between. (Stores that renew the time to live
// with every increment have counters that never end while there is traffic.)
//
// A key is a value or a counter, never both, of the caches and counters of one
// namespace: the other kind's methods say [ErrWrongKind]. While the shared store
// of the values can't be reached that is not checked; counting goes on.
//
// Its methods may be called concurrently. Their errors are [ErrInvalid],
// [ErrWrongKind], ctx's and those of [cluster.Table.Do]: after
// [cluster.ErrUncertain] the increment may have been counted, once.
type Counter struct {
	table *counterTable
	kv    KV // nil: there are no values
	cfg   Config
}

type counterTable = cluster.Table[counterState, counterOp, counterResult, counterMachine]

// NewCounter returns the counters of a namespace, of a cache of the same
// namespace if there is one. With Config.Cluster nil they are this process's,
// and Config.KV is to be the cache's. Of Config's other fields only Timeout and
// Logger matter.
func NewCounter(cfg Config) (*Counter, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	c := &Counter{cfg: cfg, kv: cfg.KV}
	if cfg.Cluster != nil {
		c.kv = cfg.Cluster.KV()
	}
	table, err := cluster.NewTable[counterState, counterOp, counterResult](cfg.Cluster, counterMachine{},
		cluster.TableConfig{Name: "cache:" + cfg.Namespace})
	if err != nil {
		return nil, fmt.Errorf("cache: counters: %w", err)
	}
	c.table = table
	return c, nil
}

// Close ends the counters on this member. It may be called twice.
func (c *Counter) Close() error { return c.table.Close() }

func (c *Counter) stored(key string) string { return c.cfg.Namespace + "\x00" + key }

// Incr adds delta to the counter and returns what it has then. The first
// increment makes it, for ttl; those that follow leave its end as it is, and
// their ttl has no effect. A sum that int64 doesn't hold is ErrInvalid, and
// changes nothing.
func (c *Counter) Incr(ctx context.Context, key string, delta int64, ttl time.Duration) (int64, error) {
	if err := checkKey(key); err != nil {
		return 0, err
	}
	if err := checkTTL(ttl); err != nil {
		return 0, err
	}
	r, err := c.table.Do(ctx, []byte(key), counterOp{what: counterAdd, delta: delta, ttl: int64(ttl)})
	switch {
	case err != nil:
		return 0, err
	case r.outcome == counterUncertain:
		return 0, cluster.ErrUncertain
	case r.outcome == counterOverflow:
		return 0, fmt.Errorf("cache: %w delta %d: the sum with %d is beyond 64 bits", ErrInvalid, delta, r.value)
	case r.outcome == counterMade:
		if err := c.mark(ctx, key, r.born, ttl); err != nil {
			return 0, err
		}
	}
	return r.value, nil
}

// Decr subtracts delta, see [Counter.Incr].
func (c *Counter) Decr(ctx context.Context, key string, delta int64, ttl time.Duration) (int64, error) {
	if delta == -delta && delta != 0 {
		return 0, fmt.Errorf("cache: %w delta %d: it has no opposite", ErrInvalid, delta)
	}
	return c.Incr(ctx, key, -delta, ttl)
}

// mark tells the values' store that the key is a counter's now. Where it holds a
// value the counter goes again: both sides write first and look then, so that at
// least one of two that come together sees the other.
func (c *Counter) mark(ctx context.Context, key string, born uint64, ttl time.Duration) error {
	if c.kv == nil {
		return nil
	}
	bounded, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	err := c.kv.Mark(bounded, c.stored(key), ttl)
	if !errors.Is(err, ErrWrongKind) {
		return nil // where it can't be told, counting goes on
	}
	if _, err := c.table.Do(context.WithoutCancel(ctx), []byte(key), counterOp{what: counterUndo, born: born}); err != nil {
		return errors.Join(ErrWrongKind, err)
	}
	return ErrWrongKind
}

// Get returns what the counter has; ok is false where there is none.
func (c *Counter) Get(ctx context.Context, key string) (value int64, ok bool, err error) {
	r, err := c.look(ctx, key)
	return r.value, err == nil && r.outcome == counterThere, err
}

// TTL returns what is left of the counter's time; ok is false where there is
// none.
func (c *Counter) TTL(ctx context.Context, key string) (ttl time.Duration, ok bool, err error) {
	r, err := c.look(ctx, key)
	return time.Duration(r.ttl), err == nil && r.outcome == counterThere, err
}

func (c *Counter) look(ctx context.Context, key string) (counterResult, error) {
	if err := checkKey(key); err != nil {
		return counterResult{}, err
	}
	r, err := c.table.Do(ctx, []byte(key), counterOp{what: counterGet})
	if err != nil || r.outcome == counterThere || c.kv == nil {
		return r, err
	}
	bounded, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	if it, ok, err := c.kv.Get(bounded, c.stored(key)); err == nil && ok && it.Kind == cluster.KindValue {
		return counterResult{}, ErrWrongKind
	}
	return r, nil
}

// Reset removes the counter, and tells whether there was one. The key may be a
// value's then.
func (c *Counter) Reset(ctx context.Context, key string) (bool, error) {
	r, err := c.look(ctx, key)
	if err != nil {
		return false, err
	}
	if r.outcome != counterThere {
		return false, nil
	}
	if r, err = c.table.Do(ctx, []byte(key), counterOp{what: counterReset}); err != nil {
		return false, err
	}
	if c.kv != nil {
		bounded, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
		defer cancel()
		// A mark that stays ends with the time that the counter had.
		_ = c.kv.Unmark(bounded, c.stored(key))
	}
	return r.outcome == counterThere, nil
}

package cache

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/peerlimit/peerlimit/cluster"
)

// What members tell each other: a byte that says what to do, an instant on the
// shared store's clock (8 bytes, big endian; 0 but for tellVoid), and a key or a
// prefix.
const (
	tellDrop   = 1 // forget the key
	tellVoid   = 2 // and don't use what the store has of it from before the instant
	tellPrefix = 3 // forget all keys with the prefix
)

var errTold = errors.New("cache: malformed invalidation")

// kind is the name of this cache's messages.
func (c *Cache[V]) kind() string { return "cache:" + c.cfg.Namespace }

func appendTold(b []byte, what byte, at int64, key string) []byte {
	b = append(b, what)
	b = binary.BigEndian.AppendUint64(b, uint64(at))
	return append(b, key...)
}

func parseTold(b []byte) (what byte, at int64, key string, err error) {
	if len(b) < 9 || b[0] < tellDrop || b[0] > tellPrefix || len(b) > 9+MaxKey {
		return 0, 0, "", errTold
	}
	what, at, key = b[0], int64(binary.BigEndian.Uint64(b[1:])), string(b[9:])
	if at < 0 || key == "" && what != tellPrefix {
		return 0, 0, "", errTold
	}
	return what, at, key, nil
}

// heard handles what a member tells, this one too.
func (c *Cache[V]) heard(_ context.Context, _ cluster.Member, payload []byte) ([]byte, error) {
	what, at, key, err := parseTold(payload)
	if err != nil {
		return nil, err
	}
	c.stats.invalidations.Add(1)
	switch what {
	case tellPrefix:
		c.forgetPrefix(key)
	case tellVoid:
		// Where there is no room for it the key may be read again from the
		// store until the other member has deleted it there.
		c.graves.dig(key, at, false)
		c.forget(key)
	default:
		c.forget(key)
	}
	return nil, nil
}

// forget drops what this member has of a key, and keeps what reads under way
// have seen from coming back.
func (c *Cache[V]) forget(key string) {
	c.near.Drop(key)
	c.negative.Drop(key)
	c.gets.forget(key)
	c.loads.forget(key)
}

func (c *Cache[V]) forgetPrefix(prefix string) {
	has := func(key string) bool { return strings.HasPrefix(key, prefix) }
	c.near.DropIf(has)
	c.negative.DropIf(has)
	c.gets.forgetIf(has)
	c.loads.forgetIf(has)
}

// tell has every member forget a key, and waits until those that can be reached
// have. It does so even if ctx has ended: the store was changed.
func (c *Cache[V]) tell(ctx context.Context, key string, at int64, void bool, deadline time.Time) {
	what := byte(tellDrop)
	if void {
		what = tellVoid
	}
	c.broadcast(ctx, appendTold(nil, what, at, key), deadline, func() { c.forget(key) })
}

func (c *Cache[V]) broadcast(ctx context.Context, payload []byte, deadline time.Time, here func()) {
	here() // at once, and even if this member can't reach itself
	ctx, cancel := context.WithDeadline(context.WithoutCancel(ctx), deadline)
	defer cancel()
	r := c.bus.Broadcast(ctx, c.kind(), payload)
	if !r.Complete() {
		c.stats.unreached.Add(uint64(r.Members - r.Reached))
	}
}

// DeletePrefix deletes all keys that begin with prefix, all keys of the
// namespace where it is empty, and returns how many there were. Keys that are
// set while it runs may stay. It takes as long as there are keys to delete. Where
// the shared store can't be asked the error is [ErrUnavailable], and what the
// members have near is dropped all the same.
func (c *Cache[V]) DeletePrefix(ctx context.Context, prefix string) (int, error) {
	if err := c.checkPrefix(prefix); err != nil {
		return 0, err
	}
	defer c.observe("delete_prefix", time.Now())
	c.stats.deletes.Add(1)
	stored, err := c.kv.Keys(ctx, c.stored(prefix))
	var deleted atomic.Int64
	var failed atomic.Pointer[error]
	if err == nil {
		err = c.deleteAll(ctx, stored, &deleted, &failed)
	}
	c.broadcast(ctx, appendTold(nil, tellPrefix, 0, prefix), time.Now().Add(c.cfg.Timeout), func() { c.forgetPrefix(prefix) })
	return int(deleted.Load()), err
}

func (c *Cache[V]) deleteAll(ctx context.Context, stored []string, deleted *atomic.Int64, failed *atomic.Pointer[error]) error {
	const workers = 16
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(workers, len(stored)) {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= len(stored) || failed.Load() != nil {
					return
				}
				bounded, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
				err := c.kv.Delete(bounded, stored[i])
				cancel()
				switch {
				case err == nil:
					deleted.Add(1)
				case !errors.Is(err, ErrWrongKind): // it has become a counter's since
					failed.CompareAndSwap(nil, &err)
				}
			}
		})
	}
	wg.Wait()
	if err := failed.Load(); err != nil {
		return fmt.Errorf("cache: delete prefix: %w", *err)
	}
	return nil
}

// Len counts the keys of the namespace that hold a value, on all members, which
// look at all they have for it. Where that can't be had the error is
// [ErrUnavailable].
func (c *Cache[V]) Len(ctx context.Context) (int, error) {
	if c.isClosed() {
		return 0, ErrClosed
	}
	defer c.observe("len", time.Now())
	n, err := c.kv.Count(ctx, c.stored(""))
	if err != nil {
		return 0, fmt.Errorf("cache: len: %w", err)
	}
	return n, nil
}

func (c *Cache[V]) checkPrefix(prefix string) error {
	if c.isClosed() {
		return ErrClosed
	}
	if len(prefix) > MaxKey {
		return fmt.Errorf("cache: %w prefix of %d bytes: want at most %d", ErrInvalid, len(prefix), MaxKey)
	}
	return nil
}

// payDebts deletes what this member could not delete, as soon as it can.
func (c *Cache[V]) payDebts(ctx context.Context) {
	ticker := time.NewTicker(payEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if c.graves.empty() {
			continue
		}
		for key, at := range c.graves.debts() {
			bounded, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
			err := c.kv.DeleteAt(bounded, c.stored(key), at)
			cancel()
			if err != nil && !errors.Is(err, ErrWrongKind) {
				break // not yet
			}
			c.graves.paid(key, at)
		}
	}
}

// alone is the bus of a member without others.
type alone struct {
	mu sync.Mutex // guards h
	h  map[string]func(context.Context, cluster.Member, []byte) ([]byte, error)
}

func (a *alone) Handle(kind string, h func(context.Context, cluster.Member, []byte) ([]byte, error)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.h == nil {
		a.h = make(map[string]func(context.Context, cluster.Member, []byte) ([]byte, error))
	}
	a.h[kind] = h
}

func (a *alone) Broadcast(context.Context, string, []byte) cluster.Receipt {
	return cluster.Receipt{Reached: 1, Members: 1} // the caller has told itself
}

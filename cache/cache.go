package cache

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/peerlimit/peerlimit/cache/internal/near"
	"github.com/peerlimit/peerlimit/cluster"
)

// Cache is values of one kind under keys of 1 to [MaxKey] bytes, any bytes. Its
// methods may be called concurrently. A value that it returns is shared with
// others that ask for it: it must not be changed.
//
// The errors of its methods are [ErrInvalid], [ErrWrongKind], [ErrClosed],
// ctx's, the codec's and a loader's; where there are others their comment says
// so. That the shared store can't be reached is no error.
type Cache[V any] struct {
	cfg      Config
	kv       KV
	bus      Bus
	codec    Codec
	trust    *near.Trust
	near     *near.Cache
	negative *near.Cache
	graves   *graves
	gets     *flights[got[V]]
	loads    *flights[V]
	stats    counters

	end     context.CancelFunc
	workers sync.WaitGroup
	once    sync.Once
	closed  chan struct{}
	release func()
}

// got is what a read found.
type got[V any] struct {
	v  V
	ok bool
	// failed says that the shared store did not answer.
	failed bool
}

// inUse keeps two caches of one namespace on one member apart: the second would
// take the first one's invalidations.
var inUse sync.Map // of useKey

type useKey struct {
	bus       Bus
	namespace string
}

// New returns a cache. Close it before its cluster's member.
func New[V any](cfg Config) (*Cache[V], error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	kv, bus, err := cfg.connect()
	if err != nil {
		return nil, err
	}
	use := useKey{bus, cfg.Namespace}
	if _, taken := inUse.LoadOrStore(use, struct{}{}); taken {
		return nil, fmt.Errorf("cache: %w Config.Namespace %q: this member has a cache of it already", ErrInvalid, cfg.Namespace)
	}
	c := &Cache[V]{
		cfg: cfg, kv: kv, bus: bus, codec: cfg.Codec,
		trust:   near.NewTrust(),
		graves:  newGraves(),
		closed:  make(chan struct{}),
		release: func() { inUse.Delete(use) },
	}
	if c.codec == nil {
		c.codec = codecFor[V]()
	}
	if c.near, err = near.New(cfg.Near, c.trust); err == nil {
		negatives := int64(cfg.NegativeKeys) * 256
		if cfg.NegativeTTL < 0 {
			negatives = 0
		}
		c.negative, err = near.New(negatives, c.trust)
	}
	if err != nil {
		c.release()
		return nil, fmt.Errorf("cache: near: %w", err)
	}
	c.gets, c.loads = newFlights[got[V]](&c.workers), newFlights[V](&c.workers)
	ctx, end := context.WithCancel(context.Background())
	c.end = end
	bus.Handle(c.kind(), c.heard)
	if h, ok := bus.(Hearing); ok {
		p := new(pulse)
		c.lookOnce(time.Now(), h, p)
		c.workers.Go(func() { c.watchPulse(ctx, h, p) })
	}
	c.workers.Go(func() { c.payDebts(ctx) })
	return c, nil
}

// Close ends the cache on this member, and the context of its loads, for whose
// return it waits. What is stored stays. It may be called twice.
func (c *Cache[V]) Close() error {
	c.once.Do(func() {
		close(c.closed)
		c.bus.Handle(c.kind(), nil)
		c.end()
		c.gets.close()
		c.loads.close()
		c.workers.Wait()
		c.near.Close()
		c.negative.Close()
		c.release()
	})
	return nil
}

func (c *Cache[V]) isClosed() bool {
	select {
	case <-c.closed:
		return true
	default:
		return false
	}
}

// stored is a key as the shared store has it. The zero byte is in no namespace,
// so that two never meet.
func (c *Cache[V]) stored(key string) string { return c.cfg.Namespace + "\x00" + key }

func (c *Cache[V]) check(key string) error {
	if c.isClosed() {
		return ErrClosed
	}
	return checkKey(key)
}

// Get returns what key holds; ok is false where that is nothing, or nothing that
// can be had now. A hit near is answered without an allocation.
func (c *Cache[V]) Get(ctx context.Context, key string) (v V, ok bool, err error) {
	if v, ok := c.nearby(key); ok {
		c.stats.nearHits.Add(1)
		return v, true, nil
	}
	return c.getShared(ctx, key)
}

// nearby returns what this member has of key itself.
func (c *Cache[V]) nearby(key string) (v V, ok bool) {
	kept, ok := c.near.Get(key)
	if ok {
		v, _ = kept.(V) // a nil interface is not a V, and is v
	}
	return v, ok
}

func (c *Cache[V]) getShared(ctx context.Context, key string) (v V, ok bool, err error) {
	if err := c.check(key); err != nil {
		return v, false, err
	}
	defer c.observe("get", time.Now())
	g, shared, err := c.gets.do(ctx, key, c.cfg.Timeout, func(ctx context.Context) (got[V], error) {
		return c.ask(ctx, key, c.cfg.Timeout)
	})
	if shared {
		c.stats.coalesced.Add(1)
	}
	return g.v, g.ok, err
}

// ask asks the shared store, and keeps the answer near.
func (c *Cache[V]) ask(ctx context.Context, key string, limit time.Duration) (got[V], error) {
	gen := c.near.Generation(key)
	// Another caller's work may have ended between this one's look near and its
	// turn: then it is there now.
	if v, ok := c.nearby(key); ok {
		c.stats.nearHits.Add(1)
		return got[V]{v: v, ok: true}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	it, ok, err := c.kv.Get(ctx, c.stored(key))
	if err != nil {
		return got[V]{failed: true}, c.swallow(ctx, err)
	}
	return c.take(key, gen, it, ok)
}

// take makes a value of what the shared store has, and keeps it near unless key
// was written since gen.
func (c *Cache[V]) take(key string, gen uint64, it cluster.KVItem, ok bool) (got[V], error) {
	switch {
	case !ok || c.graves.void(key, it.Version):
		c.stats.misses.Add(1)
		return got[V]{}, nil
	case it.Kind != cluster.KindValue:
		return got[V]{}, ErrWrongKind
	}
	var v V
	if err := c.codec.Decode(it.Value, &v); err != nil {
		// Of another version of the software, most likely: to be loaded again.
		c.stats.undecodable.Add(1)
		c.stats.misses.Add(1)
		c.cfg.Logger.Debug("a cached value can't be decoded", "namespace", c.cfg.Namespace, "error", err)
		return got[V]{}, nil
	}
	c.stats.hits.Add(1)
	c.near.Put(key, gen, v, len(it.Value), min(it.TTL, c.cfg.NearTTL))
	return got[V]{v: v, ok: true}, nil
}

// swallow counts an error of the shared store and makes a miss of it, unless it
// is for the caller.
func (c *Cache[V]) swallow(ctx context.Context, err error) error {
	switch {
	case errors.Is(err, ErrWrongKind):
		return ErrWrongKind
	case errors.Is(err, cluster.ErrKVOpen):
		c.stats.open.Add(1)
	case errors.Is(ctx.Err(), context.Canceled):
		return ctx.Err()
	default:
		c.stats.errors.Add(1)
	}
	return nil
}

// TTL returns what is left of a key's time to live; ok is false where it holds
// nothing, or nothing that can be had now.
func (c *Cache[V]) TTL(ctx context.Context, key string) (ttl time.Duration, ok bool, err error) {
	if err := c.check(key); err != nil {
		return 0, false, err
	}
	defer c.observe("ttl", time.Now())
	bounded, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	it, ok, err := c.kv.Get(bounded, c.stored(key))
	if err != nil {
		return 0, false, c.swallow(ctx, err)
	}
	if !ok || c.graves.void(key, it.Version) {
		return 0, false, nil
	}
	if it.Kind != cluster.KindValue {
		return 0, false, ErrWrongKind
	}
	return it.TTL, true, nil
}

// GetMany returns what the keys hold, without those that hold nothing, a
// counter, or nothing that can be had now. At most [MaxMany] keys.
func (c *Cache[V]) GetMany(ctx context.Context, keys []string) (map[string]V, error) {
	if len(keys) > MaxMany {
		return nil, fmt.Errorf("cache: %w: %d keys: want at most %d", ErrInvalid, len(keys), MaxMany)
	}
	found := make(map[string]V, len(keys))
	gens := make(map[string]uint64)
	var far []string
	for _, key := range keys {
		if err := c.check(key); err != nil {
			return nil, err
		}
		if _, ok := gens[c.stored(key)]; ok {
			continue
		}
		if v, ok := c.nearby(key); ok {
			c.stats.nearHits.Add(1)
			found[key] = v
			continue
		}
		gens[c.stored(key)] = c.near.Generation(key)
		far = append(far, c.stored(key))
	}
	if len(far) == 0 {
		return found, nil
	}
	defer c.observe("get_many", time.Now())
	bounded, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	items, err := c.kv.GetMany(bounded, far)
	for _, stored := range far {
		it, ok := items[stored]
		if !ok && err != nil {
			continue // counted below
		}
		key := strings.TrimPrefix(stored, c.cfg.Namespace+"\x00")
		if g, err := c.take(key, gens[stored], it, ok); err == nil && g.ok {
			found[key] = g.v
		}
	}
	if err != nil && !errors.Is(err, ErrWrongKind) {
		return found, c.swallow(ctx, err)
	}
	return found, nil
}

func (c *Cache[V]) observe(op string, began time.Time) {
	if c.cfg.Observe != nil {
		c.cfg.Observe(op, time.Since(began))
	}
}

package cache

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/peerlimit/peerlimit/cluster"
	"github.com/peerlimit/peerlimit/cluster/clustertest"
)

func TestMain(m *testing.M) { clustertest.Main(m) }

// hub is the network of a cluster in memory: every member has a bus on it.
type hub struct {
	mu    sync.Mutex // guards buses
	buses []*hubBus
}

// hubBus is a member's Bus and Hearing.
type hubBus struct {
	hub *hub

	mu       sync.Mutex // guards what follows
	handlers map[string]func(context.Context, cluster.Member, []byte) ([]byte, error)
	deaf     bool      // hears nothing
	heardAt  time.Time // zero: now, while it is not deaf
	lonely   bool      // has no others
}

var (
	_ Bus     = (*hubBus)(nil)
	_ Hearing = (*hubBus)(nil)
)

func (h *hub) bus() *hubBus {
	b := &hubBus{hub: h, handlers: make(map[string]func(context.Context, cluster.Member, []byte) ([]byte, error))}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.buses = append(h.buses, b)
	return b
}

func (b *hubBus) Handle(kind string, h func(context.Context, cluster.Member, []byte) ([]byte, error)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if h == nil {
		delete(b.handlers, kind)
		return
	}
	b.handlers[kind] = h
}

func (b *hubBus) Broadcast(ctx context.Context, kind string, payload []byte) cluster.Receipt {
	b.hub.mu.Lock()
	buses := b.hub.buses
	b.hub.mu.Unlock()
	r := cluster.Receipt{Members: len(buses)}
	for _, to := range buses {
		to.mu.Lock()
		h := to.handlers[kind]
		if to.deaf && to != b {
			h = nil
		}
		to.mu.Unlock()
		if h == nil {
			continue
		}
		if _, err := h(ctx, cluster.Member{}, payload); err == nil {
			r.Reached++
		}
	}
	return r
}

func (b *hubBus) LastHeard() time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.lonely:
		return time.Time{}
	case b.deaf:
		return b.heardAt
	default:
		return time.Now()
	}
}

func (b *hubBus) setDeaf(deaf bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.deaf, b.heardAt = deaf, time.Now()
}

func (b *hubBus) setLonely(lonely bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lonely = lonely
}

// store is a KVStore that can be made to fail and to wait.
type store struct {
	cluster.KVStore

	mu    sync.Mutex // guards what follows
	err   error
	gets  int
	after func(key string) // called by Get with what it found in hand
}

func newStore() *store { return &store{KVStore: cluster.LocalKV(0)} }

func (s *store) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

func (s *store) failing() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

func (s *store) afterGet(f func(key string)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.after = f
}

func (s *store) Get(ctx context.Context, key string) (it cluster.KVItem, ok bool, err error) {
	if err := s.failing(); err != nil {
		return it, false, err
	}
	it, ok, err = s.KVStore.Get(ctx, key)
	s.mu.Lock()
	s.gets++
	f := s.after
	s.mu.Unlock()
	if f != nil {
		f(key)
	}
	return it, ok, err
}

func (s *store) GetMany(ctx context.Context, keys []string) (map[string]cluster.KVItem, error) {
	if err := s.failing(); err != nil {
		return nil, err
	}
	return s.KVStore.GetMany(ctx, keys)
}

func (s *store) Set(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	if err := s.failing(); err != nil {
		return err
	}
	return s.KVStore.Set(ctx, key, value, ttl)
}

func (s *store) Fill(ctx context.Context, key string, value []byte, ttl time.Duration, since int64) error {
	if err := s.failing(); err != nil {
		return err
	}
	return s.KVStore.Fill(ctx, key, value, ttl, since)
}

func (s *store) Delete(ctx context.Context, key string) error {
	if err := s.failing(); err != nil {
		return err
	}
	return s.KVStore.Delete(ctx, key)
}

func (s *store) DeleteAt(ctx context.Context, key string, at int64) error {
	if err := s.failing(); err != nil {
		return err
	}
	return s.KVStore.DeleteAt(ctx, key, at)
}

func (s *store) Keys(ctx context.Context, prefix string) ([]string, error) {
	if err := s.failing(); err != nil {
		return nil, err
	}
	return s.KVStore.Keys(ctx, prefix)
}

func (s *store) Count(ctx context.Context, prefix string) (int, error) {
	if err := s.failing(); err != nil {
		return 0, err
	}
	return s.KVStore.Count(ctx, prefix)
}

func (s *store) Mark(ctx context.Context, key string, ttl time.Duration) error {
	if err := s.failing(); err != nil {
		return err
	}
	return s.KVStore.Mark(ctx, key, ttl)
}

func (s *store) asked() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.gets
}

// members is a number of caches over one store.
type members struct {
	store  *store
	kvs    []*cluster.KV
	buses  []*hubBus
	caches []*Cache[string]
}

func newMembers(t testing.TB, count int, change func(*Config)) *members {
	t.Helper()
	m := &members{store: newStore()}
	h := new(hub)
	for range count {
		kv, bus := cluster.NewKV(m.store, nil), h.bus()
		cfg := Config{Namespace: "test", KV: kv, Bus: bus}
		if change != nil {
			change(&cfg)
		}
		c, err := New[string](cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		m.kvs, m.buses, m.caches = append(m.kvs, kv), append(m.buses, bus), append(m.caches, c)
	}
	return m
}

// close is for bubbles of synctest, which end before Cleanup.
func (m *members) close() {
	for _, c := range m.caches {
		_ = c.Close()
	}
}

func mustSet(t testing.TB, c *Cache[string], key, value string, ttl time.Duration) {
	t.Helper()
	if err := c.Set(context.Background(), key, value, ttl); err != nil {
		t.Fatal(err)
	}
}

func mustHave(t testing.TB, c *Cache[string], key, want string) {
	t.Helper()
	v, ok, err := c.Get(context.Background(), key)
	if err != nil || !ok || v != want {
		t.Fatalf("get %q: got %q, %v, %v, want %q", key, v, ok, err, want)
	}
}

func mustMiss(t testing.TB, c *Cache[string], key string) {
	t.Helper()
	v, ok, err := c.Get(context.Background(), key)
	if err != nil || ok {
		t.Fatalf("get %q: got %q, %v, %v, want a miss", key, v, ok, err)
	}
}

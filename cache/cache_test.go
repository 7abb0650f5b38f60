package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestBasics(t *testing.T) {
	ctx := context.Background()
	m := newMembers(t, 2, nil)
	a, b := m.caches[0], m.caches[1]
	mustMiss(t, a, "k")
	mustSet(t, a, "k", "1", time.Minute)
	mustHave(t, b, "k", "1")
	mustHave(t, b, "k", "1")
	if st := b.Stats(); st.NearHits != 1 || st.Hits != 1 {
		t.Errorf("got %+v", st)
	}
	mustSet(t, a, "k", "2", time.Minute)
	mustHave(t, b, "k", "2")
	if ttl, ok, err := b.TTL(ctx, "k"); err != nil || !ok || ttl > time.Minute || ttl < 50*time.Second {
		t.Errorf("ttl: %v, %v, %v", ttl, ok, err)
	}
	if err := b.Delete(ctx, "k"); err != nil {
		t.Fatal(err)
	}
	mustMiss(t, a, "k")
	mustMiss(t, b, "k")
	if _, ok, err := b.TTL(ctx, "k"); err != nil || ok {
		t.Errorf("ttl of nothing: %v, %v", ok, err)
	}
}

func TestManyKeys(t *testing.T) {
	ctx := context.Background()
	m := newMembers(t, 2, nil)
	a, b := m.caches[0], m.caches[1]
	for i := range 30 {
		mustSet(t, a, fmt.Sprintf("user:%d", i), fmt.Sprint(i), time.Minute)
	}
	mustSet(t, a, "other", "x", time.Minute)
	other, err := New[string](Config{Namespace: "test2", KV: m.kvs[0]})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	mustSet(t, other, "user:1", "of another namespace", time.Minute)

	if n, err := b.Len(ctx); err != nil || n != 31 {
		t.Errorf("len: %d, %v", n, err)
	}
	mustHave(t, b, "user:3", "3") // near
	got, err := b.GetMany(ctx, []string{"user:1", "user:2", "user:2", "user:3", "nobody"})
	if err != nil || fmt.Sprint(got) != "map[user:1:1 user:2:2 user:3:3]" {
		t.Errorf("get many: %v, %v", got, err)
	}
	if n, err := a.DeletePrefix(ctx, "user:"); err != nil || n != 30 {
		t.Errorf("delete prefix: %d, %v", n, err)
	}
	for i := range 30 {
		mustMiss(t, b, fmt.Sprintf("user:%d", i))
	}
	mustHave(t, b, "other", "x")
	mustHave(t, other, "user:1", "of another namespace")
	if n, err := a.DeletePrefix(ctx, ""); err != nil || n != 1 {
		t.Errorf("delete all: %d, %v", n, err)
	}
}

func TestBounds(t *testing.T) {
	ctx := context.Background()
	c, err := New[[]byte](Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, size := range []int{0, 1, MaxValue} {
		v := bytes.Repeat([]byte{7}, size)
		if err := c.Set(ctx, "k", v, time.Minute); err != nil {
			t.Fatalf("%d bytes: %v", size, err)
		}
		for range 2 { // shared, and near
			if got, ok, err := c.Get(ctx, "k"); err != nil || !ok || !bytes.Equal(got, v) {
				t.Fatalf("%d bytes: got %d, %v, %v", size, len(got), ok, err)
			}
		}
	}
	refused := func(what, want string, err error) {
		t.Helper()
		if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want ErrInvalid with %q", what, err, want)
		}
	}
	refused("value", "1048577 bytes: want at most 1048576", c.Set(ctx, "k", make([]byte, MaxValue+1), time.Minute))
	for _, k := range []string{"x", strings.Repeat("k", 256), strings.Repeat("k", MaxKey), "a\x00b", "\xff\xfe"} {
		if err := c.Set(ctx, k, []byte(k), time.Minute); err != nil {
			t.Fatalf("%.20q: %v", k, err)
		}
		if got, ok, err := c.Get(ctx, k); err != nil || !ok || string(got) != k {
			t.Fatalf("%.20q: got %.20q, %v, %v", k, got, ok, err)
		}
	}
	for _, k := range []string{"", strings.Repeat("k", MaxKey+1)} {
		want := fmt.Sprintf("key of %d bytes: want 1 to 4096", len(k))
		_, _, err := c.Get(ctx, k)
		refused("get", want, err)
		refused("set", want, c.Set(ctx, k, nil, time.Minute))
		refused("delete", want, c.Delete(ctx, k))
		_, err = c.GetMany(ctx, []string{"x", k})
		refused("get many", want, err)
		_, err = c.GetOrLoad(ctx, k, time.Minute, nil)
		refused("load", want, err)
		_, _, err = c.TTL(ctx, k)
		refused("ttl", want, err)
	}
	for _, ttl := range []time.Duration{0, -1, time.Millisecond - 1, 100 * 365 * 24 * time.Hour} {
		refused("set", "ttl", c.Set(ctx, "k", nil, ttl))
		_, err := c.GetOrLoad(ctx, "nobody", ttl, nil)
		refused("load", "ttl", err)
	}
	if err := c.Set(ctx, "k", nil, time.Millisecond); err != nil {
		t.Error(err)
	}
	_, err = c.GetMany(ctx, make([]string, MaxMany+1))
	refused("get many", "10001 keys", err)
	_, err = c.DeletePrefix(ctx, strings.Repeat("k", MaxKey+1))
	refused("prefix", "4097 bytes", err)

	for want, cfg := range map[string]Config{
		"Namespace":    {Namespace: "UPPER"},
		"NearTTL":      {NearTTL: 2 * time.Hour},
		"NegativeTTL":  {NegativeTTL: 1},
		"NegativeKeys": {NegativeKeys: -1},
		"Timeout":      {Timeout: -1},
		"LoadTimeout":  {LoadTimeout: 2 * time.Hour},
		"Config.Bus":   {Bus: new(alone)},
	} {
		_, err := New[string](cfg)
		refused(want, want, err)
	}
}

func TestOneCacheOfANamespace(t *testing.T) {
	m := newMembers(t, 1, nil)
	cfg := Config{Namespace: "test", KV: m.kvs[0], Bus: m.buses[0]}
	if _, err := New[string](cfg); !errors.Is(err, ErrInvalid) {
		t.Fatalf("got %v", err)
	}
	_ = m.caches[0].Close()
	_ = m.caches[0].Close()
	c, err := New[string](cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx := context.Background()
	old := m.caches[0]
	_, _, err = old.Get(ctx, "k")
	_, err2 := old.GetOrLoad(ctx, "k", time.Minute, nil)
	_, err3 := old.Len(ctx)
	_, err4 := old.DeletePrefix(ctx, "")
	for i, err := range []error{err, err2, err3, err4, old.Set(ctx, "k", "", time.Minute), old.Delete(ctx, "k")} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("%d: got %v", i, err)
		}
	}
}

// A value of a type that has changed is a miss, and is replaced.
func TestUndecodable(t *testing.T) {
	type user struct{ Name string }
	ctx := context.Background()
	m := newMembers(t, 1, nil)
	mustSet(t, m.caches[0], "k", "not a user", time.Minute)
	c, err := New[user](Config{Namespace: "test", KV: m.kvs[0]})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, ok, err := c.Get(ctx, "k"); ok || err != nil {
		t.Fatalf("got %v, %v", ok, err)
	}
	time.Sleep(150 * time.Millisecond) // beyond the margin within which a load is not stored
	u, err := c.GetOrLoad(ctx, "k", time.Minute, func(context.Context) (user, error) { return user{"Ada"}, nil })
	if err != nil || u.Name != "Ada" {
		t.Fatalf("got %v, %v", u, err)
	}
	if st := c.Stats(); st.Undecodable != 2 || st.Loads != 1 {
		t.Errorf("got %+v", st)
	}
	if u, ok, err := c.Get(ctx, "k"); err != nil || !ok || u.Name != "Ada" {
		t.Errorf("got %v, %v, %v", u, ok, err)
	}
	if err := (Raw{}).Decode(nil, &u); err == nil {
		t.Error("Raw decoded into a struct")
	}
	if _, err := (Raw{}).Encode(u); err == nil {
		t.Error("Raw encoded a struct")
	}
}

// No entry outlives its time to live, near or not.
func TestTimeToLive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMembers(t, 1, nil)
		defer m.close()
		c := m.caches[0]
		mustSet(t, c, "k", "v", 10*time.Second)
		time.Sleep(5 * time.Second)
		mustHave(t, c, "k", "v")
		time.Sleep(5*time.Second - time.Nanosecond)
		mustHave(t, c, "k", "v")
		time.Sleep(time.Nanosecond)
		mustMiss(t, c, "k")

		// And near none is older than NearTTL.
		mustSet(t, c, "k", "v", time.Hour)
		mustHave(t, c, "k", "v")
		before := m.store.asked()
		time.Sleep(30*time.Second - time.Nanosecond)
		mustHave(t, c, "k", "v")
		if m.store.asked() != before {
			t.Error("the store was asked")
		}
		time.Sleep(time.Nanosecond)
		mustHave(t, c, "k", "v")
		if m.store.asked() == before {
			t.Error("the store was not asked")
		}
	})
}

func TestNearIsBounded(t *testing.T) {
	m := newMembers(t, 1, func(c *Config) { c.Near = 64 << 10 })
	c := m.caches[0]
	for i := range 1000 {
		key := fmt.Sprint(i)
		mustSet(t, c, key, strings.Repeat("x", 1000), time.Minute)
		mustHave(t, c, key, strings.Repeat("x", 1000))
	}
	if st := c.Stats(); st.NearBytes > 64<<10 || st.NearKeys < 30 {
		t.Errorf("got %+v", st)
	}
	off := newMembers(t, 1, func(c *Config) { c.Near = -1 })
	mustSet(t, off.caches[0], "k", "v", time.Minute)
	mustHave(t, off.caches[0], "k", "v")
	mustHave(t, off.caches[0], "k", "v")
	if st := off.caches[0].Stats(); st.NearHits != 0 || st.Hits != 2 {
		t.Errorf("got %+v", st)
	}
}

func TestObserve(t *testing.T) {
	ctx := context.Background()
	ops := make(map[string]int)
	m := newMembers(t, 1, func(c *Config) { c.Observe = func(op string, took time.Duration) { ops[op]++ } })
	c := m.caches[0]
	mustSet(t, c, "k", "v", time.Minute)
	mustHave(t, c, "k", "v")
	mustHave(t, c, "k", "v") // near: not told
	_, _ = c.GetOrLoad(ctx, "l", time.Minute, func(context.Context) (string, error) { return "", nil })
	_, _ = c.GetMany(ctx, []string{"m"})
	_, _, _ = c.TTL(ctx, "k")
	_, _ = c.Len(ctx)
	_, _ = c.DeletePrefix(ctx, "")
	_ = c.Delete(ctx, "k")
	if got := fmt.Sprint(ops); got != "map[delete:1 delete_prefix:1 get:1 get_many:1 len:1 load:1 set:1 ttl:1]" {
		t.Errorf("got %s", got)
	}
}

package kv

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// stores runs f on a store of one process and on one of three members, where a
// second member looks at what the first did.
func stores(t *testing.T, f func(t *testing.T, a, b Map)) {
	t.Run("local", func(t *testing.T) {
		l := NewLocal(0)
		f(t, l.Map, l.Map)
	})
	t.Run("members", func(t *testing.T) {
		n := newTestNet(t)
		a, b, _ := n.start(nil), n.start(nil), n.start(nil)
		n.whole()
		f(t, a.Map, b.Map)
	})
}

func mustGet(t *testing.T, m Map, key string) Item {
	t.Helper()
	it, ok, err := m.Get(context.Background(), key)
	if err != nil || !ok {
		t.Fatalf("get %.40q: %v, %v", key, ok, err)
	}
	return it
}

func mustMiss(t *testing.T, m Map, key string) {
	t.Helper()
	it, ok, err := m.Get(context.Background(), key)
	if err != nil || ok {
		t.Fatalf("get %.40q: got %.40q, %v, %v, want nothing", key, it.Value, ok, err)
	}
}

func TestMap(t *testing.T) {
	ctx := context.Background()
	stores(t, func(t *testing.T, a, b Map) {
		t.Run("set, get, delete", func(t *testing.T) {
			mustMiss(t, b, "k")
			if err := a.Set(ctx, "k", []byte("v"), time.Minute); err != nil {
				t.Fatal(err)
			}
			it := mustGet(t, b, "k")
			if string(it.Value) != "v" || it.Kind != KindValue || it.TTL > time.Minute || it.TTL < 50*time.Second {
				t.Fatalf("got %+v", it)
			}
			if err := b.Delete(ctx, "k"); err != nil {
				t.Fatal(err)
			}
			mustMiss(t, a, "k")
			if err := b.Delete(ctx, "k"); err != nil {
				t.Fatal(err)
			}
		})
		t.Run("sizes", func(t *testing.T) {
			big := make([]byte, MaxValue)
			for i := range big {
				big[i] = byte(rand.Int())
			}
			for _, v := range [][]byte{{}, {7}, big} {
				if err := a.Set(ctx, "size", v, time.Minute); err != nil {
					t.Fatalf("%d bytes: %v", len(v), err)
				}
				if it := mustGet(t, b, "size"); !bytes.Equal(it.Value, v) {
					t.Fatalf("%d bytes: got %d", len(v), len(it.Value))
				}
			}
			err := a.Set(ctx, "size", append(big, 0), time.Minute)
			if err == nil || !strings.Contains(err.Error(), "1048577 bytes: want at most 1048576") {
				t.Fatalf("got %v", err)
			}
		})
		t.Run("keys", func(t *testing.T) {
			for _, k := range []string{"x", strings.Repeat("k", 256), strings.Repeat("k", MaxKey), "a\x00b", "a\x00c", "\xff\xfe", "\r\n*1"} {
				if err := a.Set(ctx, k, []byte(k), time.Minute); err != nil {
					t.Fatalf("%.20q: %v", k, err)
				}
			}
			for _, k := range []string{"x", strings.Repeat("k", 256), strings.Repeat("k", MaxKey), "a\x00b", "a\x00c", "\xff\xfe", "\r\n*1"} {
				if it := mustGet(t, b, k); string(it.Value) != k {
					t.Fatalf("%.20q: got %.20q", k, it.Value)
				}
			}
			for _, k := range []string{"", strings.Repeat("k", MaxKey+1)} {
				if err := a.Set(ctx, k, nil, time.Minute); err == nil || !strings.Contains(err.Error(), "want 1 to") {
					t.Fatalf("%d bytes: got %v", len(k), err)
				}
				if _, _, err := a.Get(ctx, k); err == nil {
					t.Fatalf("%d bytes: got no error", len(k))
				}
			}
		})
		t.Run("times to live", func(t *testing.T) {
			for _, ttl := range []time.Duration{0, -1, time.Millisecond - 1, 100 * 365 * 24 * time.Hour} {
				if err := a.Set(ctx, "ttl", nil, ttl); err == nil || !strings.Contains(err.Error(), "want 1ms to") {
					t.Fatalf("%v: got %v", ttl, err)
				}
			}
			if err := a.Set(ctx, "ttl", nil, time.Millisecond); err != nil {
				t.Fatal(err)
			}
			time.Sleep(5 * time.Millisecond)
			mustMiss(t, b, "ttl")
			if err := a.Set(ctx, "ttl", nil, MaxTTL); err != nil {
				t.Fatal(err)
			}
			mustGet(t, b, "ttl")
		})
		t.Run("fill", func(t *testing.T) {
			since := a.Now()
			if err := a.Fill(ctx, "fill", []byte("1"), time.Minute, since); err != nil {
				t.Fatal(err)
			}
			mustGet(t, b, "fill")
			since = a.Now()
			if err := b.Delete(ctx, "fill"); err != nil {
				t.Fatal(err)
			}
			if err := a.Fill(ctx, "fill", []byte("old"), time.Minute, since); err != nil {
				t.Fatal(err)
			}
			mustMiss(t, b, "fill")
			time.Sleep(time.Duration(fillMargin) + 20*time.Millisecond)
			if err := a.Fill(ctx, "fill", []byte("new"), time.Minute, a.Now()); err != nil {
				t.Fatal(err)
			}
			if it := mustGet(t, b, "fill"); string(it.Value) != "new" {
				t.Fatalf("got %q", it.Value)
			}
			if err := a.Fill(ctx, "slow", []byte("old"), time.Minute, a.Now()-maxLoad-1); err != nil {
				t.Fatal(err)
			}
			mustMiss(t, b, "slow")
		})
		t.Run("delete at", func(t *testing.T) {
			at := a.Now()
			time.Sleep(10 * time.Millisecond)
			if err := a.Set(ctx, "at", []byte("new"), time.Minute); err != nil {
				t.Fatal(err)
			}
			if err := b.DeleteAt(ctx, "at", at); err != nil {
				t.Fatal(err)
			}
			mustGet(t, b, "at")
			time.Sleep(10 * time.Millisecond)
			if err := b.DeleteAt(ctx, "at", b.Now()); err != nil {
				t.Fatal(err)
			}
			mustMiss(t, a, "at")
		})
		t.Run("set if absent", func(t *testing.T) {
			for i, want := range []bool{true, false, false} {
				got, err := []Map{a, b}[i%2].SetIfAbsent(ctx, "absent", []byte{byte(i)}, time.Minute)
				if err != nil || got != want {
					t.Fatalf("%d: got %v, %v", i, got, err)
				}
			}
			if it := mustGet(t, b, "absent"); it.Value[0] != 0 {
				t.Fatalf("got %v", it.Value)
			}
			if err := b.Delete(ctx, "absent"); err != nil {
				t.Fatal(err)
			}
			if got, err := a.SetIfAbsent(ctx, "absent", nil, time.Minute); err != nil || !got {
				t.Fatalf("after a delete: got %v, %v", got, err)
			}
		})
		t.Run("a key is a value or a counter", func(t *testing.T) {
			if err := a.Mark(ctx, "counter", time.Minute); err != nil {
				t.Fatal(err)
			}
			if it := mustGet(t, b, "counter"); it.Kind != KindCounter || len(it.Value) != 0 {
				t.Fatalf("got %+v", it)
			}
			for what, err := range map[string]error{
				"set":    b.Set(ctx, "counter", nil, time.Minute),
				"fill":   b.Fill(ctx, "counter", nil, time.Minute, b.Now()+int64(time.Second)),
				"delete": b.Delete(ctx, "counter"),
			} {
				if !errors.Is(err, ErrWrongKind) {
					t.Errorf("%s: got %v", what, err)
				}
			}
			if _, err := b.SetIfAbsent(ctx, "counter", nil, time.Minute); !errors.Is(err, ErrWrongKind) {
				t.Errorf("set if absent: got %v", err)
			}
			if err := a.Mark(ctx, "counter", time.Minute); err != nil {
				t.Errorf("again: got %v", err)
			}
			if err := b.Unmark(ctx, "counter"); err != nil {
				t.Fatal(err)
			}
			if err := a.Set(ctx, "counter", nil, time.Minute); err != nil {
				t.Fatal(err)
			}
			if err := b.Mark(ctx, "counter", time.Minute); !errors.Is(err, ErrWrongKind) {
				t.Errorf("mark: got %v", err)
			}
		})
	})
}

func TestKeysAndCount(t *testing.T) {
	n := newTestNet(t)
	ctx := context.Background()
	a, b, _ := n.start(nil), n.start(nil), n.start(nil)
	n.whole()
	n.fill(a, 500)
	for _, k := range []string{"other-1", "other-2"} {
		if err := a.Set(ctx, k, nil, time.Minute); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.Delete(ctx, "other-2"); err != nil {
		t.Fatal(err)
	}
	if err := a.Mark(ctx, "other-3", time.Minute); err != nil {
		t.Fatal(err)
	}
	for prefix, want := range map[string]int{"": 501, "key-": 500, "other-": 1, "nobody": 0} {
		count, err := b.Count(ctx, prefix)
		if err != nil || count != want {
			t.Errorf("count %q: got %d, %v, want %d", prefix, count, err, want)
		}
		keys, err := b.Keys(ctx, prefix)
		if err != nil || len(keys) != want {
			t.Errorf("keys %q: got %d, %v, want %d", prefix, len(keys), err, want)
		}
	}
	many, err := b.GetMany(ctx, []string{key(1), key(2), "nobody", "other-2"})
	if err != nil || len(many) != 2 || string(many[key(2)].Value) != value(2) {
		t.Errorf("get many: got %v, %v", many, err)
	}
}

// A member whose clock is five seconds behind writes, deletes and reads as any
// other.
func TestSkewedClocks(t *testing.T) {
	n := newTestNet(t)
	ctx := context.Background()
	ahead := n.start(func(c *Config) {
		c.clock = newClock()
		c.clock.baseNano += int64(5 * time.Second)
	})
	behind := n.start(nil)
	n.whole()
	for i := range 50 {
		k := key(i)
		if err := ahead.Set(ctx, k, []byte("1"), 2*time.Second); err != nil {
			t.Fatal(err)
		}
		if it := mustGet(t, behind.Map, k); it.TTL > 2*time.Second || it.TTL < time.Second {
			t.Fatalf("time to live: %v", it.TTL)
		}
		if err := behind.Set(ctx, k, []byte("2"), time.Minute); err != nil {
			t.Fatal(err)
		}
		if it := mustGet(t, ahead.Map, k); string(it.Value) != "2" {
			t.Fatalf("got %q", it.Value)
		}
		if err := behind.Delete(ctx, k); err != nil {
			t.Fatal(err)
		}
		mustMiss(t, ahead.Map, k)
	}
	c := newClock()
	if c.observe(c.now() + int64(time.Hour)) {
		t.Error("a clock an hour ahead was followed")
	}
}

// Two keys with one hash don't see each other's values.
func TestCollision(t *testing.T) {
	g := newEngine(newClock(), DefaultMaxBytes)
	s := g.newShard()
	const hkey = 42
	put := func(key, value string) {
		e, _ := s.resolve(hkey, newEnvelope(modeWrite, KindValue, 0, g.clock.now()+int64(time.Hour), key, []byte(value)))
		s.put(hkey, e)
	}
	put("a", "of a")
	put("b", "of b")
	if e := s.get(hkey); string(e.key()) != "b" || string(e.payload()) != "of b" {
		t.Fatalf("got %q", e)
	}
	put("a", "of a")
	if e := s.get(hkey); string(e.key()) != "a" {
		t.Fatalf("got %q", e)
	}
}

func TestMemoryBound(t *testing.T) {
	const bound = 1 << 20
	l := NewLocal(bound)
	ctx := context.Background()
	for i := range 5000 {
		if err := l.Set(ctx, key(i), make([]byte, 1000), time.Duration(1+i)*time.Minute); err != nil {
			t.Fatal(err)
		}
		if st := l.Stats(); st.Bytes > bound+bound/50 {
			t.Fatalf("after %d: %+v", i, st)
		}
	}
	st := l.Stats()
	if st.EvictedLive == 0 || st.Entries < 500 {
		t.Errorf("got %+v", st)
	}
	// The soonest to expire went first: of the last thousand most are there.
	there := 0
	for i := 4500; i < 5000; i++ {
		if _, ok, _ := l.Get(ctx, key(i)); ok {
			there++
		}
	}
	if there < 350 {
		t.Errorf("%d of the 500 that live longest are there", there)
	}
	var sum int64
	for _, s := range l.l.engine.all() {
		s.each(func(_ uint64, e envelope) { sum += size(e) })
	}
	if sum != st.Bytes {
		t.Errorf("%d bytes are held, %d are counted", sum, st.Bytes)
	}
}

// What was moved to another member is still found for a moment, and is neither
// counted nor moved again.
func TestMovedIsFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClock()
		root := &fork{root: newEngine(c, 1<<20)}
		src, _ := root.Fork(nil)
		expires := c.now() + int64(time.Hour)
		e := newEnvelope(modeStored, KindTombstone, 7, expires, "k", nil)
		hkey := hashOf("k")
		if err := src.PutRaw(hkey, e); err != nil {
			t.Fatal(err)
		}
		it := src.TransferIterator()
		if !it.Next() {
			t.Fatal("nothing to move")
		}
		_, i, err := it.Export()
		if err != nil {
			t.Fatal(err)
		}
		if err := it.Drop(i); err != nil {
			t.Fatal(err)
		}
		if got, err := src.GetRaw(hkey); err != nil || string(got) != string(e) {
			t.Errorf("got %q, %v", got, err)
		}
		if src.Stats().Length != 0 || src.Stats().Inuse != 0 || it.Next() {
			t.Errorf("it is still counted: %+v, or moved", src.Stats())
		}
		// A write of the same key is what is there; an older one too.
		if err := src.PutRaw(hkey, newEnvelope(modeStored, KindValue, 6, expires, "k", []byte("v"))); err != nil {
			t.Fatal(err)
		}
		if got, _ := src.GetRaw(hkey); envelope(got).version() != 6 {
			t.Errorf("got %q", got)
		}
		it.Next()
		_, i, _ = it.Export()
		_ = it.Drop(i)
		time.Sleep(time.Duration(movedFor) + time.Millisecond)
		if got, err := src.GetRaw(hkey); err == nil {
			t.Errorf("after a while: got %q", got)
		}
		sh := src.(*fork).shard
		if sh.reap(); sh.moved != nil {
			t.Errorf("%d are still there", len(sh.moved))
		}
	})
}

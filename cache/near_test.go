package cache

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// The four interleavings that package near explains, each made to happen.
func TestNearInterleavings(t *testing.T) {
	ctx := context.Background()
	t.Run("read asks, write, drop, put", func(t *testing.T) {
		m := newMembers(t, 2, nil)
		reader, writer := m.caches[0], m.caches[1]
		mustSet(t, writer, "k", "old", time.Minute)
		m.store.afterGet(func(string) {
			m.store.afterGet(nil)
			// The reader has the old value in hand.
			mustSet(t, writer, "k", "new", time.Minute)
		})
		mustHave(t, reader, "k", "old") // it came at the same time as the write
		mustHave(t, reader, "k", "new")
		if st := reader.Stats(); st.NearHits != 0 {
			t.Errorf("the old value was near: %+v", st)
		}
	})
	t.Run("read asks, write, put, drop", func(t *testing.T) {
		m := newMembers(t, 2, nil)
		reader, writer := m.caches[0], m.caches[1]
		mustSet(t, writer, "k", "old", time.Minute)
		mustHave(t, reader, "k", "old") // is near now
		mustSet(t, writer, "k", "new", time.Minute)
		mustHave(t, reader, "k", "new")
	})
	t.Run("write, read asks, drop, put", func(t *testing.T) {
		m := newMembers(t, 2, nil)
		reader := m.caches[0]
		mustSet(t, reader, "k", "new", time.Minute)
		m.store.afterGet(func(string) {
			m.store.afterGet(nil)
			reader.forget("k") // the drop of a write that the read has seen
		})
		mustHave(t, reader, "k", "new")
		mustHave(t, reader, "k", "new")
		if st := reader.Stats(); st.NearHits != 0 || st.Hits != 2 {
			t.Errorf("got %+v", st)
		}
	})
	t.Run("write, drop, read asks, put", func(t *testing.T) {
		m := newMembers(t, 2, nil)
		reader, writer := m.caches[0], m.caches[1]
		mustSet(t, writer, "k", "new", time.Minute)
		mustHave(t, reader, "k", "new")
		mustHave(t, reader, "k", "new")
		if st := reader.Stats(); st.NearHits != 1 {
			t.Errorf("got %+v", st)
		}
	})
	t.Run("a load is overtaken by a delete", func(t *testing.T) {
		m := newMembers(t, 2, nil)
		loader, writer := m.caches[0], m.caches[1]
		v, err := loader.GetOrLoad(ctx, "k", time.Minute, func(context.Context) (string, error) {
			if err := writer.Delete(ctx, "k"); err != nil {
				t.Error(err)
			}
			return "old", nil
		})
		if err != nil || v != "old" {
			t.Fatalf("got %q, %v", v, err)
		}
		mustMiss(t, loader, "k")
		mustMiss(t, writer, "k")
	})
	t.Run("a load of nothing is overtaken by a set", func(t *testing.T) {
		m := newMembers(t, 2, nil)
		loader, writer := m.caches[0], m.caches[1]
		load := func(context.Context) (string, error) {
			mustSet(t, writer, "k", "new", time.Minute)
			return "", ErrNotFound
		}
		if _, err := loader.GetOrLoad(ctx, "k", time.Minute, load); err != ErrNotFound {
			t.Fatal(err)
		}
		if v, err := loader.GetOrLoad(ctx, "k", time.Minute, load); err != nil || v != "new" {
			t.Fatalf("got %q, %v", v, err)
		}
	})
	t.Run("a get that began before a set is not joined after it", func(t *testing.T) {
		m := newMembers(t, 2, nil)
		reader, writer := m.caches[0], m.caches[1]
		mustSet(t, writer, "k", "old", time.Minute)
		var wg sync.WaitGroup
		inHand, goOn := make(chan struct{}), make(chan struct{})
		m.store.afterGet(func(string) {
			m.store.afterGet(nil)
			close(inHand)
			<-goOn
		})
		wg.Go(func() { mustHave(t, reader, "k", "old") })
		<-inHand
		mustSet(t, writer, "k", "new", time.Minute)
		mustHave(t, reader, "k", "new")
		close(goOn)
		wg.Wait()
		mustHave(t, reader, "k", "new")
	})
}

// Whatever the order: once a write has returned, no member answers an older
// value, and values only ever go forward for a reader.
func TestNearNeverGoesBack(t *testing.T) {
	m := newMembers(t, 3, nil)
	ctx := context.Background()
	const keys, writes = 4, 400
	var mu [keys]sync.Mutex // orders the writes of a key
	var latest [keys]int
	var wg sync.WaitGroup
	done := make(chan struct{})
	for i := range 3 {
		c := m.caches[i]
		wg.Go(func() {
			for n := range writes {
				k := rand.IntN(keys)
				mu[k].Lock()
				v := latest[k] + 1
				mustSet(t, c, fmt.Sprint(k), fmt.Sprint(v), time.Minute)
				latest[k] = v
				mu[k].Unlock()
				if n%8 == 0 {
					time.Sleep(100 * time.Microsecond)
				}
			}
		})
	}
	var readers sync.WaitGroup
	for i := range 3 {
		c := m.caches[i]
		for range 2 {
			readers.Go(func() {
				var seen [keys]int
				for {
					select {
					case <-done:
						return
					default:
					}
					k := rand.IntN(keys)
					mu[k].Lock()
					least := latest[k]
					mu[k].Unlock()
					s, ok, err := c.Get(ctx, fmt.Sprint(k))
					if err != nil {
						t.Error(err)
						return
					}
					v := 0
					if ok {
						_, _ = fmt.Sscan(s, &v)
					}
					if v < least || v < seen[k] {
						t.Errorf("key %d: got %d, but %d was written and %d was seen before", k, v, least, seen[k])
						return
					}
					seen[k] = v
				}
			})
		}
	}
	wg.Wait()
	close(done)
	readers.Wait()
	for i, c := range m.caches {
		if st := c.Stats(); st.NearHits == 0 {
			t.Errorf("member %d: nothing was near: %+v", i, st)
		}
	}
}

// A member that hears nobody for a second drops what it has near.
func TestCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMembers(t, 2, nil)
		defer m.close()
		synctest.Wait()
		cut, other := m.caches[0], m.caches[1]
		mustSet(t, other, "k", "old", time.Hour)
		mustHave(t, cut, "k", "old")
		m.buses[0].setDeaf(true)
		// It has not heard of this, and can't yet know that it is cut off.
		mustSet(t, other, "k", "new", time.Hour)
		if st := other.Stats(); st.Unreached != 1 {
			t.Errorf("got %+v", st)
		}
		time.Sleep(time.Second - time.Millisecond)
		mustHave(t, cut, "k", "old")
		time.Sleep(time.Millisecond)
		mustHave(t, cut, "k", "new")
		mustHave(t, cut, "k", "new")
		if st := cut.Stats(); st.NearHits != 1 {
			t.Errorf("a member that is cut off keeps things near: %+v", st)
		}
		m.buses[0].setDeaf(false)
		time.Sleep(2 * pulseEvery)
		mustHave(t, cut, "k", "new")
		mustHave(t, cut, "k", "new")
		if st := cut.Stats(); st.NearHits != 2 {
			t.Errorf("got %+v", st)
		}
		// Deaf for longer than a second without being asked: the same.
		m.buses[0].setDeaf(true)
		mustSet(t, other, "k", "newer", time.Hour)
		time.Sleep(1500 * time.Millisecond)
		m.buses[0].setDeaf(false)
		time.Sleep(2 * pulseEvery)
		mustHave(t, cut, "k", "newer")
		// Alone it may keep things near; when others come it drops them.
		m.buses[0].setLonely(true)
		time.Sleep(2 * pulseEvery)
		mustHave(t, cut, "k", "newer")
		mustHave(t, cut, "k", "newer")
		m.buses[0].setDeaf(true)
		mustSet(t, other, "k", "newest", time.Hour)
		m.buses[0].setDeaf(false)
		time.Sleep(3 * time.Second)
		mustHave(t, cut, "k", "newer")
		m.buses[0].setLonely(false)
		time.Sleep(2 * pulseEvery)
		mustHave(t, cut, "k", "newest")
	})
}

func TestPulse(t *testing.T) {
	base := time.Now()
	at := func(ms int) time.Time { return base.Add(time.Duration(ms) * time.Millisecond) }
	var p pulse
	for i, s := range []struct {
		now, heard int // ms; heard < 0: no others
		good       int
		drop       bool
	}{
		{0, -1, 1000, false},
		{100, -1, 1100, false},
		{200, 190, 1190, true}, // others have come
		{300, 290, 1290, false},
		{1289, 290, 1290, false}, // silent, not yet for a second
		{1291, 290, 1290, true},  // cut off
		{1391, 290, 1290, true},
		{1491, 1480, 2480, true}, // heard again
		{1591, 1580, 2580, false},
		{9000, 8990, 9990, true}, // this process stood still
		{9100, -1, 10100, false}, // the others are gone
		{9200, 9200, 10200, true},
	} {
		heard := time.Time{}
		if s.heard >= 0 {
			heard = at(s.heard)
		}
		good, drop := p.look(at(s.now), heard)
		if !good.Equal(at(s.good)) || drop != s.drop {
			t.Errorf("%d: at %d: got %v, %v, want %d, %v", i, s.now, good.Sub(base), drop, s.good, s.drop)
		}
	}
}

// A near hit of raw bytes costs no allocation.
func TestNearHitAllocatesNothing(t *testing.T) {
	c, key := nearHit(t)
	ctx := context.Background()
	allocs := testing.AllocsPerRun(1000, func() {
		if _, ok, err := c.Get(ctx, key); !ok || err != nil {
			t.Fatal("no hit")
		}
	})
	if allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}

func nearHit(t testing.TB) (*Cache[[]byte], string) {
	c, err := New[[]byte](Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	key := "user:0123456789"
	ctx := context.Background()
	if err := c.Set(ctx, key, make([]byte, 500), time.Hour); err != nil {
		t.Fatal(err)
	}
	if _, ok, err := c.Get(ctx, key); !ok || err != nil {
		t.Fatal("no hit")
	}
	return c, key
}

func BenchmarkNearHit(b *testing.B) {
	c, key := nearHit(b)
	ctx := context.Background()
	b.ReportAllocs()
	for b.Loop() {
		if _, ok, _ := c.Get(ctx, key); !ok {
			b.Fatal("no hit")
		}
	}
}

func BenchmarkNearHitParallel(b *testing.B) {
	c, key := nearHit(b)
	ctx := context.Background()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, ok, _ := c.Get(ctx, key); !ok {
				b.Error("no hit")
				return
			}
		}
	})
}

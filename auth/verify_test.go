package auth

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestVerdicts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, ms := newCluster(t, 1)
		m := ms[0]
		k, key := m.create(t, Spec{
			Scopes: []string{"orders:read"}, Metadata: map[string]string{"team": "checkout"},
			Limits:    map[string]Limit{"api": {Limit: 10, Period: time.Second}},
			ExpiresAt: time.Now().Add(time.Hour),
		})
		p := m.verifyFrom(t, key, Valid, FromStore).Principal
		if p.ID != k.ID || p.Project != "shop" || !p.Has("orders:read") || p.Has("orders:write") ||
			p.Metadata["team"] != "checkout" || !p.ExpiresAt.Equal(k.ExpiresAt) {
			t.Errorf("principal %v does not match its key", p)
		}
		if l, ok := p.Limit("api"); !ok || l != (Limit{Limit: 10, Period: time.Second}) {
			t.Errorf("limit %v, %v", l, ok)
		}
		if q := m.verifyFrom(t, key, Valid, FromNear).Principal; q != p {
			t.Error("a cached hit made another principal")
		}

		wrong := []byte(key)
		wrong[len(wrong)-1]++
		for _, malformed := range []string{
			"", string(wrong), key + "x", key[:len(key)-1], "pl_live_", "pl_test_" + key[8:], "with space",
			"tab\there", "naïve", strings.Repeat("x", MaxKeyLength+1),
		} {
			m.verifyFrom(t, malformed, Malformed, FromKey)
		}
		reads := m.store.lookups.Load()
		if reads != 1 {
			t.Errorf("%d look-ups, want 1", reads)
		}
		for _, foreign := range []string{"AKIA-not-ours", "x", strings.Repeat("x", MaxKeyLength), "pl_other_thing"} {
			m.verifyFrom(t, foreign, NotFound, FromStore)
			m.verifyFrom(t, foreign, NotFound, FromNear)
		}

		time.Sleep(time.Until(k.ExpiresAt) - time.Nanosecond)
		m.verify(t, key, Valid)
		time.Sleep(time.Nanosecond) // the near hit is judged by the clock, not by its TTL
		m.verifyFrom(t, key, Expired, FromNear)
	})
}

func TestKnownKeysAreReadEveryFiveMinutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, ms := newCluster(t, 1)
		m := ms[0]
		_, key := m.create(t, Spec{})
		m.verifyFrom(t, key, Valid, FromStore)
		began := time.Now()
		for time.Since(began) < 5*time.Minute-time.Second {
			m.verifyFrom(t, key, Valid, FromNear)
			time.Sleep(700 * time.Millisecond)
		}
		time.Sleep(2 * time.Second)
		m.verifyFrom(t, key, Valid, FromStore)
		if n := m.store.lookups.Load(); n != 2 {
			t.Errorf("%d look-ups, want 2", n)
		}
	})
}

func TestUnknownKeysAreReadEveryThirtySeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, ms := newCluster(t, 1)
		m := ms[0]
		m.verify(t, "warm-up-the-confirmation", NotFound) // what is read before the record of changes is known is not kept
		synctest.Wait()
		m.verifyFrom(t, "somebody-elses-key", NotFound, FromStore)
		time.Sleep(30*time.Second - 1)
		m.verifyFrom(t, "somebody-elses-key", NotFound, FromNear)
		time.Sleep(time.Nanosecond)
		m.verifyFrom(t, "somebody-elses-key", NotFound, FromStore)
	})
}

func TestCrowdCostsOneReading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, ms := newCluster(t, 1)
		m := ms[0]
		_, key := m.create(t, Spec{})
		m.verify(t, "warm-up-the-confirmation", NotFound)
		m.store.delays(func() time.Duration { return 20 * time.Millisecond })
		before := m.store.lookups.Load()
		for _, presented := range []string{key, "unknown-to-all"} {
			var wg sync.WaitGroup
			for i := range 100 {
				wg.Go(func() {
					time.Sleep(time.Duration(i) * 100 * time.Microsecond) // while the reading is under way
					r, err := m.Verify(t.Context(), presented)
					if err != nil || (presented == key) != (r.Verdict == Valid) {
						t.Error(r.Verdict, err)
					}
				})
			}
			wg.Wait()
			if n := m.store.lookups.Load() - before; n != 1 {
				t.Errorf("%d look-ups for 100 callers, want 1", n)
			}
			before = m.store.lookups.Load()
		}
	})
}

// Nothing is confirmed, so every caller needs a reading that began after it came: two for a crowd, not a hundred.
func TestCrowdWithoutConfirmationCostsTwo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, ms := newCluster(t, 1)
		m := ms[0]
		_, key := m.create(t, Spec{})
		m.net.recordFails.Store(true)
		time.Sleep(time.Second)
		m.store.delays(func() time.Duration { return 20 * time.Millisecond })
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() {
				time.Sleep(time.Millisecond)
				if r, err := m.Verify(t.Context(), key); r.Verdict != Valid || r.Source != FromStore {
					t.Error(r, err)
				}
			})
		}
		if r, err := m.Verify(t.Context(), key); r.Verdict != Valid {
			t.Error(r, err)
		}
		wg.Wait()
		if n := m.store.lookups.Load(); n != 2 {
			t.Errorf("%d look-ups, want 2", n)
		}
	})
}

func TestCallerThatGivesUpLeavesTheOthersTheirReading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, ms := newCluster(t, 1)
		m := ms[0]
		_, key := m.create(t, Spec{})
		m.verify(t, "warm-up-the-confirmation", NotFound)
		m.store.delays(func() time.Duration { return 50 * time.Millisecond })
		var wg sync.WaitGroup
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
			defer cancel()
			r, err := m.Verify(ctx, key)
			if r.Verdict != Unavailable || !errors.Is(err, ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("who gave up: %v, %v", r.Verdict, err)
			}
		})
		wg.Go(func() {
			time.Sleep(5 * time.Millisecond)
			if r, err := m.Verify(t.Context(), key); r.Verdict != Valid {
				t.Errorf("who waited: %v, %v", r.Verdict, err)
			}
		})
		wg.Wait()
	})
}

func TestStoreDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, ms := newCluster(t, 1)
		m := ms[0]
		_, known := m.create(t, Spec{})
		_, other := m.create(t, Spec{})
		m.verify(t, known, Valid)
		m.verify(t, "unknown-to-all", NotFound)
		m.store.down.Store(true)
		busy := func(until time.Time, each func()) {
			for time.Now().Before(until) {
				each()
				time.Sleep(500 * time.Millisecond)
			}
		}
		began := time.Now()
		busy(began.Add(4*time.Minute), func() {
			if m.verifyFrom(t, known, Valid, FromNear).Stale {
				t.Fatalf("stale after %v", time.Since(began))
			}
			m.verify(t, other, Unavailable) // never looked up, so not NOT_FOUND
		})
		busy(began.Add(5*time.Minute), func() { m.verify(t, known, Valid) })
		reads := m.store.lookups.Load()
		busy(began.Add(10*time.Minute-time.Second), func() {
			if !m.verifyFrom(t, known, Valid, FromNear).Stale {
				t.Fatalf("not stale after %v", time.Since(began))
			}
		})
		if n := m.store.lookups.Load() - reads; n > 1 {
			t.Errorf("%d look-ups of a store that is known to be down", n)
		}
		if s := m.Stats(); s.StaleServed == 0 {
			t.Error("stale answers were not counted")
		}
		if s := m.CacheStats(); !s.StoreDown || !s.Confirmed {
			t.Errorf("cache stats %+v", s)
		}
		time.Sleep(2 * time.Second)
		m.verify(t, known, Unavailable)

		m.store.down.Store(false)
		reads = m.store.lookups.Load()
		m.verifyFrom(t, known, Valid, FromStore)
		m.verifyFrom(t, other, Valid, FromStore)
		time.Sleep(time.Second)
		m.verifyFrom(t, known, Valid, FromNear)
		m.verifyFrom(t, other, Valid, FromNear)
		if n := m.store.lookups.Load() - reads; n != 2 {
			t.Errorf("%d look-ups after the store was back, want one a key", n)
		}
	})
}

// A member that nobody asked for a while has confirmed nothing meanwhile, and does not know yet that the store is down:
// the first who asks is answered as the others are.
func TestStoreDownFoundByAnIdleMember(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, ms := newCluster(t, 2)
		m := ms[0]
		_, key := m.create(t, Spec{})
		m.verify(t, key, Valid)
		time.Sleep(6 * time.Minute)
		m.store.down.Store(true)
		if !m.verifyFrom(t, key, Valid, FromNear).Stale {
			t.Error("not stale after 6 minutes")
		}
		m.verify(t, "unknown", Unavailable)
		time.Sleep(5 * time.Minute)
		m.verify(t, key, Unavailable) // too old even for that
	})
}

func TestNoStale(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, ms := newCluster(t, 1, func(c *Config) { c.StaleTTL = NoStale })
		m := ms[0]
		_, key := m.create(t, Spec{})
		m.verify(t, key, Valid)
		m.store.down.Store(true)
		time.Sleep(5*time.Minute - 1)
		m.verify(t, key, Valid)
		time.Sleep(time.Nanosecond)
		m.verify(t, key, Unavailable)
	})
}

func TestStoreThatSwallowsPackets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, ms := newCluster(t, 1)
		m := ms[0]
		_, known := m.create(t, Spec{})
		m.verify(t, known, Valid)
		m.store.hang.Store(true)
		for range 40 { // confirmed by the record meanwhile, without a gap
			m.verifyFrom(t, known, Valid, FromNear)
			time.Sleep(50 * time.Millisecond)
		}
		began := time.Now()
		m.verify(t, "unknown-to-all", Unavailable)
		if took := time.Since(began); took > 1100*time.Millisecond {
			t.Errorf("an unknown key took %v, want about StoreTimeout", took)
		}
		m.store.hang.Store(false)
		m.verify(t, "unknown-to-all", NotFound)
	})
}

// A store that compares digests loosely must not let in a key that merely resembles one.
type looseStore struct {
	*Memory
	key Key
}

func (s looseStore) Lookup(context.Context, Digest) (Key, error) { return s.key, nil }

func TestLooseStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key := Key{ID: "key_1", Digest: DigestOf("the-right-key-of-all"), Project: "p"}
		a, err := New(Config{Store: looseStore{NewMemory(), key}})
		if err != nil {
			t.Fatal(err)
		}
		defer a.Close()
		if r, err := a.Verify(t.Context(), "another-key-altogether"); r.Verdict != NotFound || err != nil {
			t.Error(r.Verdict, err)
		}
		if r, err := a.Verify(t.Context(), "the-right-key-of-all"); r.Verdict != Valid || err != nil {
			t.Error(r.Verdict, err)
		}
	})
}

func TestFailureLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		failures := map[string]int{}
		asked := 0
		_, ms := newCluster(t, 1, func(c *Config) {
			c.FailureLimit = func(_ context.Context, client string, n int) time.Duration {
				if failures[client] += n; n == 0 {
					asked++
				}
				if failures[client] >= 3 {
					return 7 * time.Second
				}
				return 0
			}
		})
		m := ms[0]
		_, known := m.create(t, Spec{})
		_, second := m.create(t, Spec{})
		guesser := WithClient(t.Context(), "192.0.2.1")
		m.verify(t, known, Valid) // from nobody in particular
		for i := range 3 {
			r, err := m.Verify(guesser, fmt.Sprint("guess-", i))
			if r.Verdict != NotFound || err != nil {
				t.Fatal(r.Verdict, err)
			}
		}
		reads := m.store.lookups.Load()
		r, err := m.Verify(guesser, "guess-3")
		var throttled *ThrottledError
		if r.Verdict != Unavailable || !errors.As(err, &throttled) || throttled.RetryAfter != 7*time.Second {
			t.Errorf("the fourth guess: %v, %v", r.Verdict, err)
		}
		if r, err := m.Verify(guesser, "pl_live_malformed"); r.Verdict != Malformed || err != nil {
			t.Errorf("malformed: %v, %v", r.Verdict, err)
		}
		if m.store.lookups.Load() != reads {
			t.Error("a throttled guess was looked up")
		}
		// A neighbour behind the same address whose key is known here is not held up, nor costs it a call.
		asked = 0
		if r, err := m.Verify(guesser, known); r.Verdict != Valid || err != nil || asked != 0 {
			t.Errorf("known key: %v, %v, asked %d times", r.Verdict, err, asked)
		}
		// Others are not touched, whatever key they bring.
		other := WithClient(t.Context(), "192.0.2.2")
		if r, err := m.Verify(other, second); r.Verdict != Valid || err != nil || failures["192.0.2.2"] != 0 {
			t.Errorf("another client: %v, %v, %d failures", r.Verdict, err, failures["192.0.2.2"])
		}
		if s := m.Stats(); s.Throttled != 1 {
			t.Errorf("throttled %d, want 1", s.Throttled)
		}
	})
}

// A flood of guesses is bounded in memory, displaces no known key, and holds up no look-up of one.
func TestFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, ms := newCluster(t, 1, func(c *Config) { c.NearUnknown, c.StoreCalls = 1024, 4 })
		m := ms[0]
		_, known := m.create(t, Spec{})
		m.verify(t, known, Valid)
		for range 20_000 {
			m.verify(t, "guess-"+rand.Text(), NotFound)
		}
		if s := m.CacheStats(); s.Unknown > 1024 || s.Known != 1 {
			t.Errorf("%d unknown and %d known keys cached, want at most 1024 and 1", s.Unknown, s.Known)
		}
		m.verifyFrom(t, known, Valid, FromNear)

		// The store is slow, and all places for unknown keys are taken.
		time.Sleep(5 * time.Minute)
		m.verify(t, "warm-up-the-confirmation", NotFound)
		m.store.delays(func() time.Duration { return 100 * time.Millisecond })
		var wg sync.WaitGroup
		var busy atomic.Int64
		for range 100 {
			wg.Go(func() {
				if r, _ := m.Verify(t.Context(), "guess-"+rand.Text()); r.Verdict == Unavailable {
					busy.Add(1)
				}
			})
		}
		synctest.Wait()
		began := time.Now()
		m.verifyFrom(t, known, Valid, FromStore)
		if took := time.Since(began); took > 210*time.Millisecond {
			t.Errorf("the known key took %v behind the flood, want its own 200 ms", took)
		}
		wg.Wait()
		if busy.Load() == 0 {
			t.Error("100 guesses of 200 ms, 4 at a time, all within 1 s")
		}
	})
}

func TestNearCacheIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, ms := newCluster(t, 1, func(c *Config) { c.NearBytes = 2 << 20 })
		m := ms[0]
		_, hot := m.create(t, Spec{})
		for i := range 6000 {
			_, key := m.create(t, Spec{Metadata: map[string]string{"n": strings.Repeat("x", i%1000)}})
			m.verify(t, key, Valid)
			m.verify(t, hot, Valid)
		}
		s := m.CacheStats()
		if s.KnownBytes > 2<<20 || s.KnownBytes < 1<<20 || s.Evicted == 0 {
			t.Errorf("cache stats %+v, want nearly 2 MiB used", s)
		}
		// What is used stays.
		reads := m.store.lookups.Load()
		m.verify(t, hot, Valid)
		if n := m.store.lookups.Load() - reads; n != 0 {
			t.Error("the hot key was displaced")
		}
	})
}

func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, ms := newCluster(t, 1)
		m := ms[0]
		_, key := m.create(t, Spec{})
		m.verify(t, key, Valid)
		m.store.delays(func() time.Duration { return time.Minute })
		var wg sync.WaitGroup
		wg.Go(func() { m.verify(t, "under-way-when-closing", Unavailable) })
		synctest.Wait()
		for range 2 {
			if err := m.Close(); err != nil {
				t.Error(err)
			}
		}
		wg.Wait()
		r, err := m.Verify(t.Context(), key)
		if r.Verdict != Unavailable || !errors.Is(err, ErrClosed) {
			t.Errorf("after Close: %v, %v", r.Verdict, err)
		}
	})
}

func TestVerifyNearAllocatesNothing(t *testing.T) {
	a, err := New(Config{Store: NewMemory()})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	issued, err := a.Create(t.Context(), Spec{Project: "p"})
	if err != nil {
		t.Fatal(err)
	}
	key := issued.Secret.Reveal()
	ctx := context.Background()
	for range 2 {
		if r, err := a.Verify(ctx, key); r.Verdict != Valid {
			t.Fatal(r.Verdict, err)
		}
	}
	if n := testing.AllocsPerRun(1000, func() { _, _ = a.Verify(ctx, key) }); n != 0 {
		t.Errorf("%v allocations a near hit, want 0", n)
	}
}

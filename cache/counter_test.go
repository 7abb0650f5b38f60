package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/peerlimit/peerlimit/cluster"
)

func newTestCounter(t testing.TB, cfg Config) *Counter {
	t.Helper()
	c, err := NewCounter(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func TestCounter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		c := newTestCounter(t, Config{})
		if _, ok, err := c.Get(ctx, "k"); ok || err != nil {
			t.Fatalf("got %v, %v", ok, err)
		}
		incr := func(delta, want int64, ttl time.Duration) {
			t.Helper()
			if got, err := c.Incr(ctx, "k", delta, ttl); err != nil || got != want {
				t.Fatalf("got %d, %v, want %d", got, err, want)
			}
		}
		incr(1, 1, 10*time.Second)
		time.Sleep(9 * time.Second)
		incr(5, 6, 10*time.Second) // doesn't renew
		incr(0, 6, 10*time.Second)
		if got, err := c.Decr(ctx, "k", 2, time.Hour); err != nil || got != 4 {
			t.Fatalf("got %d, %v", got, err)
		}
		if ttl, ok, err := c.TTL(ctx, "k"); err != nil || !ok || ttl != time.Second {
			t.Fatalf("ttl: %v, %v, %v", ttl, ok, err)
		}
		if v, ok, err := c.Get(ctx, "k"); err != nil || !ok || v != 4 {
			t.Fatalf("got %v, %v, %v", v, ok, err)
		}
		time.Sleep(time.Second)
		if _, ok, _ := c.Get(ctx, "k"); ok {
			t.Fatal("it outlived its time")
		}
		incr(7, 7, time.Minute)
		if had, err := c.Reset(ctx, "k"); err != nil || !had {
			t.Fatalf("reset: %v, %v", had, err)
		}
		if had, err := c.Reset(ctx, "k"); err != nil || had {
			t.Fatalf("reset again: %v, %v", had, err)
		}
		incr(-1, -1, time.Minute)
	})
}

func TestCounterBounds(t *testing.T) {
	ctx := context.Background()
	c := newTestCounter(t, Config{})
	for _, k := range []string{"", strings.Repeat("k", MaxKey+1)} {
		_, err := c.Incr(ctx, k, 1, time.Minute)
		_, _, err2 := c.Get(ctx, k)
		_, _, err3 := c.TTL(ctx, k)
		_, err4 := c.Reset(ctx, k)
		for i, err := range []error{err, err2, err3, err4} {
			if !errors.Is(err, ErrInvalid) {
				t.Errorf("key of %d, call %d: %v", len(k), i, err)
			}
		}
	}
	for _, ttl := range []time.Duration{0, -1, 100 * 365 * 24 * time.Hour} {
		if _, err := c.Incr(ctx, "k", 1, ttl); !errors.Is(err, ErrInvalid) {
			t.Errorf("ttl %v: %v", ttl, err)
		}
	}
	for _, v := range []int64{math.MaxInt64, math.MinInt64} {
		k := fmt.Sprint(v)
		if got, err := c.Incr(ctx, k, v, time.Minute); err != nil || got != v {
			t.Fatalf("got %d, %v", got, err)
		}
		delta := int64(1)
		if v < 0 {
			delta = -1
		}
		if _, err := c.Incr(ctx, k, delta, time.Minute); !errors.Is(err, ErrInvalid) {
			t.Errorf("beyond %d: %v", v, err)
		}
		if got, _, err := c.Get(ctx, k); err != nil || got != v {
			t.Errorf("got %d, %v, want %d", got, err, v)
		}
	}
	if _, err := c.Decr(ctx, "k", math.MinInt64, time.Minute); !errors.Is(err, ErrInvalid) {
		t.Errorf("got %v", err)
	}
	if _, err := NewCounter(Config{Namespace: "UPPER"}); !errors.Is(err, ErrInvalid) {
		t.Errorf("got %v", err)
	}
}

// A key is a value or a counter, never both.
func TestKinds(t *testing.T) {
	ctx := context.Background()
	m := newMembers(t, 1, nil)
	cache := m.caches[0]
	counter := newTestCounter(t, Config{Namespace: "test", KV: m.kvs[0]})

	mustSet(t, cache, "value", "v", time.Minute)
	if _, err := counter.Incr(ctx, "value", 1, time.Minute); !errors.Is(err, ErrWrongKind) {
		t.Fatalf("incr: %v", err)
	}
	if _, _, err := counter.Get(ctx, "value"); !errors.Is(err, ErrWrongKind) {
		t.Fatalf("get: %v", err)
	}
	if _, err := counter.Reset(ctx, "value"); !errors.Is(err, ErrWrongKind) {
		t.Fatalf("reset: %v", err)
	}
	mustHave(t, cache, "value", "v")

	if _, err := counter.Incr(ctx, "counter", 1, time.Minute); err != nil {
		t.Fatal(err)
	}
	_, _, err1 := cache.Get(ctx, "counter")
	_, err2 := cache.GetOrLoad(ctx, "counter", time.Minute, nil)
	_, _, err3 := cache.TTL(ctx, "counter")
	for i, err := range []error{
		err1, err2, err3,
		cache.Set(ctx, "counter", "v", time.Minute), cache.Delete(ctx, "counter"),
	} {
		if !errors.Is(err, ErrWrongKind) {
			t.Errorf("call %d: %v", i, err)
		}
	}
	if got, err := cache.GetMany(ctx, []string{"counter", "value"}); err != nil || len(got) != 1 {
		t.Errorf("get many: %v, %v", got, err)
	}
	if n, err := cache.Len(ctx); err != nil || n != 1 {
		t.Errorf("len: %d, %v", n, err)
	}
	if v, _, err := counter.Get(ctx, "counter"); err != nil || v != 1 {
		t.Errorf("get: %d, %v", v, err)
	}
	if had, err := counter.Reset(ctx, "counter"); err != nil || !had {
		t.Fatalf("reset: %v, %v", had, err)
	}
	mustSet(t, cache, "counter", "v", time.Minute)
	mustHave(t, cache, "counter", "v")
	if err := cache.Delete(ctx, "counter"); err != nil {
		t.Fatal(err)
	}
	if _, err := counter.Incr(ctx, "counter", 1, time.Minute); err != nil {
		t.Fatal(err)
	}

	// Counting goes on while the store can't be asked.
	m.store.fail(cluster.ErrKVUnavailable)
	if v, err := counter.Incr(ctx, "value", 1, time.Minute); err != nil || v != 1 {
		t.Errorf("without the store: %d, %v", v, err)
	}
}

// Incr and Set of one key at once: never both.
func TestKindsAtOnce(t *testing.T) {
	ctx := context.Background()
	m := newMembers(t, 1, nil)
	cache := m.caches[0]
	counter := newTestCounter(t, Config{Namespace: "test", KV: m.kvs[0]})
	for i := range 300 {
		key := fmt.Sprint(i)
		var wg sync.WaitGroup
		var setErr, incrErr error
		wg.Go(func() { setErr = cache.Set(ctx, key, "v", time.Minute) })
		wg.Go(func() { _, incrErr = counter.Incr(ctx, key, 1, time.Minute) })
		wg.Wait()
		if setErr == nil && incrErr == nil {
			t.Fatalf("%s is a value and a counter", key)
		}
		if setErr != nil && incrErr != nil {
			t.Fatalf("%s is neither: %v, %v", key, setErr, incrErr)
		}
	}
}

func apply(s *counterState, now int64, id uint64, again bool, op counterOp) counterResult {
	call := cluster.Call{Now: now, ID: id, Again: again, Epoch: 1, Holder: 1}
	next, r, effect := counterMachine{}.Apply(call, *s, op)
	if effect.Changed {
		*s = next
	}
	return r
}

// An increment that is sent again is counted once, or said to be uncertain.
func TestCounterSentAgain(t *testing.T) {
	var s counterState
	add := func(now int64, id uint64, again bool) counterResult {
		return apply(&s, now, id, again, counterOp{what: counterAdd, delta: 1, ttl: int64(time.Hour)})
	}
	const second = int64(time.Second)
	first := add(1, 100, false)
	if first.outcome != counterMade || first.value != 1 {
		t.Fatalf("got %+v", first)
	}
	second1 := add(2, 101, false)
	if again := add(3, 100, true); again.outcome != counterMade || again.value != 1 || again.born != first.born {
		t.Errorf("got %+v", again)
	}
	if again := add(3, 101, true); again.value != second1.value || again.outcome != counterThere {
		t.Errorf("got %+v", again)
	}
	// One that never ran is run.
	if r := add(4, 102, true); r.value != 3 {
		t.Errorf("got %+v", r)
	}
	// After so many others it can't be known.
	for i := range uint64(seenMax) {
		add(5, 200+i, false)
	}
	if r := add(6, 102, true); r.outcome != counterUncertain || s.value != 3+seenMax {
		t.Errorf("got %+v, value %d", r, s.value)
	}
	if r := add(6, 200+seenMax-1, true); r.outcome != counterThere || r.value != 3+seenMax {
		t.Errorf("got %+v", r)
	}
	// A second later nobody waits any more for what was then.
	if r := add(6+second, 300, true); r.outcome != counterThere || r.value != 4+seenMax {
		t.Errorf("got %+v", r)
	}
}

func TestCounterMerge(t *testing.T) {
	m := counterMachine{}
	add := func(s counterState, epoch, id uint64, delta int64) counterState {
		s, _, _ = m.Apply(cluster.Call{Now: int64(1000 + id), ID: id, Epoch: epoch, Holder: epoch}, s, counterOp{what: counterAdd, delta: delta, ttl: int64(time.Hour)})
		return s
	}
	base := add(counterState{}, 1, 1, 10)
	low := add(base, 1, 2, 5)  // 15 under the first reign
	high := add(base, 2, 3, 7) // 17 under the second
	for name, got := range map[string]counterState{"ab": m.Merge(low, high), "ba": m.Merge(high, low)} {
		if got.value != 22 || got.epoch != 2 {
			t.Errorf("%s: got %+v", name, got)
		}
		// Those that were counted on either side are known.
		for _, id := range []uint64{1, 2, 3} {
			if r := apply(&got, 1010, id, true, counterOp{what: counterAdd, delta: 100, ttl: int64(time.Hour)}); got.value != 22 {
				t.Errorf("%s: %d was counted again: %+v", name, id, r)
			}
		}
	}
	// The higher reign changed nothing.
	if got := m.Merge(low, base); got.value != 15 {
		t.Errorf("got %d", got.value)
	}
	// Made on both sides.
	a, b := add(counterState{}, 1, 4, 3), add(counterState{}, 2, 5, 4)
	if got := m.Merge(a, b); got.value != 7 {
		t.Errorf("got %d", got.value)
	}
	if got := m.Merge(a, counterState{}); got != a {
		t.Errorf("got %+v", got)
	}
	if got := m.Merge(counterState{}, a); got != a {
		t.Errorf("got %+v", got)
	}
	// Reset on one side: what was made before it is gone, what was made after stays.
	reset, _, _ := m.Apply(cluster.Call{Now: 2000, ID: 6, Epoch: 2, Holder: 2}, high, counterOp{what: counterReset})
	if got := m.Merge(low, reset); !got.gone {
		t.Errorf("got %+v", got)
	}
	if got := m.Merge(reset, low); !got.gone {
		t.Errorf("got %+v", got)
	}
	after, _, _ := m.Apply(cluster.Call{Now: 3000, ID: 7, Epoch: 1, Holder: 1}, counterState{}, counterOp{what: counterAdd, delta: 1, ttl: int64(time.Hour)})
	if got := m.Merge(after, reset); got.gone || got.value != 1 {
		t.Errorf("got %+v", got)
	}
	if got := m.Merge(reset, after); got.gone || got.value != 1 {
		t.Errorf("got %+v", got)
	}
}

// The machine against a plain model: a number, its end, and all IDs.
func TestCounterModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var s counterState
		var value, end int64
		there := false
		answers := make(map[uint64]int64)
		var ids []uint64
		now, nextID := int64(1), uint64(1)
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			now += rapid.Int64Range(0, int64(400*time.Millisecond)).Draw(t, "later")
			if there && now >= end {
				there, s = false, counterState{} // what the table does
			}
			switch rapid.IntRange(0, 9).Draw(t, "what") {
			case 0:
				r := apply(&s, now, nextID, false, counterOp{what: counterReset})
				nextID++
				if (r.outcome == counterThere) != there {
					t.Fatalf("reset: %+v", r)
				}
				there = false
				answers, ids = make(map[uint64]int64), nil
			case 1:
				r := apply(&s, now, nextID, false, counterOp{what: counterGet})
				nextID++
				if (r.outcome == counterThere) != there || there && (r.value != value || r.ttl != end-now) {
					t.Fatalf("get: %+v, want %v %d %d", r, there, value, end-now)
				}
			case 2:
				// Through the wire and another member's clock.
				b := counterMachine{}.AppendState(nil, s, now)
				shift := rapid.Int64Range(-1e12, 1e12).Draw(t, "clock")
				got, err := counterMachine{}.ParseState(b, now+shift)
				if err != nil {
					t.Fatal(err)
				}
				back, err := counterMachine{}.ParseState(counterMachine{}.AppendState(nil, got, now+shift), now)
				if err != nil {
					t.Fatal(err)
				}
				s = back
			case 3:
				if len(ids) == 0 || !there {
					continue
				}
				id := rapid.SampledFrom(ids).Draw(t, "again")
				before := s.value
				r := apply(&s, now, id, true, counterOp{what: counterAdd, delta: 1000, ttl: int64(time.Second)})
				if r.outcome == counterUncertain {
					if s.value != before {
						t.Fatal("uncertain, and counted")
					}
					continue
				}
				if s.value != before {
					// Run again: only if the first time is more than a second ago.
					value = s.value
					answers[id] = value
				} else if r.value != answers[id] {
					t.Fatalf("sent again: %+v, want %d", r, answers[id])
				}
			default:
				delta := rapid.Int64Range(-100, 100).Draw(t, "delta")
				ttl := rapid.Int64Range(int64(MinTTL), int64(3*time.Second)).Draw(t, "ttl")
				r := apply(&s, now, nextID, false, counterOp{what: counterAdd, delta: delta, ttl: ttl})
				if !there {
					there, value, end = true, 0, now+ttl
				}
				value += delta
				if r.value != value || r.ttl != end-now {
					t.Fatalf("add: %+v, want %d %d", r, value, end-now)
				}
				answers[nextID] = value
				ids = append(ids, nextID)
				nextID++
			}
		}
	})
}

func FuzzCounterWire(f *testing.F) {
	m := counterMachine{}
	var s counterState
	for id := range uint64(12) {
		apply(&s, int64(id+1), id+1, false, counterOp{what: counterAdd, delta: 3, ttl: int64(time.Hour)})
	}
	f.Add(m.AppendState(nil, s, 20))
	f.Add(m.AppendOp(nil, counterOp{what: counterAdd, delta: 1, ttl: int64(time.Hour)}))
	f.Add(m.AppendResult(nil, counterResult{outcome: counterThere, value: 1}))
	f.Fuzz(func(t *testing.T, b []byte) {
		const now = 1 << 40
		if s, err := m.ParseState(b, now); err == nil {
			again, err := m.ParseState(m.AppendState(nil, s, now), now)
			if err != nil {
				t.Fatalf("%+v: %v", s, err)
			}
			// Those that are too old to be remembered may be gone.
			if again.value != s.value || again.expires != s.expires || again.gone != s.gone || again.before != s.before {
				t.Fatalf("%+v became %+v", s, again)
			}
			_ = m.Merge(s, again)
		}
		if op, err := m.ParseOp(b); err == nil {
			if again := m.AppendOp(nil, op); !bytes.Equal(again, b) && len(again) >= len(b) {
				t.Fatalf("%x became %x", b, again)
			}
		}
		if r, err := m.ParseResult(b); err == nil {
			if again, err := m.ParseResult(m.AppendResult(nil, r)); err != nil || again != r {
				t.Fatalf("%+v became %+v, %v", r, again, err)
			}
		}
	})
}

package ratelimit

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"
)

// ask has callers goroutines on each limiter ask for p until each has been
// denied patience times in a row, and returns what was allowed in all.
func askAll(t *testing.T, all []*Limiter, p Policy, key string, callers int) int64 {
	t.Helper()
	var allowed atomic.Int64
	var wg sync.WaitGroup
	for _, l := range all {
		for range callers {
			wg.Go(func() {
				denied := 0
				for denied < 3 && t.Context().Err() == nil {
					d, err := l.Allow(t.Context(), p, key)
					switch {
					case err != nil || d.Degraded:
						t.Errorf("%+v, %v", d, err)
						return
					case d.Allowed:
						allowed.Add(1)
						denied = 0
					default:
						denied++
						time.Sleep(60 * time.Millisecond) // slices come home
					}
				}
			})
		}
	}
	wg.Wait()
	return allowed.Load()
}

// holderOf returns the limiters in the order: the key's holder, then others.
func holderOf(all []*Limiter, p Policy, key string) (holder *Limiter, others []*Limiter) {
	hash := xxhash.Sum64(tableKey(nil, p.Name, key))
	for _, l := range all {
		if l.table.Here(hash) {
			holder = l
		} else {
			others = append(others, l)
		}
	}
	return holder, others
}

func lentIn(all []*Limiter) (n uint64) {
	for _, l := range all {
		n += l.Stats().Leases.HandedOut
	}
	return n
}

// A key that all members ask for at once gives exactly its limit, most of it
// without asking the holder.
func TestClusterHotKeyGivesItsLimit(t *testing.T) {
	t.Parallel()
	_, all := members(t, 3)
	for _, p := range []Policy{
		fixedNamed("fixed", 30_000),
		Calendar("month", 30_000, Month, nil),
		{Name: "sliding", Limit: 30_000, Period: 24 * time.Hour, Algorithm: SlidingWindow},
		{Name: "bucket", Limit: 30_000, Period: 20_000 * time.Hour},
	} {
		before := lentIn(all)
		if n := askAll(t, all, p, "k", 3); n != p.Limit {
			t.Errorf("%s: %d of %d allowed", p.Name, n, p.Limit)
		}
		until(t, func() bool {
			return all[0].Stats().Leases.Keys+all[1].Stats().Leases.Keys+all[2].Stats().Leases.Keys == 0
		})
		lent := lentIn(all) - before
		if lent == 0 {
			t.Errorf("%s: nothing was lent", p.Name)
		}
		t.Logf("%s: %d of %d were lent", p.Name, lent, p.Limit)
	}
	for i, l := range all {
		t.Logf("member %d: %+v", i, l.Stats().Leases)
	}
}

// With leases off nothing is decided but at the holder.
func TestNoLeases(t *testing.T) {
	t.Parallel()
	_, all := members(t, 3)
	p := fixedNamed("p", 3_000)
	p.NoLeases = true
	if n := askAll(t, all, p, "k", 2); n != p.Limit {
		t.Errorf("%d of %d allowed", n, p.Limit)
	}
	for i, l := range all {
		if s := l.Stats().Leases; s != (LeaseStats{}) {
			t.Errorf("member %d: %+v", i, s)
		}
	}
}

// load asks on limiters until stop is called, which returns how often it was
// allowed.
func load(t *testing.T, all []*Limiter, p func() Policy, key string) (stop func() int64) {
	t.Helper()
	var allowed atomic.Int64
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for _, l := range all {
		wg.Go(func() {
			for ctx.Err() == nil {
				d, err := l.Allow(t.Context(), p(), key)
				if err != nil || d.Degraded {
					t.Errorf("%+v, %v", d, err)
					return
				}
				if d.Allowed {
					allowed.Add(1)
				}
			}
		})
	}
	return sync.OnceValue(func() int64 { cancel(); wg.Wait(); return allowed.Load() })
}

// A reset that has returned is in force everywhere: no slice from before it is
// used, and no denial remembered.
func TestClusterResetRecalls(t *testing.T) {
	t.Parallel()
	_, all := members(t, 3)
	p := fixedNamed("p", 1_000_000)
	_, others := holderOf(all, p, "k")
	stop := load(t, others, func() Policy { return p }, "k")
	until(t, func() bool { return lentIn(others) > 0 })
	for range 5 {
		if err := all[0].Reset(t.Context(), p, "k"); err != nil {
			t.Fatal(err)
		}
	}
	stop()
	until(t, func() bool { return others[0].Stats().Leases.Keys+others[1].Stats().Leases.Keys == 0 })
	small := fixedNamed("small", 900)
	for range 3 {
		if n := askAll(t, all, small, "k", 1); n != small.Limit {
			t.Fatalf("%d of %d allowed", n, small.Limit)
		}
		if d, err := others[0].Allow(t.Context(), small, "k"); d.Allowed || err != nil {
			t.Fatalf("%+v, %v", d, err)
		}
		if err := all[0].Reset(t.Context(), small, "k"); err != nil {
			t.Fatal(err)
		}
		for i, l := range all {
			if d, err := l.Allow(t.Context(), small, "k"); !d.Allowed || err != nil {
				t.Errorf("member %d after a reset: %+v, %v", i, d, err)
			}
		}
		if err := all[1].Reset(t.Context(), small, "k"); err != nil {
			t.Fatal(err)
		}
	}
}

// A limit that is lowered or raised while slices are out counts from then on,
// with what was used before.
func TestClusterPolicyChangeRecalls(t *testing.T) {
	t.Parallel()
	_, all := members(t, 3)
	p := fixedNamed("p", 40_000)
	_, others := holderOf(all, p, "k")
	stop := load(t, others, func() Policy { return p }, "k")
	until(t, func() bool { return lentIn(others) > 200 })
	low := p
	low.Limit = 35_000
	if _, err := all[1].PutPolicy(t.Context(), StoredPolicy{Policy: low}); err != nil {
		t.Fatal(err)
	}
	high := p
	high.Limit = 50_000
	time.Sleep(20 * time.Millisecond)
	if _, err := all[2].PutPolicy(t.Context(), StoredPolicy{Policy: high}); err != nil {
		t.Fatal(err)
	}
	n := stop()
	if n += askAll(t, all, p, "k", 2); n != high.Limit {
		t.Errorf("%d of %d allowed", n, high.Limit)
	}
}

// A limiter that closes gives back what it was lent.
func TestClusterCloseGivesBack(t *testing.T) {
	t.Parallel()
	_, all := members(t, 3)
	p := fixedNamed("p", 40_000)
	holder, others := holderOf(all, p, "k")
	stop := load(t, others[:1], func() Policy { return p }, "k")
	until(t, func() bool { return lentIn(others) > 0 })
	n := stop()
	if err := others[0].Close(); err != nil {
		t.Fatal(err)
	}
	if s := others[0].borrower.stats(); s.Granted != s.HandedOut+s.Returned || s.Expired != 0 {
		t.Errorf("%+v", s)
	}
	if d, err := holder.Status(t.Context(), p, "k"); d.Remaining != p.Limit-n || err != nil {
		t.Errorf("%d left of %d with %d used, %v", d.Remaining, p.Limit, n, err)
	}
}

// A borrower that is killed takes at most 2 % of the limit with it, for as long
// as the window lasts; others lose nothing.
func TestClusterBorrowerKilled(t *testing.T) {
	c, all := members(t, 3)
	p := fixedNamed("p", 40_000)
	holder, others := holderOf(all, p, "k")
	stop := load(t, others, func() Policy { return p }, "k")
	until(t, func() bool { return others[0].Stats().Leases.HandedOut > 0 && others[1].Stats().Leases.HandedOut > 0 })
	n := stop()
	for _, node := range c.Nodes {
		if node.Self().Boot == others[0].borrower.boot {
			c.Kill(node)
		}
	}
	n += askAll(t, []*Limiter{holder, others[1]}, p, "k", 2)
	other, least := others[1].Stats().Leases, p.Limit-2*p.Limit/leasePart
	if raceDetector {
		least -= int64(other.Expired)
	}
	if n > p.Limit || n < least {
		t.Errorf("%d of %d allowed, want at least %d; the other borrower %+v", n, p.Limit, least, other)
	}
}

// raceDetector says that members take their time: a killed backup is replaced
// within some 2 s, and slices come back for one second only, so that what others
// were lent then is lost too.
var raceDetector bool

// A flood on an exhausted key costs the holder nothing.
func TestClusterDenialsAreRemembered(t *testing.T) {
	t.Parallel()
	_, all := members(t, 3)
	p := fixedNamed("p", 5)
	_, others := holderOf(all, p, "k")
	l := others[0]
	askAll(t, []*Limiter{l}, p, "k", 1)
	first, err := l.Allow(t.Context(), p, "k")
	if err != nil || first.Allowed {
		t.Fatalf("%+v, %v", first, err)
	}
	for range 1000 {
		d, err := l.Allow(t.Context(), p, "k")
		if err != nil || d.Allowed || d.Limit != 5 || d.Remaining != 0 || d.RetryAfter > first.RetryAfter || d.RetryAfter < first.RetryAfter-time.Minute || d.Policy != "p" {
			t.Fatalf("%+v, %v", d, err)
		}
	}
	if n := l.Stats().Leases.Denied; n < 500 {
		t.Errorf("%d of 1000 were remembered", n)
	}
	p.Shadow = true
	if d, err := l.Allow(t.Context(), p, "k"); !d.Allowed || d.Reason != ReasonShadow || err != nil {
		t.Errorf("a shadow policy: %+v, %v", d, err)
	}
	p.Shadow = false
	if err := l.Refund(t.Context(), p, "k", 1); err != nil {
		t.Fatal(err)
	}
	if d, err := l.Allow(t.Context(), p, "k"); !d.Allowed || err != nil {
		t.Errorf("after a refund: %+v, %v", d, err)
	}
}

func BenchmarkHotKeyElsewhere(b *testing.B) {
	_, all := members(b, 3)
	p := PerSecond("p", MaxLimit)
	denied := fixedNamed("denied", 1)
	for _, c := range []struct {
		name   string
		policy Policy
	}{{"lent", p}, {"denied", denied}} {
		_, others := holderOf(all, c.policy, "k")
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := others[0].Allow(b.Context(), c.policy, "k"); err != nil {
					b.Fatal(err)
				}
			}
			s := others[0].Stats().Leases
			b.ReportMetric(float64(s.HandedOut+s.Denied), "local")
		})
		b.Run(c.name+"-parallel", func(b *testing.B) {
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, err := others[0].Allow(context.Background(), c.policy, "k"); err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
}

package ratelimit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// alone returns a limiter of this process with a clock set by hand.
func alone(t testing.TB, change ...func(*Config)) (*Limiter, *handClock) {
	t.Helper()
	c := &handClock{}
	c.set(time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC))
	cfg := Config{Now: c.now}
	for _, f := range change {
		f(&cfg)
	}
	l, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l, c
}

type handClock struct{ ns atomic.Int64 }

func (c *handClock) set(t time.Time)         { c.ns.Store(t.UnixNano()) }
func (c *handClock) advance(d time.Duration) { c.ns.Add(int64(d)) }
func (c *handClock) now() time.Time          { return time.Unix(0, c.ns.Load()) }

func TestAllow(t *testing.T) {
	l, clock := alone(t)
	ctx := context.Background()
	p := PerMinute("ip", 3)
	for i := range 3 {
		d, err := l.Allow(ctx, p, "a")
		if err != nil || !d.Allowed || d.Remaining != int64(2-i) || d.Limit != 3 || d.Policy != "ip" {
			t.Fatalf("permit %d: %+v, %v", i+1, d, err)
		}
	}
	d, err := l.Allow(ctx, p, "a")
	want := Decision{Limit: 3, RetryAfter: 20 * time.Second, ResetAfter: time.Minute, NextAfter: 20 * time.Second, Policy: "ip"}
	if err != nil || d != want {
		t.Fatalf("fourth: %+v, %v", d, err)
	}
	if d, _ := l.Allow(ctx, p, "b"); !d.Allowed {
		t.Fatal("another key shares the bucket")
	}
	if d, _ := l.Allow(ctx, PerMinute("other", 3), "a"); !d.Allowed {
		t.Fatal("another policy shares the bucket")
	}
	clock.advance(20 * time.Second)
	if d, _ := l.Allow(ctx, p, "a"); !d.Allowed {
		t.Fatal("denied at RetryAfter")
	}
}

// (policy, key) is unambiguous whatever bytes are in the key.
func TestKeysAreApart(t *testing.T) {
	l, _ := alone(t)
	ctx := context.Background()
	keys := []string{"a", "a\x00", "\x00a", "ab", "\xff\xfe", strings.Repeat("k", MaxKeyLen), strings.Repeat("k", MaxKeyLen-1)}
	for _, policy := range []string{"p", "pa"} {
		for _, key := range keys {
			if d, err := l.Allow(ctx, PerDay(policy, 1), key); err != nil || !d.Allowed {
				t.Errorf("%s %q: %+v, %v", policy, key, d, err)
			}
		}
	}
	if n, err := l.Size(ctx); n != 2*len(keys) || err != nil {
		t.Errorf("%d keys, %v", n, err)
	}
}

func TestBadInputNamesItsField(t *testing.T) {
	l, _ := alone(t)
	ctx := context.Background()
	good := PerMinute("p", 10)
	with := func(f func(*Policy)) Policy { p := good; f(&p); return p }
	for _, c := range []struct {
		field, detail string
		policy        Policy
		key           string
		cost          int64
	}{
		{"policy", `must be 1 to 64 letters, digits or . _ : -, is ""`, with(func(p *Policy) { p.Name = "" }), "k", 1},
		{"policy", `is "a b"`, with(func(p *Policy) { p.Name = "a b" }), "k", 1},
		{"policy", "64", with(func(p *Policy) { p.Name = strings.Repeat("x", 65) }), "k", 1},
		{"limit", "must be 1 to 9007199254740992, is 0", with(func(p *Policy) { p.Limit = 0 }), "k", 1},
		{"limit", "is -1", with(func(p *Policy) { p.Limit = -1 }), "k", 1},
		{"limit", "is 9007199254740993", with(func(p *Policy) { p.Limit = MaxLimit + 1 }), "k", 1},
		{"period", "must be 1ms to 438000h0m0s, is 0s", with(func(p *Policy) { p.Period = 0 }), "k", 1},
		{"period", "is -1m0s", with(func(p *Policy) { p.Period = -time.Minute }), "k", 1},
		{"period", "must be 1ms", with(func(p *Policy) { p.Period = MaxPeriod + 1 }), "k", 1},
		{"period", "must be absent where align says day", with(func(p *Policy) { p.Algorithm, p.Align = FixedWindow, Day }), "k", 1},
		{"burst", "is -1", with(func(p *Policy) { p.Burst = -1 }), "k", 1},
		{"burst", "is for token-bucket only", with(func(p *Policy) { p.Burst, p.Algorithm = 20, FixedWindow }), "k", 1},
		{"burst", "must come back within 438000h0m0s", with(func(p *Policy) { p.Burst, p.Limit, p.Period = MaxLimit, 1, time.Hour }), "k", 1},
		{"algorithm", "is 9", with(func(p *Policy) { p.Algorithm = 9 }), "k", 1},
		{"algorithm", "by Acquire", InFlight("p", 5, time.Second), "k", 1},
		{"limit", "must be 1 to 10000 for concurrency", InFlight("p", MaxPlaces+1, time.Second), "k", 1},
		{"align", "needs the algorithm fixed-window, is with token-bucket", with(func(p *Policy) { p.Align = Day }), "k", 1},
		{"align", "is 99", with(func(p *Policy) { p.Algorithm, p.Align, p.Period = FixedWindow, 99, 0 }), "k", 1},
		{"on_unavailable", "must be open, closed or local", with(func(p *Policy) { p.OnUnavailable = 9 }), "k", 1},
		{"key", "must be 1 to 1024 bytes, is 0", good, "", 1},
		{"key", "is 1025", good, strings.Repeat("k", 1025), 1},
		{"cost", "must be 0 or more, is -1", good, "k", -1},
		{"cost", "must be at most the limit of policy p, 10, is 11", good, "k", 11},
		{"cost", "must be at most the burst of policy p, 5, is 6", with(func(p *Policy) { p.Burst = 5 }), "k", 6},
	} {
		d, err := l.AllowN(ctx, c.policy, c.key, c.cost)
		var field *FieldError
		if !errors.As(err, &field) || field.Field != c.field || !strings.Contains(field.Detail, c.detail) || d != (Decision{}) {
			t.Errorf("%s %s: %+v, %v", c.field, c.detail, d, err)
		}
		if err != nil && !strings.Contains(err.Error(), c.field) {
			t.Errorf("%q does not name %s", err, c.field)
		}
	}
	if n, _ := l.Size(ctx); n != 0 {
		t.Errorf("bad input spent something: %d keys", n)
	}
	d, err := l.AllowN(ctx, good, "k", 0)
	if err != nil || !d.Allowed || d.Remaining != 10 {
		t.Errorf("cost 0: %+v, %v", d, err)
	}
}

func TestConfigBounds(t *testing.T) {
	for field, cfg := range map[string]Config{
		"namespace":      {Namespace: "Not this"},
		"on_unavailable": {OnUnavailable: 7},
		"max_keys":       {MaxKeys: -1},
	} {
		l, err := New(cfg)
		var f *FieldError
		if !errors.As(err, &f) || f.Field != field || l != nil {
			t.Errorf("%s: %v, %v", field, l, err)
		}
	}
}

func TestLimitReturnsTheDecision(t *testing.T) {
	l, _ := alone(t)
	ctx := context.Background()
	p := PerMinute("p", 1)
	if err := l.Limit(ctx, p, "k"); err != nil {
		t.Fatal(err)
	}
	err := l.Limit(ctx, p, "k")
	var exceeded *ExceededError
	if !errors.As(err, &exceeded) || exceeded.Decision.RetryAfter != time.Minute ||
		err.Error() != "ratelimit: policy p: limit of 1 exceeded, retry after 1m0s" {
		t.Fatalf("%v", err)
	}
}

func TestStatusSpendsNothing(t *testing.T) {
	l, _ := alone(t)
	ctx := context.Background()
	p := PerMinute("p", 2)
	for range 5 {
		if d, err := l.Status(ctx, p, "k"); err != nil || !d.Allowed || d.Remaining != 2 {
			t.Fatalf("%+v, %v", d, err)
		}
	}
	if n, _ := l.Size(ctx); n != 0 {
		t.Fatal("a status made a key")
	}
	l.AllowN(ctx, p, "k", 2)
	if d, _ := l.Status(ctx, p, "k"); d.Allowed || d.RetryAfter != 30*time.Second {
		t.Fatalf("%+v", d)
	}
	if d, _ := l.StatusN(ctx, p, "k", 0); !d.Allowed {
		t.Fatalf("cost 0: %+v", d)
	}
}

func TestAllowAtMost(t *testing.T) {
	l, _ := alone(t)
	ctx := context.Background()
	p := PerMinute("p", 10)
	for _, c := range []struct{ ask, want int64 }{{7, 7}, {100, 3}, {1, 0}} {
		got, d, err := l.AllowAtMost(ctx, p, "k", c.ask)
		if err != nil || got != c.want || d.Allowed != (c.want > 0) {
			t.Errorf("asked for %d: %d, %+v, %v", c.ask, got, d, err)
		}
	}
	if got, _, err := l.AllowAtMost(ctx, Policy{Name: "p", Limit: 10, Period: time.Minute, Shadow: true}, "k", 4); got != 4 || err != nil {
		t.Errorf("shadow: %d, %v", got, err)
	}
	if _, _, err := l.AllowAtMost(ctx, p, "k", -1); err == nil {
		t.Error("a negative cost")
	}
}

func TestResetAndResetAll(t *testing.T) {
	l, _ := alone(t)
	ctx := context.Background()
	p, q := PerDay("p", 1), PerDay("q", 1)
	for i := range 25_000 {
		if _, err := l.Allow(ctx, p, fmt.Sprintf("user:%d", i)); err != nil {
			t.Fatal(err)
		}
	}
	for _, key := range []string{"admin:1", "user:1"} {
		l.Allow(ctx, q, key)
	}
	l.Allow(ctx, p, "admin:1")
	if err := l.Reset(ctx, p, "user:7"); err != nil {
		t.Fatal(err)
	}
	if d, _ := l.Allow(ctx, p, "user:7"); !d.Allowed {
		t.Fatal("denied after its reset")
	}
	if n, err := l.ResetAll(ctx, p, "user:"); n != 25_000 || err != nil {
		t.Fatalf("%d reset, %v", n, err)
	}
	if n, err := l.ResetAll(ctx, p, "user:"); n != 0 || err != nil {
		t.Fatalf("once more: %d reset, %v", n, err)
	}
	if n, _ := l.Size(ctx); n != 3 {
		t.Fatalf("%d keys are left", n)
	}
	if n, err := l.ResetAll(ctx, Policy{Name: "q"}, ""); n != 2 || err != nil {
		t.Fatalf("all of q: %d, %v", n, err)
	}
	for _, err := range []error{
		l.Reset(ctx, Policy{}, "k"), l.Reset(ctx, p, ""),
		func() error { _, err := l.ResetAll(ctx, p, strings.Repeat("x", 2000)); return err }(),
	} {
		var f *FieldError
		if !errors.As(err, &f) {
			t.Errorf("bad input: %v", err)
		}
	}
}

func TestRefundThroughTheLimiter(t *testing.T) {
	l, _ := alone(t)
	ctx := context.Background()
	p := PerMinute("p", 10)
	if err := l.Refund(ctx, p, "k", 3); err != nil {
		t.Fatal(err)
	}
	l.AllowN(ctx, p, "k", 10)
	if err := l.Refund(ctx, p, "k", 4); err != nil {
		t.Fatal(err)
	}
	if d, _ := l.Status(ctx, p, "k"); d.Remaining != 4 {
		t.Fatalf("%+v", d)
	}
	if err := l.Refund(ctx, p, "k", -1); err == nil {
		t.Fatal("a negative refund")
	}
}

func TestShadowCountsAndNeverDenies(t *testing.T) {
	l, _ := alone(t)
	ctx := context.Background()
	p := PerMinute("p", 2)
	p.Shadow = true
	for i := range 4 {
		d, err := l.Allow(ctx, p, "k")
		if err != nil || !d.Allowed || (d.Reason == ReasonShadow) != (i >= 2) || d.RetryAfter != 0 {
			t.Fatalf("%d: %+v, %v", i, d, err)
		}
	}
	p.Shadow = false
	if d, _ := l.Allow(ctx, p, "k"); d.Allowed {
		t.Fatal("it did not count")
	}
}

func TestUnlimited(t *testing.T) {
	l, _ := alone(t)
	ctx := context.Background()
	d, err := l.AllowN(ctx, Policy{Name: "p", Unlimited: true}, "k", 1_000_000)
	if err != nil || !d.Allowed || d.Reason != ReasonUnlimited {
		t.Fatalf("%+v, %v", d, err)
	}
	if n, _ := l.Size(ctx); n != 0 {
		t.Fatal("it counts")
	}
}

func TestAfterClose(t *testing.T) {
	l, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	ctx := context.Background()
	p := PerMinute("p", 1)
	_, allow := l.Allow(ctx, p, "k")
	_, size := l.Size(ctx)
	_, _, acquire := l.Acquire(ctx, InFlight("c", 1, time.Second), "k")
	for _, err := range []error{allow, size, acquire, l.Reset(ctx, p, "k"), l.Refund(ctx, p, "k", 1), l.Wait(ctx, p, "k")} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("%v", err)
		}
	}
}

func TestFakes(t *testing.T) {
	ctx := context.Background()
	p := PerMinute("p", 7)
	for l, want := range map[*Limiter]bool{AlwaysAllow: true, AlwaysDeny: false} {
		if d, err := l.Allow(ctx, p, "k"); err != nil || d.Allowed != want || d.Policy != "p" || d.Limit != 7 || (d.RetryAfter == 0) != want {
			t.Errorf("Allow: %+v, %v", d, err)
		}
		if err := l.Limit(ctx, p, "k"); (err == nil) != want {
			t.Errorf("Limit: %v", err)
		}
		if all, err := l.AllowAll(ctx, Check{Policy: p, Key: "a", Cost: 1}, Check{Policy: p, Key: "b", Cost: 1}); err != nil || all.Allowed != want || len(all.Decisions) != 2 {
			t.Errorf("AllowAll: %+v, %v", all, err)
		}
		if n, d, err := l.AllowAtMost(ctx, p, "k", 3); err != nil || d.Allowed != want || (n == 3) != want {
			t.Errorf("AllowAtMost: %d, %+v, %v", n, d, err)
		}
		place, d, err := l.Acquire(ctx, InFlight("c", 1, time.Second), "k")
		if err != nil || d.Allowed != want || place.Release(ctx) != nil {
			t.Errorf("Acquire: %+v, %v", d, err)
		}
		_, errAll := l.ResetAll(ctx, p, "")
		_, errSize := l.Size(ctx)
		_, errPut := l.PutPolicy(ctx, StoredPolicy{Policy: p})
		_, errDelete := l.DeletePolicy(ctx, "p")
		_, errSet := l.SetOverride(ctx, "p", Override{Key: "k", Times: 2})
		for _, err := range []error{l.Reset(ctx, p, "k"), l.Refund(ctx, p, "k", 1), errAll, errSize, errPut, errDelete, errSet,
			l.LoadPolicies(ctx, nil), l.Close(), l.Close()} {
			if err != nil {
				t.Error(err)
			}
		}
		if _, is := l.StoredPolicy("p"); is || l.StoredPolicies() != nil {
			t.Error("a fake has stored policies")
		}
	}
}

// Callers at once never get more than the limit, nor less.
func TestManyCallersGetTheLimitExactly(t *testing.T) {
	l, _ := alone(t)
	for _, p := range []Policy{PerDay("bucket", 1000), fixedNamed("fixed", 1000), Calendar("day", 1000, Day, nil)} {
		var allowed atomic.Int64
		var wg sync.WaitGroup
		for range 16 {
			wg.Go(func() {
				for range 200 {
					if d, err := l.Allow(context.Background(), p, "k"); err == nil && d.Allowed {
						allowed.Add(1)
					}
				}
			})
		}
		wg.Wait()
		if n := allowed.Load(); n != 1000 {
			t.Errorf("%s: %d of 1000 allowed", p.Name, n)
		}
	}
}

func fixedNamed(name string, limit int64) Policy {
	p := fixed(limit, 24*time.Hour)
	p.Name = name
	return p
}

func TestDecisionsDoNotAllocate(t *testing.T) {
	l, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx := context.Background()
	for _, p := range []Policy{
		PerDay("bucket", MaxLimit), fixedNamed("fixed", MaxLimit), sliding(MaxLimit, time.Hour), Calendar("day", MaxLimit, Day, nil),
		PerDay("denied", 1),
	} {
		l.Allow(ctx, p, "203.0.113.7")
		if n := testing.AllocsPerRun(1000, func() { l.Allow(ctx, p, "203.0.113.7") }); n != 0 {
			t.Errorf("%s: %v allocations a decision", p.Name, n)
		}
	}
	p := PerDay("stored", 10)
	if _, err := l.PutPolicy(ctx, StoredPolicy{Policy: PerDay("stored", MaxLimit), Overrides: []Override{{Key: "x", Times: 2}}}); err != nil {
		t.Fatal(err)
	}
	l.Allow(ctx, p, "x")
	if n := testing.AllocsPerRun(1000, func() { l.Allow(ctx, p, "x") }); n != 0 {
		t.Errorf("stored policy with an override: %v allocations a decision", n)
	}
}

func TestTableKeyFitsTheTable(t *testing.T) {
	b := tableKey(nil, strings.Repeat("n", MaxNameLen), strings.Repeat("k", MaxKeyLen))
	if len(b) > 4096 || bytes.Count(b, []byte{0}) != 1 {
		t.Errorf("%d bytes", len(b))
	}
}

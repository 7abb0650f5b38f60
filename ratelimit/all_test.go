package ratelimit

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestAllowAllOrNothing(t *testing.T) {
	l, _ := alone(t)
	ctx := context.Background()
	ip, key := PerMinute("ip", 2), PerHour("key", 5)
	both := []Check{{Policy: ip, Key: "a", Cost: 1}, {Policy: key, Key: "k", Cost: 2}}
	for range 2 {
		all, err := l.AllowAll(ctx, both...)
		if err != nil || !all.Allowed {
			t.Fatalf("%+v, %v", all, err)
		}
	}
	all, err := l.AllowAll(ctx, both...)
	if err != nil || all.Allowed || all.Decisions[0].Allowed || all.Decisions[1].Allowed ||
		all.Decisions[0].RetryAfter != 30*time.Second || all.Decisions[1].Remaining != 1 {
		t.Fatalf("both exhausted: %+v, %v", all, err)
	}
	all, err = l.AllowAll(ctx, Check{Policy: ip, Key: "b", Cost: 1}, Check{Policy: key, Key: "k", Cost: 2}, Check{Policy: ip, Key: "c", Cost: 1})
	if err != nil || all.Allowed || !all.Decisions[0].Allowed || all.Decisions[1].Allowed || !all.Decisions[2].Allowed {
		t.Fatalf("one exhausted: %+v, %v", all, err)
	}
	for _, k := range []string{"b", "c"} {
		if d, _ := l.Status(ctx, ip, k); d.Remaining != 2 {
			t.Errorf("%s: %d of 2 left though nothing was allowed", k, d.Remaining)
		}
	}
	if d, _ := l.Status(ctx, key, "k"); d.Remaining != 1 {
		t.Errorf("key: %+v", d)
	}
}

// The same key twice in one check counts twice.
func TestAllowAllSameKey(t *testing.T) {
	l, _ := alone(t)
	p := PerMinute("p", 5)
	ctx := context.Background()
	if all, err := l.AllowAll(ctx, Check{Policy: p, Key: "k", Cost: 3}, Check{Policy: p, Key: "k", Cost: 3}); err != nil || all.Allowed {
		t.Fatalf("3 and 3 of 5: %+v, %v", all, err)
	}
	if all, err := l.AllowAll(ctx, Check{Policy: p, Key: "k", Cost: 3}, Check{Policy: p, Key: "k", Cost: 2}); err != nil || !all.Allowed {
		t.Fatalf("3 and 2 of 5: %+v, %v", all, err)
	}
	if d, _ := l.Status(ctx, p, "k"); d.Remaining != 0 {
		t.Fatalf("%+v", d)
	}
}

func TestAllowAllBadInput(t *testing.T) {
	l, _ := alone(t)
	ctx := context.Background()
	p := PerMinute("p", 5)
	for want, checks := range map[string][]Check{
		"checks":              {},
		"checks[1].cost":      {{Policy: p, Key: "a", Cost: 1}, {Policy: p, Key: "b", Cost: 6}},
		"checks[0].key":       {{Policy: p, Key: "", Cost: 1}, {Policy: p, Key: "b", Cost: 1}},
		"checks[2].limit":     {{Policy: p, Key: "a", Cost: 1}, {Policy: p, Key: "b", Cost: 1}, {Policy: PerMinute("q", 0), Key: "c", Cost: 1}},
		"checks[0].policy":    {{Policy: Policy{}, Key: "c", Cost: 1}},
		"checks[1].algorithm": {{Policy: p, Key: "a", Cost: 1}, {Policy: InFlight("c", 1, time.Second), Key: "c", Cost: 1}},
	} {
		all, err := l.AllowAll(ctx, checks...)
		var f *FieldError
		if !errors.As(err, &f) || f.Field != want || all.Allowed {
			t.Errorf("%s: %+v, %v", want, all, err)
		}
	}
	if _, err := l.AllowAll(ctx, make([]Check, MaxChecks+1)...); err == nil || !strings.Contains(err.Error(), "checks") {
		t.Errorf("too many: %v", err)
	}
	if n, _ := l.Size(ctx); n != 0 {
		t.Errorf("bad input spent something: %d keys", n)
	}
}

func TestAllowAllShadowAndUnlimited(t *testing.T) {
	l, _ := alone(t)
	ctx := context.Background()
	p, shadow := PerMinute("p", 2), PerMinute("shadow", 1)
	shadow.Shadow = true
	free := Policy{Name: "free", Unlimited: true}
	for i := range 3 {
		all, err := l.AllowAll(ctx, Check{Policy: p, Key: "k", Cost: 1}, Check{Policy: shadow, Key: "k", Cost: 1}, Check{Policy: free, Key: "k", Cost: 1})
		if err != nil || all.Allowed != (i < 2) {
			t.Fatalf("%d: %+v, %v", i, all, err)
		}
		if i == 1 && all.Decisions[1].Reason != ReasonShadow {
			t.Errorf("%+v", all.Decisions[1])
		}
	}
}

// Callers at once, each asking for several keys: what was allowed is what is
// spent, for every key, and none goes over.
func TestAllowAllConcurrently(t *testing.T) {
	l, _ := alone(t)
	ctx := context.Background()
	const limit = 200
	p := fixedNamed("p", limit)
	keys := []string{"a", "b", "c", "d"}
	allowed := make([]atomic.Int64, len(keys))
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(g), 1))
			for range 300 {
				perm := rnd.Perm(len(keys))[:1+rnd.IntN(3)]
				checks := make([]Check, len(perm))
				for i, k := range perm {
					checks[i] = Check{Policy: p, Key: keys[k], Cost: 1}
				}
				all, err := l.AllowAll(ctx, checks...)
				if err != nil {
					t.Error(err)
				}
				if all.Allowed {
					for _, k := range perm {
						allowed[k].Add(1)
					}
				}
			}
		})
	}
	wg.Wait()
	for k := range keys {
		d, err := l.Status(ctx, p, keys[k])
		if err != nil || d.Remaining != limit-allowed[k].Load() || d.Remaining < 0 {
			t.Errorf("%s: %d allowed, %d of %d remain, %v", keys[k], allowed[k].Load(), d.Remaining, limit, err)
		}
	}
}

// What a caller that died had set aside is free again after a second.
func TestAllowAllCallerDies(t *testing.T) {
	l, clock := alone(t)
	ctx := context.Background()
	p := fixedNamed("p", 10)
	dead := part{policy: p, key: "k", cost: 10}
	if err := l.prepare(&dead); err != nil {
		t.Fatal(err)
	}
	l.reserve(ctx, &dead)
	if d, _ := l.Allow(ctx, p, "k"); d.Allowed || d.RetryAfter > time.Second {
		t.Fatalf("beside it: %+v", d)
	}
	clock.advance(time.Second)
	if d, _ := l.AllowN(ctx, p, "k", 10); !d.Allowed {
		t.Fatalf("a second later: %+v", d)
	}
}

package ratelimit

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestAcquireAndRelease(t *testing.T) {
	l, clock := alone(t)
	ctx := context.Background()
	p := InFlight("p", 2, 10*time.Second)
	a, d, err := l.Acquire(ctx, p, "k")
	if err != nil || !d.Allowed || a == nil || d.Remaining != 1 {
		t.Fatalf("%+v, %v", d, err)
	}
	b, _, _ := l.Acquire(ctx, p, "k")
	c, d, err := l.Acquire(ctx, p, "k")
	if err != nil || d.Allowed || c != nil || d.RetryAfter != time.Second {
		t.Fatalf("third of two: %+v, %v", d, err)
	}
	for range 2 {
		if err := a.Release(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if _, d, _ := l.Acquire(ctx, p, "k"); !d.Allowed || d.Remaining != 0 {
		t.Fatalf("released twice, freed more than once: %+v", d)
	}
	if held, err := a.Renew(ctx); held || err != nil {
		t.Fatalf("a released place is held: %v, %v", held, err)
	}
	clock.advance(9 * time.Second)
	if held, err := b.Renew(ctx); !held || err != nil {
		t.Fatalf("renewal: %v, %v", held, err)
	}
	clock.advance(9 * time.Second) // the last one, whose holder is gone, has run out
	if d, _ := l.Status(ctx, p, "k"); d.Remaining != 1 {
		t.Fatalf("%+v", d)
	}
	clock.advance(time.Second)
	if held, _ := b.Renew(ctx); held {
		t.Fatal("held after it ran out")
	}
	if err := c.Release(ctx); err != nil {
		t.Fatal("a nil place can't be released")
	}
}

func TestAcquireRefuses(t *testing.T) {
	l, _ := alone(t)
	ctx := context.Background()
	p := InFlight("p", 2, 10*time.Second)
	for field, ask := range map[string]func() error{
		"algorithm": func() error { _, _, err := l.Acquire(ctx, PerMinute("p", 1), "k"); return err },
		"cost":      func() error { _, _, err := l.AcquireN(ctx, p, "k", 3); return err },
		"key":       func() error { _, _, err := l.Acquire(ctx, p, ""); return err },
	} {
		var f *FieldError
		if err := ask(); !errors.As(err, &f) || f.Field != field {
			t.Errorf("%s: %v", field, err)
		}
	}
	if _, _, err := l.AcquireN(ctx, p, "k", 0); err == nil {
		t.Error("a place of no permits")
	}
	p.Unlimited = true
	if place, d, err := l.Acquire(ctx, p, "k"); place != nil || !d.Allowed || err != nil {
		t.Errorf("unlimited: %+v, %v", d, err)
	}
	p.Unlimited, p.Shadow = false, true
	l.AcquireN(ctx, p, "k", 2)
	if place, d, err := l.Acquire(ctx, p, "k"); place != nil || !d.Allowed || d.Reason != ReasonShadow || err != nil {
		t.Errorf("shadow: %+v, %v", d, err)
	}
}

// A kept place outlives its period, until it is released, or until the limiter
// is closed.
func TestKeep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, err := New(Config{})
		if err != nil {
			t.Fatal(err)
		}
		ctx := context.Background()
		p := InFlight("p", 1, 3*time.Second)
		place, _, err := l.Acquire(ctx, p, "k")
		if err != nil {
			t.Fatal(err)
		}
		place.Keep()
		place.Keep()
		time.Sleep(time.Minute)
		if d, _ := l.Status(ctx, p, "k"); d.Allowed {
			t.Error("the place ran out")
		}
		place.Release(ctx)
		time.Sleep(time.Minute)
		if d, _ := l.Status(ctx, p, "k"); !d.Allowed {
			t.Error("the place is held after its release")
		}
		place, _, _ = l.Acquire(ctx, p, "k")
		place.Keep()
		l.Close()
		time.Sleep(time.Minute)
	})
}

func TestInFlightNeverExceedsTheLimit(t *testing.T) {
	l, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx := context.Background()
	p := InFlight("p", 5, time.Minute)
	var now, most, served atomic.Int64
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			for range 100 {
				place, d, err := l.Acquire(ctx, p, "k")
				if err != nil || !d.Allowed {
					continue
				}
				n := now.Add(1)
				for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
				}
				served.Add(1)
				now.Add(-1)
				place.Release(ctx)
			}
		})
	}
	wg.Wait()
	if most.Load() > 5 || served.Load() == 0 {
		t.Errorf("%d in flight at once, %d served", most.Load(), served.Load())
	}
	if n, _ := l.Size(ctx); n != 0 {
		t.Errorf("%d keys left", n)
	}
}

package ratelimit

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, err := New(Config{})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		ctx := context.Background()
		p := PerMinute("p", 6)
		start := time.Now()
		for range 9 {
			if err := l.Wait(ctx, p, "k"); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(start); took < 30*time.Second || took > 30*time.Second+time.Millisecond {
			t.Errorf("nine permits at six a minute took %s", took)
		}
		if err := l.WaitN(ctx, p, "k", 7); err == nil {
			t.Error("waits for more than there can be")
		}
	})
}

func TestWaitHonoursTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, err := New(Config{})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		p := PerMinute("p", 1)
		l.Allow(context.Background(), p, "k")

		// A deadline that can't be met is told at once.
		start := time.Now()
		ctx, cancel := context.WithTimeout(context.Background(), 59*time.Second)
		defer cancel()
		err = l.Wait(ctx, p, "k")
		var exceeded *ExceededError
		if !errors.As(err, &exceeded) || !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != 0 {
			t.Errorf("after %s: %v", time.Since(start), err)
		}

		ctx, cancel = context.WithCancel(context.Background())
		time.AfterFunc(10*time.Second, cancel)
		if err := l.Wait(ctx, p, "k"); !errors.Is(err, context.Canceled) || time.Since(start) != 10*time.Second {
			t.Errorf("after %s: %v", time.Since(start), err)
		}
		if d, _ := l.Status(context.Background(), p, "k"); d.RetryAfter > 50*time.Second {
			t.Errorf("a cancelled wait spent something: %+v", d)
		}
	})
}

package cache

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// 100 callers ask for one missing key on each of three members: the loader runs
// at most once a member.
func TestCoalescing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMembers(t, 3, nil)
		defer m.close()
		var loads [3]atomic.Int64
		var wg sync.WaitGroup
		for i, c := range m.caches {
			for range 100 {
				wg.Go(func() {
					v, err := c.GetOrLoad(context.Background(), "k", time.Minute, func(context.Context) (string, error) {
						loads[i].Add(1)
						time.Sleep(50 * time.Millisecond)
						return "v", nil
					})
					if err != nil || v != "v" {
						t.Errorf("got %q, %v", v, err)
					}
				})
			}
		}
		wg.Wait()
		for i := range loads {
			if n := loads[i].Load(); n != 1 {
				t.Errorf("member %d loaded %d times", i, n)
			}
			if st := m.caches[i].Stats(); st.Coalesced != 99 || st.Loads != 1 {
				t.Errorf("member %d: %+v", i, st)
			}
		}
		before := m.store.asked()
		m.store.afterGet(func(string) { time.Sleep(10 * time.Millisecond) })
		for range 100 {
			wg.Go(func() { mustMiss(t, m.caches[0], "nobody") })
		}
		wg.Wait()
		if n := m.store.asked() - before; n != 1 {
			t.Errorf("100 gets at once asked the store %d times", n)
		}
	})
}

func TestLoadErrors(t *testing.T) {
	ctx := context.Background()
	m := newMembers(t, 1, nil)
	c := m.caches[0]
	broken := errors.New("broken")
	loads := 0
	for range 2 { // not remembered
		_, err := c.GetOrLoad(ctx, "k", time.Minute, func(context.Context) (string, error) {
			loads++
			return "", broken
		})
		if !errors.Is(err, broken) {
			t.Fatalf("got %v", err)
		}
	}
	if st := c.Stats(); loads != 2 || st.LoadErrors != 2 {
		t.Errorf("%d loads, %+v", loads, st)
	}
	_, err := c.GetOrLoad(ctx, "k", time.Minute, func(context.Context) (string, error) { panic("boo") })
	if err == nil || !strings.Contains(err.Error(), "the loader panicked: boo") {
		t.Errorf("got %v", err)
	}
	_, err = c.GetOrLoad(ctx, "k", time.Minute, func(context.Context) (string, error) {
		runtime.Goexit()
		return "", nil
	})
	if !errors.Is(err, errExited) {
		t.Errorf("got %v", err)
	}
	_, err = c.GetOrLoad(ctx, "k", time.Minute, func(context.Context) (string, error) {
		return strings.Repeat("x", MaxValue), nil // and two quotes
	})
	if !errors.Is(err, ErrInvalid) {
		t.Errorf("got %v", err)
	}
}

// "There is no such thing" has its own time, and ends with a set on any member.
func TestNegative(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		m := newMembers(t, 2, func(c *Config) { c.NegativeTTL = 5 * time.Second })
		defer m.close()
		c := m.caches[0]
		loads := 0
		load := func(context.Context) (string, error) {
			loads++
			return "", fmt.Errorf("user 7: %w", ErrNotFound)
		}
		get := func(wantLoads int) {
			t.Helper()
			if _, err := c.GetOrLoad(ctx, "k", time.Minute, load); !errors.Is(err, ErrNotFound) {
				t.Fatalf("got %v", err)
			}
			if loads != wantLoads {
				t.Fatalf("%d loads, want %d", loads, wantLoads)
			}
		}
		get(1)
		get(1)
		time.Sleep(5*time.Second - time.Nanosecond)
		get(1)
		time.Sleep(time.Nanosecond)
		get(2)
		mustSet(t, m.caches[1], "k", "v", time.Minute)
		if v, err := c.GetOrLoad(ctx, "k", time.Minute, load); err != nil || v != "v" {
			t.Fatalf("got %q, %v", v, err)
		}
		if st := c.Stats(); st.NegativeHits != 2 {
			t.Errorf("got %+v", st)
		}
	})
}

// The work of a flight ends when nobody waits for it, and not before.
func TestLoadContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMembers(t, 1, func(c *Config) { c.LoadTimeout = 5 * time.Second })
		defer m.close()
		c := m.caches[0]
		ended := make(chan error, 10)
		load := func(ctx context.Context) (string, error) {
			select {
			case <-ctx.Done():
				ended <- ctx.Err()
				return "", ctx.Err()
			case <-time.After(2 * time.Second):
				ended <- nil
				return "v", nil
			}
		}
		// The first caller leaves, the second stays: it gets the value.
		first, leave := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := c.GetOrLoad(first, "k", time.Minute, load); !errors.Is(err, context.Canceled) {
				t.Errorf("got %v", err)
			}
		})
		synctest.Wait()
		wg.Go(func() {
			if v, err := c.GetOrLoad(context.Background(), "k", time.Minute, load); err != nil || v != "v" {
				t.Errorf("got %q, %v", v, err)
			}
		})
		synctest.Wait()
		leave()
		wg.Wait()
		if err := <-ended; err != nil {
			t.Errorf("the load got %v", err)
		}
		// All leave: the load ends at once, and the next caller begins anew.
		all, leave := context.WithTimeout(context.Background(), time.Second)
		defer leave()
		began := time.Now()
		if _, err := c.GetOrLoad(all, "l", time.Minute, load); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		if err := <-ended; !errors.Is(err, context.Canceled) || time.Since(began) != time.Second {
			t.Errorf("the load got %v after %v", err, time.Since(began))
		}
		if v, err := c.GetOrLoad(context.Background(), "l", time.Minute, load); err != nil || v != "v" {
			t.Errorf("got %q, %v", v, err)
		}
		<-ended
		// A load has its own limit.
		_, err := c.GetOrLoad(context.Background(), "m", time.Minute, func(ctx context.Context) (string, error) {
			<-ctx.Done()
			return "", ctx.Err()
		})
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		// Close ends what is under way.
		wg.Go(func() {
			_, err := c.GetOrLoad(context.Background(), "n", time.Minute, load)
			if !errors.Is(err, context.Canceled) {
				t.Errorf("got %v", err)
			}
		})
		synctest.Wait()
		began = time.Now()
		_ = c.Close()
		wg.Wait()
		if took := time.Since(began); took != 0 {
			t.Errorf("close took %v", took)
		}
	})
}

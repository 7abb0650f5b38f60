package auth_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/peerlimit/peerlimit/auth"
	"github.com/peerlimit/peerlimit/auth/sqlite"
)

type countedStore struct {
	*sqlite.Store
	lookups atomic.Int64
}

func (s *countedStore) Lookup(ctx context.Context, d auth.Digest) (auth.Key, error) {
	s.lookups.Add(1)
	return s.Store.Lookup(ctx, d)
}

// Unknown keys by the million against one member, with PEERLIMIT_TEST_SOAK_KEYS=1000000: memory is bounded, keys that
// are remembered as unknown are not asked for again, and known keys are served beside them.
func TestFloodSoak(t *testing.T) {
	n, _ := strconv.Atoi(os.Getenv("PEERLIMIT_TEST_SOAK_KEYS"))
	if n < 1000 {
		t.Skip("PEERLIMIT_TEST_SOAK_KEYS is not set: want the number of keys, at least 1000")
	}
	inner, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "keys.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer inner.Close()
	store := &countedStore{Store: inner}
	a, err := auth.New(auth.Config{Store: store})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	var known []string
	for range 100 {
		issued, err := a.Create(t.Context(), auth.Spec{Project: "p"})
		if err != nil {
			t.Fatal(err)
		}
		known = append(known, issued.Secret.Reveal())
	}
	verify := func(key string, want auth.Verdict) {
		if r, err := a.Verify(context.Background(), key); r.Verdict != want {
			t.Errorf("%v, %v, want %v", r.Verdict, err, want)
		}
	}
	latency := func(times int) string {
		took := make([]time.Duration, times)
		for i := range took {
			began := time.Now()
			verify(known[i%len(known)], auth.Valid)
			took[i] = time.Since(began)
			if i%100 == 0 {
				time.Sleep(time.Millisecond)
			}
		}
		slices.Sort(took)
		return fmt.Sprintf("p50 %v, p99 %v, max %v", took[times/2], took[times*99/100], took[times-1])
	}
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	latency(1000)
	alone, before := latency(20000), heap()

	began := time.Now()
	flood := func(each func(i int)) {
		const callers = 8
		var wg sync.WaitGroup
		for c := range callers {
			wg.Go(func() {
				for i := c; i < n; i += callers {
					each(i)
				}
			})
		}
		wg.Wait()
	}
	done := make(chan string)
	go func() { done <- latency(20000) }()
	flood(func(i int) { verify("unknown-key-number-"+strconv.Itoa(i), auth.NotFound) })
	beside, took := <-done, time.Since(began)
	grown := int64(heap()) - int64(before)
	if grown > 32<<20 {
		t.Errorf("the heap grew by %d bytes", grown)
	}

	// Fewer than the bound, many times within their 30 s.
	few := min(n/10, 50_000)
	lookups := store.lookups.Load()
	flood(func(i int) { verify("remembered-key-number-"+strconv.Itoa(i%few), auth.NotFound) })
	if asked := store.lookups.Load() - lookups; asked > int64(few)+int64(few)/10 {
		t.Errorf("%d look-ups of %d unknown keys, each asked for %d times", asked, few, n/few)
	}
	t.Log(strings.Join([]string{
		fmt.Sprintf("%d unknown keys in %v, the heap grew by %d KiB", n, took.Round(time.Millisecond), grown>>10),
		fmt.Sprintf("%d unknown keys, %d times each: %d look-ups", few, n/few, store.lookups.Load()-lookups),
		"known keys alone:           " + alone,
		"known keys beside the flood: " + beside,
	}, "\n"))
}

package main

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// measurement is one contender with one number of callers. Times are in
// nanoseconds.
type measurement struct {
	Name      string  `json:"name"`
	Callers   int     `json:"callers"`
	Keys      int     `json:"keys"`
	Decisions int64   `json:"decisions"`
	PerSecond float64 `json:"per_second"`
	P50       int64   `json:"p50_ns"`
	P99       int64   `json:"p99_ns"`
	Slowest   int64   `json:"slowest_ns"`
	Errors    int64   `json:"errors"`
	FirstErr  string  `json:"first_error,omitempty"`
}

func measureContender(ctx context.Context, c contender, o options) (all []measurement, err error) {
	if err := c.start(ctx, slices.Max(o.callers)); err != nil {
		return nil, err
	}
	defer func() {
		if closeErr := c.close(); err == nil {
			err = closeErr
		}
	}()
	keys, err := c.keys(ctx, o.keys)
	if err != nil {
		return nil, err
	}
	for _, callers := range o.callers {
		// A tenth is for connections and caches to get warm.
		measure(ctx, c, keys, callers, o.duration/10)
		m := measure(ctx, c, keys, callers, o.duration)
		if ctx.Err() != nil {
			return all, ctx.Err()
		}
		all = append(all, m)
	}
	return all, nil
}

// measure lets callers ask for random keys, each one call after the other.
func measure(ctx context.Context, c contender, keys []string, callers int, duration time.Duration) measurement {
	var (
		wait     sync.WaitGroup
		stop     atomic.Bool
		failed   atomic.Int64
		first    atomic.Pointer[error]
		recorded = make([]histogram, callers)
	)
	start := time.Now()
	for i := range callers {
		wait.Go(func() {
			random := rand.New(rand.NewPCG(uint64(i), 1))
			last := time.Now()
			for !stop.Load() {
				if err := c.decide(ctx, keys[random.IntN(len(keys))]); err != nil {
					failed.Add(1)
					first.CompareAndSwap(nil, &err)
				}
				now := time.Now()
				recorded[i].add(now.Sub(last))
				last = now
			}
		})
	}
	select {
	case <-time.After(duration):
	case <-ctx.Done():
	}
	stop.Store(true)
	wait.Wait()
	took := time.Since(start)
	var sum histogram
	for i := range recorded {
		sum.merge(&recorded[i])
	}
	m := measurement{
		Name: c.name(), Callers: callers, Keys: len(keys), Decisions: sum.count,
		PerSecond: float64(sum.count) / took.Seconds(),
		P50:       int64(sum.percentile(0.5)), P99: int64(sum.percentile(0.99)), Slowest: int64(sum.slowest),
		Errors: failed.Load(),
	}
	if p := first.Load(); p != nil {
		m.FirstErr = (*p).Error()
	}
	return m
}

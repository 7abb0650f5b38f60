package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// flood is what made-up keys do, each used once, to a contender and to the
// callers of other keys.
type flood struct {
	Contender      string  `json:"contender"`
	PerSecond      float64 `json:"per_second"` // made-up keys
	Keys           int64   `json:"keys"`
	Errors         int64   `json:"errors"`
	ResidentBefore int64   `json:"resident_before_bytes"` // of all its processes, or of this one where it is in process
	ResidentAfter  int64   `json:"resident_after_bytes"`
	Before         row     `json:"others_before"` // one caller of 1,000 other keys
	During         row     `json:"others_during"`
}

const (
	floodCallers = 63
	floodTimes   = 3 // as long as one measurement
)

func (r *runner) flood(ctx context.Context, rep *report) error {
	var failed []error
	for _, c := range contenders(r.options) {
		if !r.wantsContender(c.name()) {
			continue
		}
		if reason := c.missing(); reason != "" {
			rep.Skipped = append(rep.Skipped, c.name()+": "+reason)
			continue
		}
		f, err := r.floodOne(ctx, c)
		if err = errors.Join(err, c.close()); err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", c.name(), err))
			continue
		}
		rep.Floods = append(rep.Floods, f)
		fmt.Fprintf(r.progress, "%s: %d made-up keys\n", c.name(), f.Keys)
	}
	return errors.Join(failed...)
}

func (r *runner) floodOne(ctx context.Context, c contender) (f flood, err error) {
	starting, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	if err := c.start(starting, floodCallers+1); err != nil {
		return f, err
	}
	others, err := c.prepare(ctx, path{name: "uniform", rule: free, keys: 1000})
	if err != nil {
		return f, err
	}
	l := load{job: others, draws: r.draws(len(others.keys), false), callers: 1, duration: r.duration, counted: c.processes()}
	before, err := l.measure(ctx)
	if err != nil {
		return f, err
	}
	f.Contender, f.Before = c.name(), newRow(c.name(), "others", 1, before)
	// In-process contenders keep one rule at a time: the made-up keys then have
	// the others' limit.
	made := others
	if len(c.processes()) > 0 {
		if made, err = c.prepare(ctx, path{name: "made-up", rule: exhausted, keys: 1}); err != nil {
			return f, err
		}
	}
	counted := c.processes()
	if !slices.Contains(counted, os.Getpid()) && (len(counted) == 0 || c.name() == "peerlimit") {
		counted = append(counted, os.Getpid())
	}
	f.ResidentBefore = resident(counted)
	stop := f.begin(ctx, made.ask)
	l.duration *= floodTimes
	during, err := l.measure(ctx)
	stop()
	f.ResidentAfter = resident(counted)
	if err != nil {
		return f, err
	}
	f.During = newRow(c.name(), "others", 1, during)
	return f, nil
}

// begin lets callers ask for a new key each time, until stop is called.
func (f *flood) begin(ctx context.Context, one ask) (stop func()) {
	var (
		wait          sync.WaitGroup
		ended         atomic.Bool
		calls, failed atomic.Int64
		start         = time.Now()
	)
	for i := range floodCallers {
		wait.Go(func() {
			prefix := "made-up:" + strconv.Itoa(i) + ":"
			var n int64
			for ; !ended.Load(); n++ {
				if _, err := one(ctx, prefix+strconv.FormatInt(n, 10)); err != nil {
					failed.Add(1)
				}
			}
			calls.Add(n)
		})
	}
	return func() {
		ended.Store(true)
		wait.Wait()
		f.Keys, f.Errors = calls.Load(), failed.Load()
		f.PerSecond = rounded(float64(f.Keys) / time.Since(start).Seconds())
	}
}

func resident(processes []int) (sum int64) {
	for _, pid := range processes {
		sum += residentBytes(pid)
	}
	return sum
}

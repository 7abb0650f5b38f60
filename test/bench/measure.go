package main

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// load is what callers do: each asks for keys, one call after the other.
type load struct {
	job      *job
	draws    []uint32
	callers  int
	duration time.Duration
	admitted []int64 // calls allowed so far, by key; nil: nobody counts
	counted  []int   // processes whose time counts, besides this one
}

// outcome is what a load measured.
type outcome struct {
	times  histogram // of those calls that were timed
	calls  int64
	failed int64
	first  error // of those that failed
	took   time.Duration
	cpu    time.Duration // of all processes that took part
}

// Calls faster than fastCall are not all timed, since reading the clock would
// take a good part of the time. A caller whose calls never wait lets others run
// after callsInTurn of them: the scheduler takes a processor away after 10 ms
// only, and with 64 such callers on two of them everything else in this process,
// heartbeats among it, would wait for a third of a second. Callers that have
// other things to do than to ask wait now and then anyway.
const (
	fastCall    = 3 * time.Microsecond
	timedOneOf  = 16
	callsInTurn = 256
	clockProbes = 1000
)

// measure puts the load on for a moment, to get connections and caches warm and
// to see how quick the calls are, then measures.
func (l *load) measure(ctx context.Context) (outcome, error) {
	warm := l.run(ctx, max(l.duration/6, 5*time.Millisecond), 1)
	if ctx.Err() != nil {
		return outcome{}, ctx.Err()
	}
	every := 1
	if warm.times.percentile(0.5) < fastCall {
		every = timedOneOf
	}
	before := cpuTime(l.counted)
	o := l.run(ctx, l.duration, every)
	o.cpu = cpuTime(l.counted) - before
	o.failed += warm.failed
	if o.first == nil {
		o.first = warm.first
	}
	if ctx.Err() != nil {
		return outcome{}, ctx.Err()
	}
	if o.calls == 0 {
		return outcome{}, fmt.Errorf("no call returned in %s", l.duration)
	}
	return o, nil
}

// caller is what one caller measured; padded, since they all write at once.
type caller struct {
	times  histogram
	calls  int64
	failed int64
	first  error
	_      [64]byte
}

// run lets the callers ask for that long; one call out of every is timed.
func (l *load) run(ctx context.Context, duration time.Duration, every int) (o outcome) {
	var (
		wait    sync.WaitGroup
		stop    atomic.Bool
		callers = make([]caller, l.callers)
		clock   time.Duration
	)
	if every > 1 {
		clock = clockCost()
	}
	start := time.Now()
	for i := range callers {
		wait.Go(func() {
			callers[i].ask(ctx, l, i*len(l.draws)/len(callers), every, clock, &stop)
		})
	}
	timer := time.NewTimer(duration)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
	stop.Store(true)
	wait.Wait()
	o.took = time.Since(start)
	for i := range callers {
		c := &callers[i]
		o.times.merge(&c.times)
		o.calls += c.calls
		o.failed += c.failed
		if o.first == nil {
			o.first = c.first
		}
	}
	return o
}

func (c *caller) ask(ctx context.Context, l *load, first, every int, clock time.Duration, stop *atomic.Bool) {
	var begin time.Time
	for i := 0; !stop.Load(); i++ {
		if i%callsInTurn == callsInTurn-1 {
			runtime.Gosched()
		}
		key := l.draws[(first+i)&(len(l.draws)-1)]
		timed := i%every == 0
		if timed {
			begin = time.Now()
		}
		allowed, err := l.job.ask(ctx, l.job.keys[key])
		if timed {
			c.times.add(time.Since(begin) - clock)
		}
		c.calls++
		if c.fails(err); err == nil && allowed && l.admitted != nil {
			atomic.AddInt64(&l.admitted[key], 1)
		}
	}
}

// fails counts an error; nil is none.
func (c *caller) fails(err error) {
	if err == nil {
		return
	}
	c.failed++
	if c.first == nil {
		c.first = err
	}
}

// clockCost is how long a call that takes no time seems to take.
func clockCost() time.Duration {
	var h histogram
	for range clockProbes {
		begin := time.Now()
		h.add(time.Since(begin))
	}
	return h.percentile(0.1)
}

// spent is what using up limits came to.
type spent struct {
	admitted []int64 // calls allowed, by key
	failed   int64
	first    error
}

// exhaust uses up the limit of every key of a job: through all members at once
// where there is one key, else by asking once more than the limit.
func exhaust(ctx context.Context, j *job, limit int64) (s spent) {
	s.admitted = make([]int64, len(j.keys))
	if len(j.keys) == 1 {
		s.admitted[0], s.first = j.spend(ctx, j.keys[0], int(3*limit))
		if s.first != nil {
			s.failed = 1
		}
		return s
	}
	const callers = 64
	var (
		wait   sync.WaitGroup
		failed [callers]caller
	)
	for c := range callers {
		wait.Go(func() {
			for i := c; i < len(j.keys) && ctx.Err() == nil; i += callers {
				for range limit + 1 {
					allowed, err := j.ask(ctx, j.keys[i])
					if failed[c].fails(err); err == nil && allowed {
						s.admitted[i]++
					}
				}
			}
		})
	}
	wait.Wait()
	for i := range failed {
		s.failed += failed[i].failed
		if s.first == nil {
			s.first = failed[i].first
		}
	}
	return s
}

// beyond counts how many calls were allowed beyond the limit, of all keys.
func beyond(admitted []int64, limit int64) (over int64) {
	for _, n := range admitted {
		over += max(0, n-limit)
	}
	return over
}

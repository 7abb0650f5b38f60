package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"
)

// scale is a load on a cluster of a number of members, which are all on this
// machine: what counts is the work that each call makes.
type scale struct {
	Members int    `json:"members"`
	Load    string `json:"load"`
	// Settled: each member had its share of the slots, all with copies, before
	// the load began. With too many members for the machine that does not come.
	Settled bool `json:"settled"`
	// PerCPUSecond is how many calls a second of processor time is enough for,
	// that of all members.
	PerSecond    float64 `json:"per_second"`
	PerCPUSecond float64 `json:"per_cpu_second"`
	P50          float64 `json:"p50_us,omitempty"` // of the uniform load
	P99          float64 `json:"p99_us,omitempty"`
	CPU          float64 `json:"cpu_us"`
	// Writes are system calls that write, on connections between members nearly
	// all of them, so about the packets of messages; Bytes are theirs. A call.
	Writes float64 `json:"writes_per_call"`
	Bytes  float64 `json:"bytes_per_call"`
	// What the members do while nobody asks: per cent of one core, and a second.
	IdleCPU    float64 `json:"idle_cpu_percent"`
	IdleWrites float64 `json:"idle_writes_per_second"`
	IdleBytes  float64 `json:"idle_bytes_per_second"`
	Copies     int64   `json:"copies"` // keys that a second member has, at the end
	Errors     int64   `json:"errors"`
	Over       int64   `json:"admitted_over_limit"`
}

// Loads of a scale.
const (
	uniformLoad = "uniform, 64 callers of one member"
	hotLoad     = "a hot key, asked by all"
)

func (r *runner) scale(ctx context.Context, rep *report) error {
	var failed []error
	for _, members := range r.members {
		p := &peerlimit{members: members, tls: r.tls}
		rows, err := r.scaleOne(ctx, p)
		rep.Scales = append(rep.Scales, rows...)
		if err = errors.Join(err, p.close()); err != nil {
			failed = append(failed, fmt.Errorf("%d members: %w", members, err))
		}
		fmt.Fprintf(r.progress, "%d members: done\n", members)
	}
	return errors.Join(failed...)
}

// settlingTime is for what members do after each has its share; settlePatience
// is how long is waited for that.
const (
	settlingTime   = 3 * time.Second
	settlePatience = time.Minute
)

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// used is what processes have used so far.
type used struct {
	cpu           time.Duration
	writes, bytes int64
	at            time.Time
}

func usedBy(others []int) used {
	u := used{cpu: cpuTime(others), at: time.Now()}
	for _, pid := range append([]int{os.Getpid()}, others...) {
		writes, bytes := written(pid)
		u.writes += writes
		u.bytes += bytes
	}
	return u
}

func (u used) since(before used) used {
	return used{cpu: u.cpu - before.cpu, writes: u.writes - before.writes, bytes: u.bytes - before.bytes}
}

func (r *runner) scaleOne(ctx context.Context, p *peerlimit) (rows []scale, err error) {
	starting, cancel := context.WithTimeout(ctx, startTime+time.Duration(p.members)*4*time.Second)
	defer cancel()
	if err := p.launch(starting); err != nil {
		return nil, fmt.Errorf("starting: %w", err)
	}
	settled, err := p.settle(starting, settlePatience)
	if err != nil {
		return nil, fmt.Errorf("settling: %w", err)
	}
	if err := pause(ctx, settlingTime); err != nil {
		return nil, err
	}
	idle := scale{Members: p.members, Settled: settled}
	begin := usedBy(p.processes())
	if err := pause(ctx, 2*r.duration); err != nil {
		return nil, err
	}
	quiet := usedBy(p.processes()).since(begin)
	seconds := time.Since(begin.at).Seconds()
	idle.IdleCPU = rounded(100 * quiet.cpu.Seconds() / seconds)
	idle.IdleWrites = rounded(float64(quiet.writes) / seconds)
	idle.IdleBytes = rounded(float64(quiet.bytes) / seconds)

	uniform, err := r.scaleUniform(ctx, p, idle)
	if err != nil {
		return nil, err
	}
	hot, err := r.scaleHot(ctx, p, idle)
	return []scale{uniform, hot}, err
}

func (r *runner) scaleUniform(ctx context.Context, p *peerlimit, s scale) (scale, error) {
	j, err := p.prepare(ctx, path{name: "uniform", rule: free, keys: r.keys})
	if err != nil {
		return s, err
	}
	l := load{job: j, draws: r.draws(len(j.keys), false), callers: 64, duration: 2 * r.duration, counted: p.processes()}
	l.run(ctx, r.duration/4, 1)
	before := usedBy(p.processes())
	o := l.run(ctx, l.duration, 1)
	u := usedBy(p.processes()).since(before)
	if o.calls == 0 {
		return s, errors.Join(errors.New("no call returned"), ctx.Err())
	}
	s.Load, s.Errors = uniformLoad, o.failed
	s.account(o.calls, o.took, u)
	s.P50 = rounded(float64(o.times.percentile(0.5)) / 1000)
	s.P99 = rounded(float64(o.times.percentile(0.99)) / 1000)
	s.Copies, err = p.copies(ctx)
	return s, err
}

// account divides what was used by the calls.
func (s *scale) account(calls int64, took time.Duration, u used) {
	s.PerSecond = rounded(float64(calls) / took.Seconds())
	s.CPU = rounded(float64(u.cpu) / 1000 / float64(calls))
	if u.cpu > 0 {
		s.PerCPUSecond = rounded(float64(calls) / u.cpu.Seconds())
	}
	s.Writes = rounded(float64(u.writes) / float64(calls))
	s.Bytes = rounded(float64(u.bytes) / float64(calls))
}

// scaleHot lets all members ask for one key; then for another one, until its
// limit is long used up, to count what was allowed.
func (r *runner) scaleHot(ctx context.Context, p *peerlimit, s scale) (scale, error) {
	o := order{Do: doLoad, Rule: free, Key: "hot-of-all", For: 2 * r.duration}
	asked := append([]func(context.Context, order) (counted, error){p.own.load}, orders(p.others)...)
	all, failed := make([]counted, len(asked)), make([]error, len(asked))
	before := usedBy(p.processes())
	begin := time.Now()
	var wait sync.WaitGroup
	for i, ask := range asked {
		wait.Go(func() { all[i], failed[i] = ask(ctx, o) })
	}
	wait.Wait()
	took := time.Since(begin)
	u := usedBy(p.processes()).since(before)
	var calls int64
	for _, one := range all {
		calls += one.Calls
		s.Errors += one.Failed
	}
	if err := errors.Join(failed...); err != nil || calls == 0 {
		return s, errors.Join(err, fmt.Errorf("%d calls returned", calls))
	}
	s.Load = hotLoad
	s.account(calls, took, u)
	admitted, err := p.spend(ctx, order{Do: doSpend, Rule: exhausted, Key: "spent-by-all", Calls: 3 * hotLimit / p.members})
	s.Over = max(0, admitted-hotLimit)
	return s, err
}

// orders are the other members' ways to follow one.
func orders(members []*child) (all []func(context.Context, order) (counted, error)) {
	for _, c := range members {
		all = append(all, func(ctx context.Context, o order) (answer counted, err error) {
			_, err = c.call(ctx, o, &answer)
			return answer, err
		})
	}
	return all
}

// copies is how many keys have a copy, in all.
func (p *peerlimit) copies(ctx context.Context) (sum int64, err error) {
	sum = int64(p.own.stats().Copies)
	for _, c := range p.others {
		var s memberStats
		if _, err := c.call(ctx, order{Do: doStats}, &s); err != nil {
			return sum, err
		}
		sum += int64(s.Copies)
	}
	return sum, nil
}

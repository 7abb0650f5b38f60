package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"
)

// runner measures all contenders, round after round.
type runner struct {
	options
	progress io.Writer
	serial   int // of the paths, so that limits that are used up get new keys
	zipf     []uint32
	uniform  map[int][]uint32
}

// startTime bounds the start of a contender.
const startTime = 2 * time.Minute

// rounds lets every contender run all its paths, each contender with the
// machine to itself, and again in the opposite order: what the machine's speed
// does meanwhile hits each alike. It returns what could be measured, and an
// error for the rest.
func (r *runner) rounds(ctx context.Context, rep *report) error {
	all := slices.DeleteFunc(contenders(r.options), func(c contender) bool { return !r.wantsContender(c.name()) })
	all = slices.DeleteFunc(all, func(c contender) bool {
		reason := c.missing()
		if reason != "" {
			rep.Skipped = append(rep.Skipped, c.name()+": "+reason)
		}
		return reason != ""
	})
	var failed []error
	for round := range r.options.rounds {
		for _, c := range all {
			rows, err := r.contender(ctx, c, round)
			rep.add(round, rows)
			if err != nil {
				failed = append(failed, fmt.Errorf("%s, round %d: %w", c.name(), round+1, err))
			}
			if ctx.Err() != nil {
				return errors.Join(failed...)
			}
		}
		slices.Reverse(all)
	}
	return errors.Join(failed...)
}

// contender measures one: its middleware first, without what it starts for its
// paths, whose members would take a part of the time.
func (r *runner) contender(ctx context.Context, c contender, round int) (rows []row, err error) {
	begin := time.Now()
	defer func() {
		fmt.Fprintf(r.progress, "round %d of %d: %s: %d rows in %.1f s\n",
			round+1, r.options.rounds, c.name(), len(rows), time.Since(begin).Seconds())
	}()
	if r.wantsPath(middlewarePath) {
		if rows, err = r.middleware(c.name()); err != nil {
			return nil, err
		}
	}
	if !slices.ContainsFunc(paths(r.options, 0), func(p path) bool { return r.wantsPath(p.name) }) {
		return rows, nil
	}
	more, err := r.started(ctx, c)
	return append(rows, more...), err
}

// started starts a contender, measures its paths, and ends it.
func (r *runner) started(ctx context.Context, c contender) (rows []row, err error) {
	defer func() { err = errors.Join(err, c.close()) }()
	starting, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	if err := c.start(starting, max(slices.Max(r.callers), 64)); err != nil {
		return nil, fmt.Errorf("starting: %w", err)
	}
	var failed []error
	for _, p := range paths(r.options, 0) {
		if !r.wantsPath(p.name) {
			continue
		}
		callers := p.callers
		if callers == nil {
			callers = r.callers
		}
		for _, n := range callers {
			measured, ok, err := r.row(ctx, c, p.name, n)
			if err != nil {
				failed = append(failed, fmt.Errorf("%s with %d callers: %w", p.name, n, err))
			} else if ok {
				rows = append(rows, measured)
			}
			if !ok || ctx.Err() != nil {
				break // there is no such path here, or no more time
			}
		}
	}
	return rows, errors.Join(failed...)
}

// row measures one path with so many callers; ok is false where the contender
// has nothing like it.
func (r *runner) row(ctx context.Context, c contender, name string, callers int) (measured row, ok bool, err error) {
	if members, ok := c.(replicated); ok {
		before, err := members.takeOvers(ctx)
		if err != nil {
			return row{}, false, err
		}
		defer func() {
			if after, err := members.takeOvers(ctx); err == nil && after > before {
				measured.TakeOvers = int64(after - before)
			}
		}()
	}
	return r.measured(ctx, c, name, callers)
}

func (r *runner) measured(ctx context.Context, c contender, name string, callers int) (_ row, ok bool, err error) {
	r.serial++
	all := paths(r.options, r.serial)
	p := all[slices.IndexFunc(all, func(p path) bool { return p.name == name })]
	j, err := c.prepare(ctx, p)
	if err != nil || j == nil {
		return row{}, false, err
	}
	l := load{job: j, draws: r.draws(len(j.keys), p.zipf), callers: callers, duration: r.duration, counted: c.processes()}
	begin := time.Now()
	var before spent
	if p.denied {
		before = exhaust(ctx, j, p.rule.Limit)
		l.admitted = before.admitted
	}
	o, err := l.measure(ctx)
	if err != nil {
		return row{}, false, errors.Join(err, before.first)
	}
	if o.failed += before.failed; before.first != nil {
		o.first = before.first
	}
	measured := newRow(c.name(), p.name, callers, o)
	if p.denied {
		measured.Over = beyond(l.admitted, p.rule.Limit+j.regained(p.rule, time.Since(begin)))
	}
	if p.name == "holder" {
		allocs := allocations(ctx, j)
		measured.Allocs = &allocs
	}
	return measured, true, nil
}

func (r *runner) draws(n int, zipf bool) []uint32 {
	if zipf {
		if r.zipf == nil {
			r.zipf = draws(n, true)
		}
		return r.zipf
	}
	if r.uniform == nil {
		r.uniform = make(map[int][]uint32)
	}
	if r.uniform[n] == nil {
		r.uniform[n] = draws(n, false)
	}
	return r.uniform[n]
}

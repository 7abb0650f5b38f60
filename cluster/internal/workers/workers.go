// Package workers runs short jobs on goroutines that stay for the next one.
//
// A goroutine begins with a stack of a few kilobytes, which is copied to a
// larger one each time a job needs more. Where a job takes some microseconds
// that is a good part of it; a goroutine that has run one before has its stack.
package workers

import "time"

// idle is how long a goroutine waits for its next job.
const idle = time.Second

// Pool runs jobs, each at once: it has as many goroutines as jobs run, and those
// that have run one within the last second.
type Pool struct {
	spawn func(f func()) bool
	done  <-chan struct{}
	jobs  chan func()
}

// New returns a pool whose goroutines are started by spawn, which owns them, and
// end once done is closed and they have nothing to do. Where spawn does not
// start one it returns false.
func New(spawn func(f func()) bool, done <-chan struct{}) *Pool {
	return &Pool{spawn: spawn, done: done, jobs: make(chan func())}
}

// Do runs f on another goroutine. false: it does not, since there is none.
func (p *Pool) Do(f func()) bool {
	select {
	case p.jobs <- f:
		return true
	default:
		return p.spawn(func() { p.work(f) })
	}
}

func (p *Pool) work(f func()) {
	f()
	wait := time.NewTimer(idle)
	defer wait.Stop()
	for {
		select {
		case f := <-p.jobs:
			f()
			wait.Reset(idle)
		case <-wait.C:
			return
		case <-p.done:
			return
		}
	}
}

package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// rule says how often something may be done. Each contender counts it by its
// own means: see the README.
type rule struct {
	Name   string        `json:"name"`
	Limit  int64         `json:"limit"`
	Period time.Duration `json:"period"`
}

// An ask takes one permit of a rule for a key, or does what else is measured.
type ask func(ctx context.Context, key string) (allowed bool, err error)

// contender is a system that is measured. Its methods are called in the order
// in which they stand here, by one goroutine; what prepare returns is called by
// many.
type contender interface {
	name() string
	// missing says why it can't be measured here; "" where it can.
	missing() string
	// start starts what it needs, for at most that many callers.
	start(ctx context.Context, callers int) error
	// prepare gets ready for a path; nil: there is nothing like it here.
	prepare(ctx context.Context, p path) (*job, error)
	// processes are the IDs of its processes, without this one.
	processes() []int
	close() error
}

// replicated is a contender whose members take over from one another.
type replicated interface {
	takeOvers(ctx context.Context) (uint64, error)
}

// job is a path of one contender, ready to be measured.
type job struct {
	ask  ask
	keys []string
	// spend asks that often for a key, through all members at once, and returns
	// how many were allowed. Only where a path has a limit that can be reached.
	spend func(ctx context.Context, key string, calls int) (int64, error)
	// refills: permits come back evenly, and not all at the end of a period.
	refills bool
}

// spendCallers is how many ask through one member at once in a spend.
const spendCallers = 16

// spendThrough asks for one key, calls times in all, through each of the doors
// in equal parts.
func spendThrough(ctx context.Context, doors []ask, key string, calls int) (int64, error) {
	var (
		wait     sync.WaitGroup
		admitted atomic.Int64
		failed   = make([]error, len(doors)*spendCallers)
	)
	each := (calls + len(failed) - 1) / len(failed)
	for i := range failed {
		wait.Go(func() {
			for range each {
				allowed, err := doors[i/spendCallers](ctx, key)
				if err != nil {
					failed[i] = err
					return
				}
				if allowed {
					admitted.Add(1)
				}
			}
		})
	}
	wait.Wait()
	if err := errors.Join(failed...); err != nil {
		return admitted.Load(), fmt.Errorf("spending %s: %w", key, err)
	}
	return admitted.Load(), nil
}

// spender returns a job's spend through these doors.
func spender(doors ...ask) func(context.Context, string, int) (int64, error) {
	return func(ctx context.Context, key string, calls int) (int64, error) {
		return spendThrough(ctx, doors, key, calls)
	}
}

// contenders returns all that are compared.
func contenders(o options) []contender {
	var servers gubernators
	return []contender{
		&peerlimit{members: 3, tls: o.tls, quick: o.quick},
		&peerlimitHTTP{binary: o.node, tls: o.tls},
		&goredis{},
		&rueidisClient{},
		&redisRate{},
		&gubernator{servers: &servers, behaviour: "batching"},
		&gubernator{servers: &servers, behaviour: "no-batching"},
		&gubernator{servers: &servers, behaviour: "global"},
		&goLimiter{},
		&httpRate{},
		bare{},
	}
}

// regained is how many permits of a rule have come back in a time.
func (j *job) regained(r rule, since time.Duration) int64 {
	if !j.refills {
		return 0
	}
	return int64(float64(r.Limit) * float64(since) / float64(r.Period))
}

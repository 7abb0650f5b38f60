package e2e

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// Counts is what a number of checks came to.
type Counts struct{ Sent, Allowed, Denied, Degraded, Errors int64 }

func (c Counts) String() string {
	return fmt.Sprintf("%d sent: %d allowed, %d denied, %d degraded, %d failed",
		c.Sent, c.Allowed, c.Denied, c.Degraded, c.Errors)
}

// Burst sends body total times from all members at once, with callers for each,
// as fast as they answer. It returns the counts, the time it took, and the
// first error.
func Burst(members []*Member, callers, total int, body []byte) (Counts, time.Duration, error) {
	var (
		allowed, denied, degraded, failed, next atomic.Int64
		first                                   atomic.Pointer[error]
		wait                                    sync.WaitGroup
	)
	start := time.Now()
	for _, m := range members {
		for range callers {
			wait.Go(func() {
				for next.Add(1) <= int64(total) {
					ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
					d, err := m.Check(ctx, body)
					cancel()
					switch {
					case err != nil:
						failed.Add(1)
						first.CompareAndSwap(nil, &err)
						continue
					case d.Allowed:
						allowed.Add(1)
					default:
						denied.Add(1)
					}
					if d.Degraded {
						degraded.Add(1)
					}
				}
			})
		}
	}
	wait.Wait()
	counts := Counts{Sent: int64(total), Allowed: allowed.Load(), Denied: denied.Load(),
		Degraded: degraded.Load(), Errors: failed.Load()}
	var err error
	if p := first.Load(); p != nil {
		err = *p
	}
	return counts, time.Since(start), err
}

package kv

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/olric-data/olric"
)

const (
	copyWorkers = 8
	copyBatch   = 16 // entries between two pauses
	copyTries   = 10 // over 2.4 s: a partition table that could not be sent is sent again after one
)

// copyAll offers everything in g to the owners of the keys, tombstones too. Each
// keeps what is later, so that copying can't undo a write, and tells its backup
// of what it has, so that there are two copies after it. It returns how many
// were not taken.
//
// The engine of an olric that was stopped tells of no delete after that: what
// is in it must have been offered before the tombstones of such deletes expire,
// so ctx must end within keepFor.
func (s *Store) copyAll(ctx context.Context, dm olric.DMap, g *engine, workers int) int {
	var all []envelope
	g.each(func(_ uint64, e envelope) { all = append(all, e) })
	return s.copyEach(ctx, dm, g, all, workers)
}

// copyEach offers those in all that are still in g.
func (s *Store) copyEach(ctx context.Context, dm olric.DMap, g *engine, all []envelope, workers int) int {
	began := time.Now()
	var next, copied, failed atomic.Int64
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= len(all) {
					return
				}
				// As it is now: since the list was made it may have been
				// deleted. Or it has gone to another member, whose own list
				// may have been made before it came.
				e := g.find(string(all[i].key()))
				if e == nil && time.Since(began) < keepFor {
					e = all[i]
				}
				if e == nil {
					continue
				}
				copied.Add(1)
				if !s.copyOne(ctx, dm, e) {
					failed.Add(1)
				}
				if i%copyBatch == 0 {
					sleep(ctx, s.timings.pace) // once ctx has ended the rest fails at once
				}
			}
		})
	}
	wg.Wait()
	s.copied.Add(uint64(copied.Load()))
	s.failed.Add(uint64(failed.Load()))
	return int(failed.Load())
}

// copyOne tries again where the owner has just changed.
func (s *Store) copyOne(ctx context.Context, dm olric.DMap, e envelope) bool {
	for try := range copyTries {
		if try > 0 && !sleep(ctx, time.Duration(min(try, 6))*50*time.Millisecond) {
			return false
		}
		if ctx.Err() != nil {
			return false
		}
		if e.expires() <= s.clock.now() {
			return true
		}
		if err := storeTo(dm, string(e.key()), e, false); err == nil {
			return true
		}
	}
	return false
}

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
	copyBatch   = 16 // entries a worker copies between two pauses
	copyTries   = 5
)

// copyAll offers everything in g to the owners of the keys, tombstones too. Each
// keeps what is later, so that copying can't undo a write, and tells its backup
// of what it has, so that there are two copies after it. It returns how many
// were not taken.
func (s *Store) copyAll(ctx context.Context, dm olric.DMap, g *engine, workers int) int {
	var all []envelope
	g.each(func(_ uint64, e envelope) { all = append(all, e) })
	var next, failed atomic.Int64
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for n := 1; ; n++ {
				i := int(next.Add(1)) - 1
				if i >= len(all) {
					return
				}
				if !s.copyOne(ctx, dm, all[i]) {
					failed.Add(1)
				}
				if n%copyBatch == 0 && !sleep(ctx, s.timings.pace) {
					continue // the rest fails at once, and is counted
				}
			}
		})
	}
	wg.Wait()
	s.copied.Add(uint64(len(all)))
	s.failed.Add(uint64(failed.Load()))
	return int(failed.Load())
}

// copyOne tries again where the owner has just changed.
func (s *Store) copyOne(ctx context.Context, dm olric.DMap, e envelope) bool {
	for try := range copyTries {
		if try > 0 && !sleep(ctx, time.Duration(try)*50*time.Millisecond) {
			return false
		}
		if ctx.Err() != nil {
			return false
		}
		if e.expires() <= s.clock.now() {
			return true
		}
		if err := s.offer(dm, e); err == nil {
			return true
		}
	}
	return false
}

func (s *Store) offer(dm olric.DMap, e envelope) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = ErrUnavailable
		}
	}()
	return storeTo(dm, string(e.key()), e, false)
}

package auth

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"
)

// usageBound is how many keys' last use may wait to be written; usageBatch how many are written at once.
const (
	usageBound = 100_000
	usageBatch = 1000
)

// usage gathers when keys were last used and writes it in batches. It may lose the last interval in a crash.
type usage struct {
	store Store
	every time.Duration
	log   *slog.Logger

	mu      sync.Mutex       // guards all below
	waiting map[string]int64 // by ID, on the wall clock
	failing bool
}

func newUsage(store Store, every time.Duration, log *slog.Logger) *usage {
	return &usage{store: store, every: every, log: log, waiting: map[string]int64{}}
}

func (u *usage) note(id string, wall int64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if _, ok := u.waiting[id]; ok || len(u.waiting) < usageBound {
		u.waiting[id] = max(u.waiting[id], wall)
	}
}

func (u *usage) run(ctx context.Context) {
	ticker := time.NewTicker(u.every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			_ = u.flush(ctx) // logged there; tried again next time
		}
	}
}

// flush writes what waits. What fails waits on.
func (u *usage) flush(ctx context.Context) error {
	u.mu.Lock()
	waiting := u.waiting
	u.waiting = map[string]int64{}
	u.mu.Unlock()
	batch := make([]Use, 0, min(len(waiting), usageBatch))
	var err error
	write := func() {
		if err == nil && len(batch) > 0 {
			err = u.store.Touch(ctx, batch)
		}
		if err != nil {
			for _, use := range batch {
				u.note(use.ID, use.At.UnixNano())
			}
		}
		batch = batch[:0]
	}
	// In order, so that members that write the same keys lock their rows in the same order.
	for _, id := range slices.Sorted(maps.Keys(waiting)) {
		batch = append(batch, Use{id, time.Unix(0, waiting[id]).UTC()})
		if len(batch) == usageBatch {
			write()
		}
	}
	write()
	u.mu.Lock()
	changed := u.failing != (err != nil)
	u.failing = err != nil
	u.mu.Unlock()
	if changed && err != nil && ctx.Err() == nil {
		u.log.Warn("last use of keys not written", slog.Any("error", err))
	}
	return err
}

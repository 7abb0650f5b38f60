package cluster

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/sony/gobreaker/v2"
)

// What makes the KV's breaker open and close.
const (
	kvBreakerFailures  = 5 // in a row
	kvBreakerSuccesses = 2
	kvBreakerOpenFor   = 10 * time.Second
)

// KVBreakerStats counts what the KV's breaker did.
type KVBreakerStats struct {
	BreakerStats
	// Rejected counts the calls that were not let through.
	Rejected uint64
}

// kvBreaker wraps gobreaker's, which calls back under its lock and can't be
// reset.
type kvBreaker struct {
	logger *slog.Logger

	mu       sync.Mutex // guards what follows
	cb       *gobreaker.TwoStepCircuitBreaker[struct{}]
	changes  []gobreaker.State // not yet logged
	counts   breakerCounts
	rejected uint64 // calls
}

func (b *kvBreaker) init(logger *slog.Logger) {
	b.logger = logger
	b.cb = b.fresh()
}

func (b *kvBreaker) fresh() *gobreaker.TwoStepCircuitBreaker[struct{}] {
	var cb *gobreaker.TwoStepCircuitBreaker[struct{}]
	cb = gobreaker.NewTwoStepCircuitBreaker[struct{}](gobreaker.Settings{
		Name:        "kv",
		MaxRequests: kvBreakerSuccesses,
		Timeout:     kvBreakerOpenFor,
		ReadyToTrip: func(c gobreaker.Counts) bool { return c.ConsecutiveFailures >= kvBreakerFailures },
		OnStateChange: func(_ string, _, to gobreaker.State) {
			// Under b.mu, as every call of cb is. One that was reset is told
			// of calls that it let through before.
			if cb == b.cb {
				b.changes = append(b.changes, to)
			}
		},
		IsSuccessful: func(err error) bool { return !errors.Is(err, ErrKVUnavailable) },
		// A caller that gave up says nothing about the KV.
		IsExcluded: func(err error) bool {
			return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
		},
	})
	return cb
}

// guard calls f unless the breaker is open.
func (b *kvBreaker) guard(f func() error) error {
	var done func(error)
	err := b.locked(func() (err error) {
		done, err = b.cb.Allow()
		if err != nil {
			b.rejected++
		}
		return err
	})
	if err != nil {
		return ErrKVOpen
	}
	// A panic of f counts as a failure, and goes on.
	err = ErrKVUnavailable
	defer func() { _ = b.locked(func() error { done(err); return nil }) }()
	err = f()
	return err
}

func (b *kvBreaker) state() (st gobreaker.State) {
	_ = b.locked(func() error {
		st = b.cb.State()
		return nil
	})
	return st
}

// locked calls f under the lock, and logs afterwards what it changed.
func (b *kvBreaker) locked(f func() error) error {
	b.mu.Lock()
	err := f()
	changes := b.takeChangesLocked()
	b.mu.Unlock()
	for _, to := range changes {
		level := slog.LevelInfo
		if to == gobreaker.StateOpen {
			level = slog.LevelWarn
		}
		b.logger.Log(context.Background(), level, "breaker "+to.String(), "name", "kv")
	}
	return err
}

func (b *kvBreaker) takeChangesLocked() []gobreaker.State {
	changes := b.changes
	b.changes = nil
	for _, to := range changes {
		b.counts.changed(to.String(), time.Now())
	}
	return changes
}

func (b *kvBreaker) stats() KVBreakerStats {
	_ = b.locked(func() error { b.cb.State(); return nil }) // it may have become half-open
	b.mu.Lock()
	defer b.mu.Unlock()
	return KVBreakerStats{BreakerStats: b.counts.stats(b.cb.State().String(), time.Now()), Rejected: b.rejected}
}

func (b *kvBreaker) reset() {
	_ = b.locked(func() error {
		if b.cb.State() != gobreaker.StateClosed {
			b.changes = append(b.changes, gobreaker.StateClosed)
		}
		b.cb = b.fresh()
		return nil
	})
}

package kv

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/olric-data/olric"
)

// call runs f, which asks olric, on a goroutine of its own, and waits for it for at
// most limit: olric's calls heed no context and may wait for a lock.
func call[T any](ctx context.Context, s *Store, limit time.Duration, f func(c *caller) (T, error)) (T, error) {
	var none T
	c := s.caller.Load()
	if c == nil {
		return none, s.why()
	}
	if err := ctx.Err(); err != nil {
		return none, err
	}
	select {
	case s.inFlight <- struct{}{}:
	default:
		return none, fmt.Errorf("%w: %d calls are waiting already", ErrUnavailable, maxInFlight)
	}
	type result struct {
		v   T
		err error
	}
	done := make(chan result, 1)
	if !s.workers.Do(func() {
		defer func() { <-s.inFlight }()
		defer func() {
			if p := recover(); p != nil {
				done <- result{err: fmt.Errorf("%w: olric panicked: %v", ErrUnavailable, p)}
			}
		}()
		v, err := f(c)
		done <- result{v, err}
	}) {
		<-s.inFlight
		return none, ErrClosed
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case r := <-done:
		if r.err == nil || errors.Is(r.err, ErrWrongKind) {
			s.lastOK.Store(int64(s.own()))
		}
		return r.v, r.err
	case <-ctx.Done():
		return none, ctx.Err()
	case <-timer.C:
		return none, fmt.Errorf("%w: no answer in %v", ErrUnavailable, limit)
	}
}

func (s *Store) why() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	return ErrUnavailable
}

// again calls f until it succeeds, at most for four fifths of the time that a
// call has.
// When a member leaves, its keys have no owner that answers for 30 to 60 ms
// (TestLeaveUnderLoad).
func (s *Store) again(ctx context.Context, f func() error) error {
	began := time.Now()
	for pause := 10 * time.Millisecond; ; pause *= 2 {
		err := f()
		if !errors.Is(err, ErrUnavailable) || time.Since(began)+pause > s.timings.call*4/5 || !sleep(ctx, pause) {
			return err
		}
	}
}

func (s *Store) fetch(ctx context.Context, key string) (envelope, error) {
	began := time.Now()
	e, err := s.fetchSettled(ctx, key)
	if errors.Is(err, errAskOlric) {
		return s.fetchByOlric(ctx, s.timings.call-time.Since(began), key)
	}
	return e, err
}

func (s *Store) fetchByOlric(ctx context.Context, limit time.Duration, key string) (envelope, error) {
	return call(ctx, s, limit, func(c *caller) (e envelope, err error) {
		err = s.again(ctx, func() error {
			e, err = fetchFrom(c.DMap, key)
			return err
		})
		if err != nil && c.last != nil {
			if e := c.last.find(key); e != nil {
				return e, nil
			}
		}
		return e, err
	})
}

// fetchSurely is told by respDoubtful of what the owner could not ask.
func (s *Store) fetchSurely(ctx context.Context, key string) (envelope, error) {
	in := s.current()
	if in == nil {
		return s.fetch(ctx, key)
	}
	silent := in.silent.Load()
	e, err := s.fetch(ctx, key)
	if err == nil && e == nil && in.silent.Load() != silent {
		return nil, fmt.Errorf("%w: get: not every copy was asked", ErrUnavailable)
	}
	return e, err
}

func fetchFrom(dm olric.DMap, key string) (envelope, error) {
	r, err := dm.Get(context.Background(), digest(key))
	if errors.Is(err, olric.ErrKeyNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%w: get: %w", ErrUnavailable, err)
	}
	b, err := r.Byte()
	if err != nil {
		return nil, fmt.Errorf("%w: get: %w", ErrUnavailable, err)
	}
	e, err := parseEnvelope(b)
	if err != nil {
		return nil, fmt.Errorf("%w: get: %w", ErrUnavailable, err)
	}
	return e, nil
}

func (s *Store) store(ctx context.Context, key string, e envelope, sameKind bool) error {
	began := time.Now()
	err := s.storeSettled(ctx, key, e, sameKind)
	if !errors.Is(err, errAskOlric) {
		return err
	}
	_, err = call(ctx, s, s.timings.call-time.Since(began), func(c *caller) (struct{}, error) {
		return struct{}{}, s.again(ctx, func() error { return storeTo(c.DMap, key, e, sameKind) })
	})
	return err
}

func storeTo(dm olric.DMap, key string, e envelope, sameKind bool) error {
	err := putHere(dm, digest(key), e, sameKind)
	if errors.Is(err, olric.ErrKeyFound) {
		return ErrWrongKind
	}
	if err != nil {
		return fmt.Errorf("%w: put: %w", ErrUnavailable, err)
	}
	return nil
}

// putHere puts nx, "only if absent", on a write that must not touch a counter's
// key; see fork.GetTTL.
func putHere(dm olric.DMap, key string, value []byte, nx bool) (err error) {
	defer recovered(&err)
	if nx {
		return dm.Put(context.Background(), key, value, olric.NX())
	}
	return dm.Put(context.Background(), key, value)
}

// GetMany returns what the keys hold, without those that hold nothing. With an
// error it returns what could be had.
func (s *Store) GetMany(ctx context.Context, keys []string) (map[string]Item, error) {
	var mu sync.Mutex // guards found and failed
	found := make(map[string]Item, len(keys))
	var failed error
	next := make(chan string)
	var wg sync.WaitGroup
	const workers = 16
	for range min(workers, len(keys)) {
		wg.Go(func() {
			for key := range next {
				it, ok, err := s.Get(ctx, key)
				mu.Lock()
				if err != nil {
					failed = err
				} else if ok {
					found[key] = it
				}
				mu.Unlock()
			}
		})
	}
	for _, key := range keys {
		next <- key
	}
	close(next)
	wg.Wait()
	return found, failed
}

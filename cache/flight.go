package cache

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"
)

// flights lets concurrent callers of one key share one piece of work. The work
// has a context of its own: it goes on while anybody waits for it, whoever came
// first, and ends when nobody does.
type flights[R any] struct {
	wg *sync.WaitGroup // counts the work under way

	mu     sync.Mutex // guards what follows and the waiters of each
	m      map[string]*flight[R]
	all    map[*flight[R]]struct{} // those that were forgotten, too
	closed bool
}

type flight[R any] struct {
	done    chan struct{}
	cancel  context.CancelFunc
	waiters int
	r       R
	err     error
}

func newFlights[R any](wg *sync.WaitGroup) *flights[R] {
	return &flights[R]{wg: wg, m: make(map[string]*flight[R]), all: make(map[*flight[R]]struct{})}
}

// do returns the result of work for key: of the work that is under way, or of
// work. shared says that it was another caller's.
func (fs *flights[R]) do(ctx context.Context, key string, limit time.Duration, work func(ctx context.Context) (R, error)) (r R, shared bool, err error) {
	fs.mu.Lock()
	if fs.closed {
		fs.mu.Unlock()
		return r, false, ErrClosed
	}
	f, shared := fs.m[key]
	if !shared {
		wctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
		f = &flight[R]{done: make(chan struct{}), cancel: cancel}
		fs.m[key], fs.all[f] = f, struct{}{}
		fs.wg.Go(func() { fs.run(wctx, key, f, work) })
	}
	f.waiters++
	fs.mu.Unlock()
	select {
	case <-f.done:
		return f.r, shared, f.err
	case <-ctx.Done():
		fs.abandon(key, f)
		return r, shared, ctx.Err()
	}
}

func (fs *flights[R]) run(ctx context.Context, key string, f *flight[R], work func(ctx context.Context) (R, error)) {
	f.err = errExited // stays where work leaves by runtime.Goexit
	defer func() {
		if p := recover(); p != nil {
			f.err = fmt.Errorf("cache: the loader panicked: %v\n%s", p, debug.Stack())
		}
		f.cancel()
		fs.mu.Lock()
		delete(fs.all, f)
		if fs.m[key] == f {
			delete(fs.m, key)
		}
		fs.mu.Unlock()
		close(f.done)
	}()
	f.r, f.err = work(ctx)
}

var errExited = errors.New("cache: the loader ended its goroutine")

// abandon is called by a waiter that leaves. The last one ends the work, which
// nobody joins any more.
func (fs *flights[R]) abandon(key string, f *flight[R]) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	f.waiters--
	if f.waiters > 0 {
		return
	}
	f.cancel()
	if fs.m[key] == f {
		delete(fs.m, key)
	}
}

// forget makes callers that come from now on start work of their own: the key
// was written, and they must see that.
func (fs *flights[R]) forget(key string) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	delete(fs.m, key)
}

func (fs *flights[R]) forgetIf(match func(key string) bool) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	for key := range fs.m {
		if match(key) {
			delete(fs.m, key)
		}
	}
}

// close ends all work, and lets none begin.
func (fs *flights[R]) close() {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.closed = true
	for f := range fs.all {
		f.cancel()
	}
}

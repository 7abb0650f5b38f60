package kv

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// load calls a store from several goroutines and takes down what failed.
type load struct {
	stop  chan struct{}
	wg    sync.WaitGroup
	calls atomic.Int64

	mu          sync.Mutex // guards what follows
	failed      int
	first, last time.Time
	longest     time.Duration
	sample      error
}

func startLoad(ms ...*testMember) *load {
	l := &load{stop: make(chan struct{})}
	for _, m := range ms {
		for range 4 {
			l.wg.Go(func() { l.run(m) })
		}
	}
	return l
}

func (l *load) run(m *testMember) {
	ctx := context.Background()
	for {
		select {
		case <-l.stop:
			return
		case <-time.After(time.Millisecond):
		}
		k := key(rand.IntN(2000))
		began := time.Now()
		var err error
		if rand.IntN(4) == 0 {
			err = m.Set(ctx, "load-"+k, []byte("x"), time.Minute)
		} else {
			_, _, err = m.Get(ctx, k)
		}
		took := time.Since(began)
		l.calls.Add(1)
		l.mu.Lock()
		l.longest = max(l.longest, took)
		if err != nil {
			if l.failed == 0 {
				l.first, l.sample = began, err
			}
			l.last = time.Now()
			l.failed++
		}
		l.mu.Unlock()
	}
}

func (l *load) end(t *testing.T) {
	close(l.stop)
	l.wg.Wait()
	t.Logf("%d calls, %d failed, over %v, the longest took %v (%v)",
		l.calls.Load(), l.failed, l.last.Sub(l.first), l.longest, l.sample)
}

func TestLeaveUnderLoad(t *testing.T) {
	n := newTestNet(t)
	a, b, c := n.start(nil), n.start(nil), n.start(nil)
	n.whole()
	n.fill(a, 2000)
	for _, m := range []*testMember{c, a} {
		rest := []*testMember{a, b}
		if m == a {
			rest = []*testMember{b}
		}
		l := startLoad(rest...)
		time.Sleep(200 * time.Millisecond)
		n.leave(m)
		time.Sleep(500 * time.Millisecond)
		l.end(t)
	}
}

func TestKillUnderLoad(t *testing.T) {
	n := newTestNet(t)
	oldest := n.startProcess()
	a, b := n.start(nil), n.start(nil)
	n.tellChildren()
	n.whole()
	n.fill(a, 2000)
	l := startLoad(a, b)
	time.Sleep(200 * time.Millisecond)
	n.killProcess(oldest)
	time.Sleep(1500 * time.Millisecond)
	n.startProcess() // back at once, before its death was seen
	time.Sleep(5 * time.Second)
	l.end(t)
	n.whole()
	if missing := n.missing(a, 2000); missing > 0 {
		t.Errorf("%d of 2000 are missing", missing)
	}
}

package kv

import (
	"context"
	"math/rand/v2"
	"os"
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
	t.Parallel()
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
		// None, on a machine that is not busy with something else.
		if int64(l.failed) > l.calls.Load()/100 {
			t.Errorf("member %d left: %d calls failed: %v", m.boot, l.failed, l.sample)
		}
	}
}

func TestKillUnderLoad(t *testing.T) {
	needSoak(t)
	t.Parallel()
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

// The wedge that the watchdog is for, where it is to be had: olric's coordinator
// dies under load and a new member comes, again and again. Set PEERLIMIT_SOAK.
func TestSoakCoordinatorKilled(t *testing.T) {
	if os.Getenv("PEERLIMIT_SOAK") != "full" {
		t.Skip("takes minutes: set PEERLIMIT_SOAK=full")
	}
	n := newTestNet(t)
	ms := []*testMember{n.startProcess(), n.startProcess(), n.startProcess()}
	n.tellChildren()
	a := n.start(nil)
	n.whole()
	n.fill(a, 2000)
	for round := range 20 {
		l := startLoad(a)
		time.Sleep(500 * time.Millisecond)
		n.killProcess(ms[0])
		began := time.Now()
		time.Sleep(time.Second + 200*time.Millisecond)
		ms = append(ms[1:], n.startProcess())
		n.whole()
		back := time.Since(began)
		if back > 30*time.Second {
			t.Errorf("round %d: back after %v", round, back)
		}
		time.Sleep(5 * time.Second)
		l.end(t)
		if l.longest > a.timings.call+100*time.Millisecond {
			t.Errorf("round %d: a call took %v", round, l.longest)
		}
		missing := n.missing(a, 2000)
		t.Logf("round %d: back after %v, %d of 2000 missing, %+v", round, back, missing, a.Stats())
		if missing > 0 {
			t.Errorf("round %d: %d of 2000 are missing", round, missing)
		}
	}
}

// needSoak skips a test that takes 10 s, where PEERLIMIT_SOAK is not set.
func needSoak(t testing.TB) {
	t.Helper()
	if os.Getenv("PEERLIMIT_SOAK") == "" {
		t.Skip("takes long: set PEERLIMIT_SOAK=short")
	}
}

package workers

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// owner starts goroutines, counts them and waits for them.
type owner struct {
	wg      sync.WaitGroup
	started atomic.Int64
	closed  atomic.Bool
}

func (o *owner) spawn(f func()) bool {
	if o.closed.Load() {
		return false
	}
	o.started.Add(1)
	o.wg.Go(f)
	return true
}

func TestGoroutinesAreUsedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var o owner
		done := make(chan struct{})
		p := New(o.spawn, done)
		for range 100 {
			ran := make(chan struct{})
			if !p.Do(func() { close(ran) }) {
				t.Fatal("not run")
			}
			<-ran
			synctest.Wait()
		}
		if n := o.started.Load(); n != 1 {
			t.Errorf("%d goroutines for one job at a time", n)
		}
		// Jobs never wait for each other.
		release := make(chan struct{})
		for range 10 {
			p.Do(func() { <-release })
		}
		synctest.Wait()
		if n := o.started.Load(); n != 10 {
			t.Errorf("%d goroutines for 10 jobs at once", n)
		}
		close(release)
		// Those that wait in vain end.
		time.Sleep(2 * idle)
		o.wg.Wait()
		p.Do(func() {})
		if n := o.started.Load(); n != 11 {
			t.Errorf("%d goroutines, the eleventh after all had ended", n)
		}
		close(done)
		o.wg.Wait()
	})
}

func TestClosedOwner(t *testing.T) {
	var o owner
	o.closed.Store(true)
	if New(o.spawn, nil).Do(func() { t.Error("run") }) {
		t.Error("said to be run")
	}
}

func BenchmarkDo(b *testing.B) {
	var o owner
	done := make(chan struct{})
	p := New(o.spawn, done)
	ran := make(chan int)
	job := func() { ran <- deep(60) }
	for name, do := range map[string]func(){
		"pool":         func() { p.Do(job) },
		"go statement": func() { go job() },
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				do()
				<-ran
				runtime.Gosched() // a caller does something between two jobs
			}
		})
	}
	close(done)
	o.wg.Wait()
}

// deep needs about 128 bytes of stack a level.
func deep(n int) int {
	var room [12]int
	if n == 0 {
		return 0
	}
	room[n%len(room)] = n
	return deep(n-1) + room[(n+1)%len(room)]
}

package ratelimit

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// However many take at once, and close in between, each permit is handed out
// once or comes back once.
func TestSliceIsHandedOutOnce(t *testing.T) {
	for range 200 {
		s := &slice{permits: 1000, low: 500, end: 10}
		s.left.Store(1000)
		var taken, lows, back atomic.Int64
		var wg sync.WaitGroup
		for i := range 4 {
			wg.Go(func() {
				for n := range 200 {
					cost := int64(1 + (n+i)%3)
					if left, low, ok := s.take(9, cost); ok {
						taken.Add(cost)
						if low {
							lows.Add(1)
						}
						if left < 0 {
							t.Errorf("%d left", left)
						}
					}
				}
				back.Add(s.close())
			})
		}
		wg.Wait()
		// One that finds too few can hide a few from who closes at that moment.
		if sum := taken.Load() + back.Load(); sum > 1000 || sum < 1000-4*3 || lows.Load() > 1 {
			t.Fatalf("%d taken, %d back, %d times low", taken.Load(), back.Load(), lows.Load())
		}
		if _, _, ok := s.take(9, 1); ok || s.close() != 0 {
			t.Fatal("taken of a closed slice")
		}
	}
	s := &slice{permits: 5, end: 10}
	s.left.Store(5)
	if _, _, ok := s.take(10, 1); ok {
		t.Error("taken at its end")
	}
	if _, _, ok := s.take(9, 6); ok || s.handedOut() != 0 {
		t.Error("taken more than it has")
	}
}

func TestDemand(t *testing.T) {
	s := new(sketch)
	now := int64(time.Hour)
	for i := range uint32(100) {
		if n := s.count(42, now); n != i+1 {
			t.Fatalf("the %dth was counted as %d", i+1, n)
		}
	}
	if n := s.count(42, now+hotWithin); n != 1 {
		t.Errorf("%d in the next tenth of a second", n)
	}
	// 4,000 keys once each: hardly one of them looks hot.
	hot := 0
	rnd := rand.New(rand.NewPCG(3, 3))
	for range 4000 {
		if s.count(rnd.Uint64(), now+2*hotWithin) >= hotAfter {
			hot++
		}
	}
	if hot > 0 {
		t.Errorf("%d cold keys look hot", hot)
	}
	for _, c := range []struct{ used, elapsed, last, want int64 }{
		{100, leaseFor, 1000, 125},
		{1000, leaseFor / 10, 2000, 12_500},
		{1000, leaseFor / 1000, 2000, 16_000}, // growth
		{1 << 50, 1, MaxLimit, MaxLimit},
		{0, leaseFor, 64, leaseLeast},
	} {
		if got := wanted(c.used, c.elapsed, c.last); got != c.want {
			t.Errorf("%+v: %d", c, got)
		}
	}
	if cool(coolBelow, leaseFor) || !cool(coolBelow-1, leaseFor) || cool(1000, 1) {
		t.Error("cool")
	}
}

func TestDenialsAreBounded(t *testing.T) {
	d := new(denials)
	now := int64(time.Second)
	put := func(hash uint64, key string, cost, until int64) {
		d.put(&denial{hash: hash, key: key, cost: cost, until: until}, now)
	}
	put(1, "a", 1, now+10)
	put(1, "a", 2, now+20)
	if d.find(1, []byte("a"), 1, now) == nil || d.find(1, []byte("a"), 2, now+19) == nil {
		t.Error("forgotten")
	}
	if d.find(1, []byte("a"), 1, now+10) != nil || d.find(1, []byte("b"), 1, now) != nil || d.find(1, []byte("a"), 3, now) != nil {
		t.Error("found what was not denied")
	}
	for i := range uint64(100) { // of one set
		put(1+i*denialSets, "x", 1, now+1000)
	}
	n := 0
	for i := range d.sets[1] {
		if d.sets[1][i].Load() != nil {
			n++
		}
	}
	if n != denialWays {
		t.Errorf("%d in a set", n)
	}
	put(2, "b", 1, now+1000)
	d.forget(2)
	if d.find(2, []byte("b"), 1, now) != nil {
		t.Error("not forgotten")
	}
	put(2, "b", 1, now+1000)
	d.forgetAll()
	if d.find(2, []byte("b"), 1, now) != nil {
		t.Error("not forgotten with all")
	}
}

func TestLoansAreBounded(t *testing.T) {
	ls := new(loans)
	rnd := rand.New(rand.NewPCG(4, 4))
	var all []*loan
	for range 4 * maxLoans {
		ln := &loan{hash: rnd.Uint64(), key: []byte("k")}
		if ls.add(ln) {
			all = append(all, ln)
			if ls.add(ln) || ls.find(ln.hash, ln.key) != ln {
				t.Fatal("added twice, or not found")
			}
		}
	}
	if len(all) != maxLoans || int(ls.n.Load()) != maxLoans || ls.room(rnd.Uint64()) {
		t.Errorf("%d loans", len(all))
	}
	for _, ln := range all {
		ls.remove(ln)
		ls.remove(ln)
	}
	if ls.n.Load() != 0 || !ls.room(1) {
		t.Errorf("%d are left", ls.n.Load())
	}
	ls.close()
	if ls.add(all[0]) {
		t.Error("added to what is closed")
	}
}

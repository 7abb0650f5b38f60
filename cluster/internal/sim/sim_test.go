package sim

import (
	"flag"
	"os"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"
)

var (
	seed  = flag.Uint64("sim.seed", 0, "run only this seed of each scenario, and print its trace")
	first = flag.Uint64("sim.first", 1, "first seed")
	every = flag.Duration("sim.every", 0, "time between two calls of one member, in place of 20 ms")
	runs  = flag.Uint64("sim.runs", 0, "runs in all; 0: 260, 10,000 with PEERLIMIT_SOAK=short, 1,000,000 with full")
)

func TestMain(m *testing.M) {
	debug.SetGCPercent(2000) // runs are small and many
	goleak.VerifyTestMain(m)
}

// options varies what is not the scenario by seed.
func options(seed uint64) Options {
	o := Options{Seed: seed, Members: 3 + int(seed%3), Limit: 20, OpEvery: 20 * ms}
	if seed%4 == 3 {
		o.Sync = true
	}
	if seed%5 == 4 {
		o.Limit = 300
	}
	if seed%7 == 6 {
		o.Dup = 0.05
	}
	if seed%11 == 10 {
		o.Loss = 0.01
	}
	if *every != 0 {
		o.OpEvery, o.Limit, o.Sync = int64(*every), 300, false
	}
	return o
}

func TestScenarios(t *testing.T) {
	n := *runs
	if n == 0 {
		switch os.Getenv("PEERLIMIT_SOAK") {
		case "short":
			n = 10_000
		case "full":
			n = 1_000_000
		default:
			n = 260
			if testing.Short() {
				n = 60 // for the race detector, which finds nothing in one goroutine
			}
		}
	}
	n = (n + uint64(len(Scenarios)) - 1) / uint64(len(Scenarios))
	for _, s := range Scenarios {
		t.Run(s.Name, func(t *testing.T) {
			if *seed != 0 {
				o := options(*seed)
				o.Trace = true
				w := Run(s, o)
				for _, line := range w.Trace() {
					t.Log(line)
				}
				for _, v := range w.Violations {
					t.Errorf("%v: %s", w, v)
				}
				return
			}
			t.Parallel()
			tally(t, s, *first, n)
		})
	}
}

// A seed gives the same run again, to the last random number drawn.
func TestASeedReplays(t *testing.T) {
	for _, s := range Scenarios {
		for seed := uint64(1); seed <= 3; seed++ {
			a, b := Run(s, options(seed)), Run(s, options(seed))
			if a.String() != b.String() || a.now != b.now || a.rng.Uint64() != b.rng.Uint64() || !slices.Equal(a.keys, b.keys) {
				t.Errorf("%q: %v, and then %v", s.Name, a, b)
			}
		}
	}
}

// tally runs n seeds of a scenario and reports what they came to.
func tally(t *testing.T, s Scenario, from, n uint64) {
	var bad, calls, unanswered, slowest, next atomic.Int64
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(n); i = next.Add(1) - 1 {
				w := Run(s, options(from+uint64(i)))
				calls.Add(int64(w.Calls))
				unanswered.Add(int64(w.Unavailable))
				for old := slowest.Load(); w.Slow > old && !slowest.CompareAndSwap(old, w.Slow); old = slowest.Load() {
				}
				if len(w.Violations) > 0 && bad.Add(1) <= 3 {
					t.Errorf("%v: %v", w, w.Violations)
				}
			}
		})
	}
	wg.Wait()
	t.Logf("%d of %d runs bad; %d calls, %d unanswered, slowest %d ms",
		bad.Load(), n, calls.Load(), unanswered.Load(), slowest.Load()/ms)
}

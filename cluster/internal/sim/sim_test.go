package sim

import (
	"flag"
	"fmt"
	"testing"
)

var seed = flag.Uint64("sim.seed", 0, "run this seed only, with a trace")

func options(seed uint64) Options {
	o := Options{Seed: seed, Members: 3 + int(seed%3), Limit: 20, OpEvery: 20 * ms}
	if seed%4 == 3 {
		o.Sync = true
	}
	if seed%5 == 4 {
		o.Limit = 300
	}
	return o
}

func TestScenarios(t *testing.T) {
	for _, s := range Scenarios {
		t.Run(s.Name, func(t *testing.T) {
			from, to := uint64(1), uint64(40)
			if *seed != 0 {
				from, to = *seed, *seed
			}
			bad := 0
			var calls, unanswered int
			var slow int64
			for seed := from; seed <= to; seed++ {
				o := options(seed)
				o.Trace = from == to
				w := Run(s, o)
				calls += w.Calls
				unanswered += w.Unavailable
				slow = max(slow, w.Slow)
				if len(w.Violations) > 0 {
					bad++
					if bad <= 1 {
						t.Errorf("%v: %v", w, w.Violations)
					}
				}
				for _, line := range w.Trace() {
					fmt.Println(line)
				}
			}
			t.Logf("%d bad of %d; %d calls, %d unanswered, slowest %d ms", bad, to-from+1, calls, unanswered, slow/ms)
		})
	}
}

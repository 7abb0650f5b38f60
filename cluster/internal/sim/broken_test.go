package sim

import (
	"os"
	"slices"
	"testing"

	"github.com/peerlimit/peerlimit/cluster/internal/possess"
)

// Each rule is there because days without it go wrong. Broken on purpose, it
// is caught.
func TestBrokenRulesAreCaught(t *testing.T) {
	if testing.Short() {
		t.Skip("takes long under the race detector, which finds nothing in one goroutine")
	}
	for _, c := range []struct {
		rule      string
		broken    possess.Broken
		scenarios []string
		change    func(*Options)
		from      uint64 // a seed from which on it is soon caught; with PEERLIMIT_SOAK all from 0 are tried
	}{
		{"no grant check", possess.Broken{NoGrantCheck: true}, []string{"stall"}, nil, 0},
		{"a slot is given away although the grant has run out", possess.Broken{GiveWithoutGrant: true}, []string{"short stall in the middle of a move"}, nil, 700},
		{"a backup takes over without asking", possess.Broken{StaleBackupTakes: true}, []string{"link between two cut"}, nil, 0},
		{"a slot starts empty beside a copy", possess.Broken{EmptyBesideCopy: true}, []string{"join and kill"}, nil, 370},
		{"a leaver does not wait", possess.Broken{LeaveAtOnce: true}, []string{"leave", "rolling restart"}, nil, 0},
		{"no bound on what is not acknowledged", possess.Broken{NoBound: true}, []string{"kill"}, func(o *Options) { o.OpEvery, o.Limit, o.Loss = 500_000, 1000, 0 }, 0},
	} {
		t.Run(c.rule, func(t *testing.T) {
			t.Parallel()
			const most = 1500
			from := c.from
			if os.Getenv("PEERLIMIT_SOAK") != "" {
				from = 0
			}
			for n := from; n < from+most; n++ {
				s := Scenarios[slices.IndexFunc(Scenarios, func(s Scenario) bool { return s.Name == c.scenarios[n%uint64(len(c.scenarios))] })]
				o := options(n + 1)
				o.Sync = false
				if c.change != nil {
					c.change(&o)
				}
				if w := Run(s, o); len(w.Violations) > 0 {
					t.Fatalf("wrong with the rule in place, %q, %v: %v", s.Name, w, w.Violations)
				}
				o.Broken = c.broken
				if w := Run(s, o); len(w.Violations) > 0 {
					t.Logf("caught by run %d, %q, %v: %s", n+1, s.Name, w, w.Violations[0])
					return
				}
			}
			t.Errorf("%d runs without the rule, and nothing went wrong", most)
		})
	}
}

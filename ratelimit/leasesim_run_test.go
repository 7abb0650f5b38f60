package ratelimit

import (
	"flag"
	"os"
	"testing"
	"time"
)

var (
	leaseRuns = flag.Uint64("lease.runs", 0, "runs of the simulator of leases, each class of faults; 0: 8, 100 with PEERLIMIT_SOAK=short, 1,000 with full")
	leaseSeed = flag.Uint64("lease.seed", 0, "run only this seed of the simulator of leases")
)

// leaseClasses are what may go wrong together in a run.
var leaseClasses = map[string]leaseFaults{
	"nothing":  {},
	"messages": {loss: true, again: true, slow: true, skew: true},
	"stalls":   {stalls: true, slow: true, skew: true},
	"kills":    {kills: true, slow: true, skew: true},
	"synced":   {kills: true, synced: true, slow: true, skew: true},
	"crashes":  {crashes: true, slow: true, skew: true},
	"resets":   {resets: true, slow: true, skew: true},
	"changes":  {changes: true, slow: true, skew: true},
	"all":      {loss: true, again: true, slow: true, kills: true, crashes: true, stalls: true, resets: true, changes: true, skew: true},
}

func leaseSeeds(f func(seed uint64) bool) {
	first, n := uint64(1), *leaseRuns
	if n == 0 {
		n = map[string]uint64{"": 4, "short": 100, "full": 1000}[os.Getenv("PEERLIMIT_SOAK")]
	}
	if testing.Short() {
		n = min(n, 15)
	}
	if *leaseSeed > 0 {
		first, n = *leaseSeed, *leaseSeed
	}
	for seed := first; seed <= n; seed++ {
		if !f(seed) {
			return
		}
	}
}

// Whatever happens, no more than the limit is used: of a window within it, of a
// bucket at any time.
func TestLeasesNeverLendTooMuch(t *testing.T) {
	for name, faults := range leaseClasses {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var leased, uses int64
			leaseSeeds(func(seed uint64) bool {
				w := runLeases(seed, Policy{}, faults, leaseBroken{})
				for _, e := range w.log {
					uses += e.cost
					if e.leased {
						leased += e.cost
					}
				}
				for _, v := range w.wrong {
					t.Errorf("-lease.seed=%d, %+v: %s", seed, w.policy, v)
				}
				return len(w.wrong) == 0
			})
			if leased*8 < uses {
				t.Errorf("only %d of %d permits were lent", leased, uses)
			}
			t.Logf("%d permits used, %d of them lent", uses, leased)
		})
	}
}

// When slices are home all that is left can be had, but for what was lost with a
// member or a message.
func TestLeasesComeHome(t *testing.T) {
	for name, faults := range leaseClasses {
		if faults.changes || faults.kills {
			continue // what a dead holder owed is its own test's
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			leaseSeeds(func(seed uint64) bool {
				for _, p := range []Policy{
					{Name: "p", Limit: 1000 + int64(seed%5)*700, Period: 10_000 * time.Hour, Algorithm: FixedWindow},
					{Name: "p", Limit: 1000 + int64(seed%5)*700, Period: 10_000 * time.Hour},
				} {
					w := runLeases(seed, p, faults, leaseBroken{})
					if until, _ := w.holder.state.extra.lentOrNil().last(); until > w.holder.clock(w)+leaseFor {
						t.Fatalf("seed %d: a slice is out for longer than it lasts", seed)
					}
					rest := w.drain()
					used := w.admitted()
					if used > p.Limit || used < p.Limit-w.lost {
						t.Errorf("-lease.seed=%d %s: %d used of %d, %d of them at the end, %d lost", seed, p.Algorithm, used, p.Limit, rest, w.lost)
						return false
					}
					if name == "nothing" && w.lost != 0 {
						t.Errorf("-lease.seed=%d: %d lost, and nothing had happened", seed, w.lost)
						return false
					}
				}
				return true
			})
		})
	}
}

// drain takes what is left, one by one.
func (w *leaseWorld) drain() (n int64) {
	w.faults = leaseFaults{}
	w.runUntil(w.now + 1200*simMs)
	for {
		taken := false
		o := op{kind: opTake, cost: 1, rule: ruleOf(w.policy, simEpoch+w.now)}
		w.execute(o, w.rnd.Uint64(), false, func(res result) {
			if taken = res.allowed(); taken {
				w.note(simEntry{at: w.now, cost: 1, limit: w.policy.Limit})
			}
		})
		w.runUntil(w.now + 10*simMs)
		if !taken {
			return n
		}
		n++
	}
}

// Each rule is there because without it too much is used.
func TestBrokenLeasesAreCaught(t *testing.T) {
	bucket := Policy{Name: "p", Limit: 8000, Burst: 900, Period: time.Second}
	fixed := Policy{Name: "p", Limit: 9000, Period: 700 * time.Millisecond, Algorithm: FixedWindow}
	long := Policy{Name: "p", Limit: 4000, Period: time.Hour, Algorithm: FixedWindow}
	for _, c := range []struct {
		rule   string
		policy Policy
		faults leaseFaults
		broken leaseBroken
	}{
		{"a slice does not end with its window", fixed, leaseFaults{}, leaseBroken{outlives: true}},
		{"its time counts from the answer", fixed, leaseFaults{stalls: true, slow: true}, leaseBroken{fromAnswer: true}},
		{"permits are used before they are lent", long, leaseFaults{}, leaseBroken{handOutFirst: true}},
		{"a grant does not wait for the backup", long, leaseFaults{kills: true, synced: true, slow: true}, leaseBroken{noWait: true}},
		{"a return counts twice", long, leaseFaults{again: true}, leaseBroken{returnTwice: true}},
		{"what is not returned comes back", long, leaseFaults{stalls: true, loss: true}, leaseBroken{lapseFree: true}},
		{"a reset does not recall", long, leaseFaults{resets: true, slow: true}, leaseBroken{noRecallOnReset: true}},
		{"a shorter window does not recall", fixed, leaseFaults{changes: true}, leaseBroken{noRecallOnRule: true}},
		{"a bucket's slice is charged before it is used", bucket, leaseFaults{stalls: true}, leaseBroken{chargeEarly: true}},
	} {
		t.Run(c.rule, func(t *testing.T) {
			t.Parallel()
			const most = 600
			for seed := uint64(1); seed <= most; seed++ {
				if w := runLeases(seed, c.policy, c.faults, leaseBroken{}); len(w.wrong) > 0 {
					t.Fatalf("seed %d: wrong with the rule in place: %s", seed, w.wrong[0])
				}
				if w := runLeases(seed, c.policy, c.faults, c.broken); len(w.wrong) > 0 {
					t.Logf("caught by seed %d: %s", seed, w.wrong[0])
					return
				}
			}
			t.Errorf("%d runs without the rule, and nothing went wrong", most)
		})
	}
}

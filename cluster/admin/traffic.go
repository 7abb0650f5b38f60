package admin

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/peerlimit/peerlimit/ratelimit"
)

const (
	rateOver       = 10   // seconds that a rate of decisions is the mean of
	marksKept      = 16   // more than rateOver
	samplesASecond = 1024 // keys that are looked at in a second, about
	keysShown      = 10   // in each list
)

// Traffic counts decisions and finds the keys that most of them are about. It is
// the Observer of one or more limiters of this process, and costs some 30 ns a
// decision, whatever the number of keys. Make it with [NewTraffic].
//
// Counts are exact. Keys are found by looking at about a thousand decisions a
// second: at every one while there are no more, at one in 2, 4, 8, … chosen by
// chance when there are. A list is right about keys that have a share of several
// in a hundred; see keyRates for what it may miss.
type Traffic struct {
	began time.Time

	decided, denied, degraded atomic.Uint64

	second atomic.Int64  // since began; of the last decision or reading
	shift  atomic.Uint32 // one decision in 2^shift is looked at

	mu     sync.Mutex // guards what follows
	marks  [marksKept]mark
	marked int // how many marks there have been
	taken  int // samples in this second
	hot    keyRates
	unhad  keyRates // denials
}

// totals are counts since the start.
type totals struct {
	Decisions uint64 `json:"decisions"`
	Denials   uint64 `json:"denials"`  // of these
	Degraded  uint64 `json:"degraded"` // of the decisions, those made while nobody who may decide answered
}

// mark is what the totals were when a second began.
type mark struct {
	second int64
	totals totals
}

// NewTraffic returns a Traffic that has seen nothing.
func NewTraffic() *Traffic {
	t := &Traffic{began: time.Now()}
	t.second.Store(-1)
	return t
}

// Decided implements [ratelimit.Observer].
func (t *Traffic) Decided(_ context.Context, o ratelimit.Observation) {
	// Both clock readings were taken already, and are monotonic.
	if s := t.at(o.Start.Add(o.Took)); s > t.second.Load() {
		t.turn(s)
	}
	t.decided.Add(1)
	denied := false
	switch o.Outcome {
	case ratelimit.OutcomeDenied:
		denied = true
	case ratelimit.OutcomeDegradedDenied:
		denied = true
		t.degraded.Add(1)
	case ratelimit.OutcomeDegradedAllowed:
		t.degraded.Add(1)
	}
	if denied {
		t.denied.Add(1)
	}
	shift := t.shift.Load()
	if rand.Uint64()&(1<<shift-1) == 0 {
		t.sample(o.Decision.Policy, o.Key, denied, shift)
	}
}

func (t *Traffic) at(now time.Time) int64 { return int64(now.Sub(t.began) / time.Second) }

func (t *Traffic) totals() totals {
	return totals{Decisions: t.decided.Load(), Denials: t.denied.Load(), Degraded: t.degraded.Load()}
}

// turn begins a second.
func (t *Traffic) turn(second int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.turnLocked(second)
}

func (t *Traffic) turnLocked(second int64) {
	before := t.second.Load()
	if second <= before {
		return // another goroutine has
	}
	now := t.totals()
	t.hot.fade(second - max(before, 0))
	t.unhad.fade(second - max(before, 0))
	last := now.Decisions
	if t.marked > 0 {
		last -= t.marks[(t.marked-1)%marksKept].totals.Decisions
	}
	t.marks[t.marked%marksKept] = mark{second, now}
	t.marked++
	shift := uint32(0)
	for last>>shift > samplesASecond {
		shift++
	}
	t.shift.Store(shift)
	t.taken = 0
	t.second.Store(second)
}

// sample notes a key for all decisions that it stands for.
func (t *Traffic) sample(policy, key string, denied bool, shift uint32) {
	var d xxhash.Digest
	d.Reset()
	_, _ = d.WriteString(policy)
	_, _ = d.WriteString("\x00")
	_, _ = d.WriteString(key)
	hash := d.Sum64()
	weight := float64(uint64(1) << shift)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.taken++; t.taken%samplesASecond == 0 {
		t.shift.Add(1) // this second has more than the one before
	}
	t.hot.add(hash, policy, key, weight)
	if denied {
		t.unhad.add(hash, policy, key, weight)
	}
}

// rates are means over the last ten seconds, or since the start where that is
// less ago.
type rates struct {
	Decisions float64 `json:"decisions_per_second"`
	Denials   float64 `json:"denials_per_second"`
	Degraded  float64 `json:"degraded_per_second"`
}

// report is what this process has seen.
type report struct {
	Totals totals    `json:"totals"`
	Rates  rates     `json:"rates"`
	Hot    []keyRate `json:"hot"`
	Denied []keyRate `json:"denied"`
}

// report returns counts, rates and keys as they are now.
func (t *Traffic) report() report {
	now := time.Now()
	second, age := t.at(now), now.Sub(t.began).Seconds()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.turnLocked(second)
	r := report{Totals: t.totals(), Hot: t.hot.top(keysShown, age), Denied: t.unhad.top(keysShown, age)}
	from := max(second-rateOver, 0)
	base := r.Totals
	for i := max(t.marked-marksKept, 0); i < t.marked; i++ {
		if m := &t.marks[i%marksKept]; m.second >= from {
			base = m.totals
			break
		}
	}
	over := max(age-float64(from), 1)
	r.Rates = rates{
		Decisions: float64(r.Totals.Decisions-base.Decisions) / over,
		Denials:   float64(r.Totals.Denials-base.Denials) / over,
		Degraded:  float64(r.Totals.Degraded-base.Degraded) / over,
	}
	return r
}

package metrics

import (
	"context"
	"maps"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/peerlimit/peerlimit/ratelimit"
)

// otherPolicies is the label of those that have none of their own.
const otherPolicies = "other"

// outcomes are what decisions are sorted into; their place here is that of
// their counter.
var outcomes = [...]ratelimit.Outcome{
	ratelimit.OutcomeAllowed, ratelimit.OutcomeDenied, ratelimit.OutcomeShadowDenied,
	ratelimit.OutcomeDegradedAllowed, ratelimit.OutcomeDegradedDenied,
}

// decisionBuckets are in seconds: keys that are held here, those a network away,
// and what waited for a take-over, up to the deadline of 250 ms and beyond.
var decisionBuckets = []float64{
	1e-6, 1e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.15, 0.25, 0.5,
}

// decisionCounts counts decisions by policy. Policies are found without a lock:
// the map is replaced, never changed, and that at most so many times as there
// are policies with a label.
type decisionCounts struct {
	took     prometheus.Histogram
	policies atomic.Pointer[map[string]*policyCounts]
	other    policyCounts

	mu  sync.Mutex // for replacing policies
	max int
}

type policyCounts struct {
	outcomes [len(outcomes)]atomic.Uint64
	near     atomic.Uint64
	used     atomic.Bool // of other: it is shown once there is one
}

func (c *decisionCounts) init(maxPolicies int) {
	c.max = maxPolicies
	c.policies.Store(&map[string]*policyCounts{})
	c.took = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: decisionSeconds.name, Help: decisionSeconds.help, Buckets: decisionBuckets,
	})
}

// Decided counts a decision. It is what makes c an Observer of limiters.
func (c *Collector) Decided(_ context.Context, o ratelimit.Observation) {
	c.decisions.took.Observe(o.Took.Seconds())
	p := c.decisions.policy(o.Decision.Policy)
	for i, outcome := range outcomes {
		if outcome == o.Outcome {
			p.outcomes[i].Add(1)
		}
	}
	if o.NearLimit {
		p.near.Add(1)
	}
}

// policy returns the counters of that policy, or those of all others.
func (c *decisionCounts) policy(name string) *policyCounts {
	known := *c.policies.Load()
	if p := known[name]; p != nil {
		return p
	}
	if name != otherPolicies && len(known) < c.max {
		if p := c.add(name); p != nil {
			return p
		}
	}
	if !c.other.used.Load() {
		c.other.used.Store(true)
	}
	return &c.other
}

// add makes room for a policy; nil where there is none.
func (c *decisionCounts) add(name string) *policyCounts {
	c.mu.Lock()
	defer c.mu.Unlock()
	known := *c.policies.Load()
	if p := known[name]; p != nil || len(known) >= c.max {
		return p
	}
	more := make(map[string]*policyCounts, len(known)+1)
	maps.Copy(more, known)
	p := new(policyCounts)
	more[name] = p
	c.policies.Store(&more)
	return p
}

func (c *decisionCounts) collect(to chan<- prometheus.Metric) {
	c.took.Collect(to)
	for name, p := range *c.policies.Load() {
		p.collect(to, name)
	}
	if c.other.used.Load() {
		c.other.collect(to, otherPolicies)
	}
}

// collect shows every outcome, also those that there was none of yet: a counter
// that appears with its first event hides that event from rate().
func (p *policyCounts) collect(to chan<- prometheus.Metric, name string) {
	for i, outcome := range outcomes {
		to <- decisions.with(float64(p.outcomes[i].Load()), name, string(outcome))
	}
	to <- nearLimit.with(float64(p.near.Load()), name)
}

func collectLimiters(to chan<- prometheus.Metric, limiters []Limiter) {
	if len(limiters) == 0 {
		return
	}
	held, evicted := 0, uint64(0)
	for _, l := range limiters {
		s := l.Stats()
		held += s.Keys
		evicted += s.EvictedLive
	}
	to <- keys.with(float64(held))
	to <- evictedLive.with(float64(evicted))
}

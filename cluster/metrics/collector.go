package metrics

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/peerlimit/peerlimit/auth"
	"github.com/peerlimit/peerlimit/cache"
	"github.com/peerlimit/peerlimit/cluster"
	"github.com/peerlimit/peerlimit/ratelimit"
)

// DefaultMaxPolicies is how many policies have a label of their own.
const DefaultMaxPolicies = 100

// Config of a [Collector].
type Config struct {
	// Cluster is the member to show. nil: none, and neither its cluster nor
	// breakers.
	Cluster Node
	// MaxPolicies is how many policies have a label of their own, those that
	// decide first; the others are counted together as "other". 0:
	// DefaultMaxPolicies; negative: none has.
	MaxPolicies int
}

// Node is a member of a cluster. *[cluster.Node] is one.
type Node interface{ Stats() cluster.Stats }

// Limiter is what there is to see of one. *[ratelimit.Limiter] is one.
type Limiter interface{ Stats() ratelimit.Stats }

// Cache is what there is to see of one. *[cache.Cache] is one.
type Cache interface{ Stats() cache.Stats }

// Authenticator is what there is to see of one. *[auth.Authenticator] is one.
type Authenticator interface{ Stats() auth.Stats }

// Collector is a prometheus.Collector. Its methods may be called concurrently.
// It runs nothing by itself and needs no end.
type Collector struct {
	node      Node
	decisions decisionCounts
	cacheTook *prometheus.HistogramVec
	cacheOps  map[string]prometheus.Observer

	mu       sync.Mutex // guards what follows
	limiters []Limiter
	caches   []Cache
	auths    []Authenticator
}

var (
	_ prometheus.Collector = (*Collector)(nil)
	_ ratelimit.Observer   = (*Collector)(nil)
)

// New returns a Collector. Register it once.
func New(cfg Config) *Collector {
	if cfg.MaxPolicies == 0 {
		cfg.MaxPolicies = DefaultMaxPolicies
	}
	c := &Collector{node: cfg.Cluster}
	if n, ok := cfg.Cluster.(*cluster.Node); ok && n == nil {
		c.node = nil // this process alone
	}
	c.decisions.init(cfg.MaxPolicies)
	c.initCacheTimes()
	return c
}

// WatchLimiter has c show a limiter's keys. Its decisions are shown where c is
// its Observer. What is watched is looked at for as long as there is c, so watch
// what lives as long; the figures of several of a kind are added up.
func (c *Collector) WatchLimiter(l Limiter) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.limiters = append(c.limiters, l)
}

// WatchCache has c show how a cache answers. Its times are shown where
// ObserveCache is its Observe.
func (c *Collector) WatchCache(ca Cache) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.caches = append(c.caches, ca)
}

// WatchAuth has c show the verdicts on API keys.
func (c *Collector) WatchAuth(a Authenticator) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.auths = append(c.auths, a)
}

// Describe implements prometheus.Collector: it tells of every name in [Names],
// whether there is something to show of it or not.
func (c *Collector) Describe(to chan<- *prometheus.Desc) {
	for i := range catalogue {
		if d := catalogue[i].desc; d != nil {
			to <- d
		}
	}
	c.decisions.took.Describe(to)
	c.cacheTook.Describe(to)
}

// Collect implements prometheus.Collector. It walks over the keys of limiters,
// and over entries that have no copy: with millions of them that takes a
// noticeable part of a second, in which nobody waits for it.
func (c *Collector) Collect(to chan<- prometheus.Metric) {
	c.mu.Lock()
	limiters, caches, auths := c.limiters, c.caches, c.auths
	c.mu.Unlock()
	c.decisions.collect(to)
	collectLimiters(to, limiters)
	if len(caches) > 0 {
		c.cacheTook.Collect(to)
		collectCaches(to, caches)
	}
	if len(auths) > 0 {
		collectAuth(to, auths)
	}
	if c.node != nil {
		collectNode(to, c.node.Stats())
	}
}

package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/peerlimit/peerlimit/cache"
)

// cacheOps are the operations that have a label of their own: those that
// [cache.Config] says Observe is told of.
var cacheOps = []string{"get", "set", "delete", "load", "get_many", "delete_prefix", "len", "ttl"}

// otherOps is the label of those that have none, of a later version of cache.
const otherOps = "other"

// cacheBuckets are in seconds: the shared store takes some tenths of a
// millisecond, a call gives it up after 250 ms unless told otherwise, a load may
// take 10 s.
var cacheBuckets = []float64{1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5, 1, 2.5, 10}

func (c *Collector) initCacheTimes() {
	c.cacheTook = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: cacheSeconds.name, Help: cacheSeconds.help, Buckets: cacheBuckets,
	}, []string{"op"})
	c.cacheOps = make(map[string]prometheus.Observer, len(cacheOps))
	for _, op := range cacheOps {
		c.cacheOps[op] = c.cacheTook.WithLabelValues(op)
	}
}

// ObserveCache notes how long a cache's call took: it is for the Observe of a
// [cache.Config].
func (c *Collector) ObserveCache(op string, took time.Duration) {
	h, known := c.cacheOps[op]
	if !known {
		h = c.cacheTook.WithLabelValues(otherOps)
	}
	h.Observe(took.Seconds())
}

func collectCaches(to chan<- prometheus.Metric, caches []Cache) {
	var all cache.Stats
	for _, c := range caches {
		s := c.Stats()
		all.NearHits += s.NearHits
		all.Hits += s.Hits
		all.Misses += s.Misses
		all.Errors += s.Errors
		all.Open += s.Open
		all.Coalesced += s.Coalesced
	}
	for _, r := range []struct {
		result string
		n      uint64
	}{{"near_hit", all.NearHits}, {"hit", all.Hits}, {"miss", all.Misses}, {"error", all.Errors}, {"open", all.Open}} {
		to <- cacheRequests.with(float64(r.n), r.result)
	}
	to <- cacheCoalesced.with(float64(all.Coalesced))
}

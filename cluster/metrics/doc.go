// Package metrics shows a member and what is built on it to Prometheus.
//
// A [Collector] is made once a process and given to all that feeds it: it is the
// Observer of limiters, its ObserveCache is the Observe of caches, and it looks
// at whatever it is told to watch when it is scraped.
//
//	m := metrics.New(metrics.Config{Cluster: node})
//	limits, err := ratelimit.New(ratelimit.Config{Cluster: node, Observer: m})
//	…
//	m.WatchLimiter(limits)
//	prometheus.MustRegister(m)
//
// What is promised: names and labels stay ([Names] lists them); counters never
// go back while the process runs, but for those of a peer, which go with it; no
// label has a key, a secret or anything else that callers can make up without
// bound: policies beyond Config.MaxPolicies are one, "other". A decision costs
// some atomic additions and no allocation more than without.
//
// What is not: the figures are this member's. Those of a cluster are sums over
// its members, but for what each of them says of all (members, ring version).
// They are read one after the other, so two that change together may differ by
// what happened in between.
package metrics

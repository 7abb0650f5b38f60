package main

import "github.com/prometheus/client_golang/prometheus"

// Why the HTTP API refuses somebody, as peerlimit_http_refused_total counts it.
const (
	refusedCrowd      = "crowded"    // a connection that had to make room
	refusedUnreadable = "unreadable" // a connection that ended before a whole header was read
	refusedHost       = "host"       // a name that is not this member's
	refusedOrigin     = "origin"     // a browser, for a page from elsewhere
	refusedToken      = "token"      // no token, or a wrong one
)

// newRefusals returns the counter of what the HTTP API refused. Every reason is
// there from the start, so that a first one is a rise.
func newRefusals() *prometheus.CounterVec {
	refusals := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "peerlimit_http_refused_total",
		Help: "Requests and connections that the HTTP API refused, by reason: token (none, or a wrong one), host (no token is configured and the Host is not this machine's: DNS rebinding), origin (a browser, for a page from elsewhere), unreadable (a connection that ended before a whole header was read: malformed, too large, too slow), crowded (a connection that was closed to make room for another).",
	}, []string{"reason"})
	for _, reason := range []string{refusedCrowd, refusedUnreadable, refusedHost, refusedOrigin, refusedToken} {
		refusals.WithLabelValues(reason)
	}
	return refusals
}

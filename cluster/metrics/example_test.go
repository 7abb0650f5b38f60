package metrics_test

import (
	"context"
	"fmt"
	"net/http/httptest"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/peerlimit/peerlimit/cluster/metrics"
	"github.com/peerlimit/peerlimit/ratelimit"
)

func Example() {
	// With a cluster: metrics.Config{Cluster: node}.
	m := metrics.New(metrics.Config{})
	limits, err := ratelimit.New(ratelimit.Config{Observer: m})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer limits.Close()
	m.WatchLimiter(limits)
	registry := prometheus.NewRegistry()
	registry.MustRegister(m)

	for range 3 {
		if _, err := limits.Allow(context.Background(), ratelimit.PerMinute("ip", 2), "203.0.113.7"); err != nil {
			fmt.Println(err)
		}
	}
	page := httptest.NewRecorder()
	promhttp.HandlerFor(registry, promhttp.HandlerOpts{}).ServeHTTP(page, httptest.NewRequest("GET", "/metrics", nil))
	for line := range strings.Lines(page.Body.String()) {
		if strings.HasPrefix(line, `peerlimit_ratelimit_keys`) || strings.Contains(line, `policy="ip"`) {
			fmt.Print(line)
		}
	}
	// Output:
	// peerlimit_ratelimit_decisions_total{outcome="allowed",policy="ip"} 2
	// peerlimit_ratelimit_decisions_total{outcome="degraded_allowed",policy="ip"} 0
	// peerlimit_ratelimit_decisions_total{outcome="degraded_denied",policy="ip"} 0
	// peerlimit_ratelimit_decisions_total{outcome="denied",policy="ip"} 1
	// peerlimit_ratelimit_decisions_total{outcome="shadow_denied",policy="ip"} 0
	// peerlimit_ratelimit_keys 1
	// peerlimit_ratelimit_near_limit_total{policy="ip"} 1
}

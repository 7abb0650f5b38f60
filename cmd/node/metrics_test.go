package main

import (
	"context"
	"log/slog"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit/cluster/metrics"
	"github.com/peerlimit/peerlimit/ratelimit"
)

func TestMetricsAreForThoseWithAToken(t *testing.T) {
	m := metrics.New(metrics.Config{})
	h := newHandler(&tokens{users: hashTokens([]string{"a-user"}), admins: hashTokens([]string{"an-admin"})}, nil)
	h.open(newMetricsAPI(m, slog.New(slog.DiscardHandler)).routes())
	limits, err := ratelimit.New(ratelimit.Config{Observer: m})
	require.NoError(t, err)
	defer limits.Close()
	_, err = limits.Allow(context.Background(), ratelimit.PerMinute("ip", 9), "203.0.113.7")
	require.NoError(t, err)

	assert.Equal(t, 401, ask(h, "GET", "/metrics", "").status)
	assert.Equal(t, 403, ask(h, "GET", "/metrics", "", "Authorization", "Bearer nobody").status)
	assert.Equal(t, 405, ask(h, "POST", "/metrics", "", "Authorization", "Bearer a-user").status)
	for _, token := range []string{"a-user", "an-admin"} {
		a := ask(h, "GET", "/metrics", "", "Authorization", "Bearer "+token)
		assert.Equal(t, 200, a.status)
		assert.Contains(t, a.header.Get("Content-Type"), "text/plain")
		assert.Contains(t, a.body, `peerlimit_ratelimit_decisions_total{outcome="allowed",policy="ip"} 1`)
		assert.Contains(t, a.body, "# HELP peerlimit_ratelimit_decision_seconds How long")
		for _, name := range []string{"\ngo_goroutines ", "\nprocess_resident_memory_bytes ", "\ngo_build_info{"} {
			assert.Contains(t, a.body, name)
		}
		assert.NotContains(t, a.body, "203.0.113.7", "a key")
	}
	open := ask(h, "GET", "/metrics", "", "Authorization", "Bearer a-user", "Accept", "application/openmetrics-text; version=1.0.0")
	assert.Contains(t, open.header.Get("Content-Type"), "application/openmetrics-text")
	assert.Contains(t, open.body, "# EOF")
}

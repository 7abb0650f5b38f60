package metrics_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit/auth"
	"github.com/peerlimit/peerlimit/cache"
	"github.com/peerlimit/peerlimit/cluster"
	"github.com/peerlimit/peerlimit/cluster/clustertest"
	"github.com/peerlimit/peerlimit/cluster/metrics"
	"github.com/peerlimit/peerlimit/ratelimit"
)

// patience is how long decisions and cache calls may take on a slow machine.
const patience = 10 * time.Second

// service is a member with all that can be built on it, as an embedder has it.
type service struct {
	*metrics.Collector
	node   *cluster.Node
	limits *ratelimit.Limiter
	values *cache.Cache[string]
	keys   *auth.Authenticator
}

func serveOn(t *testing.T, node *cluster.Node, store auth.Store) *service {
	t.Helper()
	s := &service{Collector: metrics.New(metrics.Config{Cluster: node}), node: node}
	var err error
	s.limits, err = ratelimit.New(ratelimit.Config{Cluster: node, Observer: s})
	require.NoError(t, err)
	s.values, err = cache.New[string](cache.Config{Cluster: node, Observe: s.ObserveCache, Timeout: patience})
	require.NoError(t, err)
	s.keys, err = auth.New(auth.Config{Cluster: node, Store: store})
	require.NoError(t, err)
	s.WatchLimiter(s.limits)
	s.WatchCache(s.values)
	s.WatchAuth(s.keys)
	t.Cleanup(func() {
		assert.NoError(t, s.keys.Close())
		assert.NoError(t, s.values.Close())
		assert.NoError(t, s.limits.Close())
	})
	return s
}

func TestFiguresOfThreeMembersAreWhatWasDone(t *testing.T) {
	const secret = "sk-a-foreign-key-0123456789"
	ctx := context.Background()
	// What is counted is tested, not how fast it goes.
	c := clustertest.Start(t, 3, func(_ int, cfg *cluster.Config) { cfg.Timings.Call = patience })
	store := auth.NewMemory()
	var services []*service
	for _, n := range c.Nodes {
		services = append(services, serveOn(t, n, store))
	}
	c.AwaitAll()

	// 300 decisions for 100 keys by way of each member, two of three allowed.
	// They wait for the copy, so that a death right after loses none of them.
	policy := ratelimit.PerHour("calls", 2)
	policy.Synchronous = true
	shadow := ratelimit.PerHour("shadow", 1)
	shadow.Synchronous, shadow.Shadow = true, true
	allowed := map[*service]int{}
	for round := range 3 {
		for k := range 100 {
			s := services[(round+k)%3]
			d, err := s.limits.Allow(ctx, policy, fmt.Sprintf("user-%d", k))
			require.NoError(t, err)
			require.False(t, d.Degraded, d.Reason)
			if d.Allowed {
				allowed[s]++
			}
		}
	}
	for range 5 {
		d, err := services[1].limits.Allow(ctx, shadow, "one")
		require.NoError(t, err)
		require.True(t, d.Allowed)
	}
	// Cache: a miss, a write, a hit near, and one by way of another member.
	require.Eventually(t, services[0].values.Healthy, 20*time.Second, 10*time.Millisecond)
	_, ok, err := services[0].values.Get(ctx, "greeting")
	require.NoError(t, err)
	require.False(t, ok)
	require.NoError(t, services[0].values.Set(ctx, "greeting", "hello", time.Minute))
	for range 4 {
		v, ok, err := services[0].values.Get(ctx, "greeting")
		require.NoError(t, err)
		require.True(t, ok)
		require.Equal(t, "hello", v)
	}
	// Auth: a good key twice, one that is malformed, one that nobody knows.
	issued, err := services[2].keys.Create(ctx, auth.Spec{Project: "shop"})
	require.NoError(t, err)
	for _, presented := range []string{issued.Secret.Reveal(), issued.Secret.Reveal(), "", secret} {
		_, err := services[2].keys.Verify(ctx, presented)
		require.NoError(t, err)
	}

	var total []figures
	for i, s := range services {
		f := gather(t, s)
		total = append(total, f)
		assert.EqualValues(t, 3, f["peerlimit_cluster_members"])
		assert.EqualValues(t, allowed[s], f[`peerlimit_ratelimit_decisions_total{outcome="allowed",policy="calls"}`], "member %d", i)
		assert.EqualValues(t, 100, f.sum("decisions_total", `policy="calls"`), "member %d", i)
		assert.Equal(t, total[0]["peerlimit_cluster_ring_version"], f["peerlimit_cluster_ring_version"])
		for other := range services {
			name := fmt.Sprintf(`peerlimit_breaker_state{name="node-%d"}`, other)
			state, there := f[name]
			assert.Equal(t, other != i, there, "%s of member %d", name, i)
			assert.Zero(t, state)
		}
		assert.Zero(t, f[`peerlimit_breaker_state{name="kv"}`])
		assert.Zero(t, f.sum("frames_rejected_total"))
		assert.Less(t, f["peerlimit_cluster_replication_lag_seconds"], 1.0)
		for name := range f {
			for _, never := range []string{"user-", "greeting", secret, issued.Secret.Reveal(), issued.Key.ID, "shop"} {
				assert.NotContains(t, name, never)
			}
		}
	}
	everywhere := func(words ...string) (sum float64) {
		for _, f := range total {
			sum += f.sum(words...)
		}
		return sum
	}
	assert.EqualValues(t, 200, everywhere("decisions_total", `"calls"`, `"allowed"`))
	assert.EqualValues(t, 100, everywhere("decisions_total", `"calls"`, `"denied"`))
	assert.EqualValues(t, 1, everywhere("decisions_total", `"shadow"`, `"allowed"`))
	assert.EqualValues(t, 4, everywhere("decisions_total", `"shadow"`, `"shadow_denied"`))
	assert.EqualValues(t, 101, everywhere("near_limit_total"), "the second of each key, and the first under shadow")
	assert.EqualValues(t, 305, everywhere("decision_seconds_count"))
	assert.EqualValues(t, 101, everywhere("ratelimit_keys"))
	assert.Zero(t, everywhere("evicted_live"))
	assert.EqualValues(t, 16384, everywhere("possessed_slots"))
	f := total[0]
	assert.EqualValues(t, 1, f[`peerlimit_cache_requests_total{result="miss"}`])
	assert.EqualValues(t, 4, f.sum("cache_requests_total", "hit"), "near or shared")
	assert.EqualValues(t, 1, f[`peerlimit_cache_operation_seconds_count{op="set"}`])
	f = total[2]
	assert.EqualValues(t, 2, f.sum("auth_verdicts_total", `"VALID"`))
	assert.EqualValues(t, 1, f[`peerlimit_auth_verdicts_total{source="key",verdict="MALFORMED"}`])
	assert.EqualValues(t, 1, f[`peerlimit_auth_verdicts_total{source="store",verdict="NOT_FOUND"}`])
	assert.EqualValues(t, 4, f.sum("auth_verdicts_total"))

	// One dies that has nothing which only it knows of: what it held is taken
	// over, and copied anew.
	require.Eventually(t, func() bool {
		for _, s := range services {
			f := gather(t, s)
			if f["peerlimit_cluster_unprotected_entries"] != 0 || f["peerlimit_cluster_replication_lag_seconds"] != 0 {
				return false
			}
		}
		return true
	}, 20*time.Second, 20*time.Millisecond)
	held := total[2]["peerlimit_cluster_possessed_slots"]
	c.Kill(services[2].node)
	c.AwaitAll()
	var a, b figures
	both := func(name string) float64 { return a[name] + b[name] }
	require.EventuallyWithT(t, func(t *assert.CollectT) {
		a, b = gather(t, services[0]), gather(t, services[1])
		assert.EqualValues(t, 16384, both("peerlimit_cluster_possessed_slots"))
		assert.Zero(t, both("peerlimit_cluster_unprotected_entries"), "all has a copy again")
		assert.EqualValues(t, 101, both("peerlimit_ratelimit_keys"), "nothing was lost")
	}, 20*time.Second, 20*time.Millisecond)
	assert.GreaterOrEqual(t, both("peerlimit_cluster_takeovers_total"), held)
	assert.EqualValues(t, 2, a["peerlimit_cluster_members"])
	for name := range a {
		assert.NotContains(t, name, `"node-2"`, "it is no member any more")
	}
}

package metrics_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit/auth"
	"github.com/peerlimit/peerlimit/cache"
	"github.com/peerlimit/peerlimit/cluster"
	"github.com/peerlimit/peerlimit/cluster/metrics"
	"github.com/peerlimit/peerlimit/ratelimit"
)

// still is something to watch whose figures stand.
type still[S any] struct{ stats S }

func (s still[S]) Stats() S { return s.stats }

// full is a Collector that has something of everything to show.
func full() *metrics.Collector {
	m := metrics.New(metrics.Config{Cluster: still[cluster.Stats]{cluster.Stats{
		Members: 3, RingVersion: 0xfedc_ba98_7654_3210,
		Possession:         cluster.Possession{Slots: 5461, Unprotected: 7, TakeOvers: 8, Moves: 9},
		UnprotectedEntries: 70, ReplicationLag: 12 * time.Millisecond,
		Breakers: map[string]cluster.BreakerStats{
			"kv":     {State: "half-open", Opened: 4, HalfOpened: 3, Closed: 2, OpenFor: 1500 * time.Millisecond},
			"node-1": {State: "open", Opened: 1},
			"node-2": {State: "closed"},
		},
		FramesRejected: map[string]uint64{"secret": 5, "length": 0},
	}}})
	m.WatchLimiter(still[ratelimit.Stats]{ratelimit.Stats{Keys: 11, Copies: 99, EvictedLive: 1}})
	m.WatchLimiter(still[ratelimit.Stats]{ratelimit.Stats{Keys: 22, EvictedLive: 2}})
	m.WatchCache(still[cache.Stats]{cache.Stats{NearHits: 1, Hits: 2, Misses: 3, Errors: 4, Open: 5, Coalesced: 6}})
	m.WatchCache(still[cache.Stats]{cache.Stats{NearHits: 10, Hits: 20, Misses: 30, Errors: 40, Open: 50, Coalesced: 60}})
	m.WatchAuth(still[auth.Stats]{auth.Stats{StaleServed: 7, Verdicts: map[auth.Verdict]map[auth.Source]uint64{
		auth.Valid: {auth.FromNear: 1, auth.FromShared: 2}, auth.Malformed: {auth.FromKey: 3},
	}}})
	m.Decided(context.Background(), observation("p", ratelimit.OutcomeDenied, false))
	m.ObserveCache("get", time.Second)
	return m
}

func observation(policy string, o ratelimit.Outcome, near bool) ratelimit.Observation {
	return ratelimit.Observation{
		Decision: ratelimit.Decision{Policy: policy}, Outcome: o, NearLimit: near, Took: time.Millisecond,
	}
}

func TestEveryNameIsExportedAndNoOther(t *testing.T) {
	r := prometheus.NewPedanticRegistry()
	require.NoError(t, r.Register(full()))
	families, err := r.Gather()
	require.NoError(t, err)
	var exported []string
	for _, f := range families {
		exported = append(exported, f.GetName())
		assert.True(t, strings.HasPrefix(f.GetName(), "peerlimit_"), f.GetName())
		assert.Greater(t, len(f.GetHelp()), 40, "%s: help that helps", f.GetName())
		assert.True(t, strings.HasSuffix(f.GetHelp(), "."), "%s: whole sentences", f.GetName())
	}
	assert.ElementsMatch(t, metrics.Names(), exported)

	problems, err := testutil.GatherAndLint(r)
	require.NoError(t, err)
	assert.Empty(t, problems)
}

func TestFiguresOfWhatIsWatched(t *testing.T) {
	got := gather(t, full())
	want := figures{
		"peerlimit_ratelimit_keys":                                          33,
		"peerlimit_ratelimit_evicted_live_total":                            3,
		`peerlimit_cache_requests_total{result="near_hit"}`:                 11,
		`peerlimit_cache_requests_total{result="hit"}`:                      22,
		`peerlimit_cache_requests_total{result="miss"}`:                     33,
		`peerlimit_cache_requests_total{result="error"}`:                    44,
		`peerlimit_cache_requests_total{result="open"}`:                     55,
		`peerlimit_cache_coalesced_total`:                                   66,
		`peerlimit_cache_operation_seconds_count{op="get"}`:                 1,
		`peerlimit_cache_operation_seconds_sum{op="get"}`:                   1,
		`peerlimit_breaker_state{name="kv"}`:                                1,
		`peerlimit_breaker_state{name="node-1"}`:                            2,
		`peerlimit_breaker_state{name="node-2"}`:                            0,
		`peerlimit_breaker_transitions_total{name="kv",to="open"}`:          4,
		`peerlimit_breaker_transitions_total{name="kv",to="half-open"}`:     3,
		`peerlimit_breaker_transitions_total{name="kv",to="closed"}`:        2,
		`peerlimit_breaker_transitions_total{name="node-2",to="open"}`:      0,
		`peerlimit_breaker_open_seconds_total{name="kv"}`:                   1.5,
		`peerlimit_auth_verdicts_total{source="near",verdict="VALID"}`:      1,
		`peerlimit_auth_verdicts_total{source="shared",verdict="VALID"}`:    2,
		`peerlimit_auth_verdicts_total{source="key",verdict="MALFORMED"}`:   3,
		`peerlimit_auth_verdicts_total{source="store",verdict="NOT_FOUND"}`: 0,
		"peerlimit_auth_stale_served_total":                                 7,
		"peerlimit_cluster_members":                                         3,
		"peerlimit_cluster_ring_version":                                    0xfedc_ba98_7654,
		"peerlimit_cluster_possessed_slots":                                 5461,
		"peerlimit_cluster_unprotected_entries":                             70,
		"peerlimit_cluster_replication_lag_seconds":                         0.012,
		"peerlimit_cluster_moves_total":                                     9,
		"peerlimit_cluster_takeovers_total":                                 8,
		`peerlimit_cluster_frames_rejected_total{reason="secret"}`:          5,
		`peerlimit_ratelimit_decisions_total{outcome="denied",policy="p"}`:  1,
		`peerlimit_ratelimit_decisions_total{outcome="allowed",policy="p"}`: 0,
		`peerlimit_ratelimit_decision_seconds_sum`:                          0.001,
		`peerlimit_ratelimit_near_limit_total{policy="p"}`:                  0,
	}
	for name, want := range want {
		v, ok := got[name]
		assert.True(t, ok, "%s is not there", name)
		assert.InDelta(t, want, v, 1e-9, name)
	}
}

func TestNothingIsShownOfWhatIsNotThere(t *testing.T) {
	var none *cluster.Node
	for k := range gather(t, metrics.New(metrics.Config{Cluster: none})) {
		assert.True(t, strings.HasPrefix(k, "peerlimit_ratelimit_decision_seconds"), k)
	}
}

func TestPoliciesAreBounded(t *testing.T) {
	m := metrics.New(metrics.Config{MaxPolicies: 2})
	for i := range 1000 {
		m.Decided(context.Background(), observation(fmt.Sprintf("made-up-%d", i), ratelimit.OutcomeAllowed, true))
	}
	m.Decided(context.Background(), observation("made-up-1", ratelimit.OutcomeAllowed, false))
	m.Decided(context.Background(), observation("other", ratelimit.OutcomeAllowed, false))
	got := gather(t, m)
	assert.Len(t, got.of("peerlimit_ratelimit_decisions_total"), 3*5)
	allowed := func(policy string) float64 {
		return got[`peerlimit_ratelimit_decisions_total{outcome="allowed",policy="`+policy+`"}`]
	}
	assert.EqualValues(t, 1, allowed("made-up-0"))
	assert.EqualValues(t, 2, allowed("made-up-1"))
	assert.EqualValues(t, 999, allowed("other"))
	assert.EqualValues(t, 998, got[`peerlimit_ratelimit_near_limit_total{policy="other"}`])

	none := metrics.New(metrics.Config{MaxPolicies: -1})
	none.Decided(context.Background(), observation("p", ratelimit.OutcomeAllowed, false))
	assert.EqualValues(t, 1, gather(t, none)[`peerlimit_ratelimit_decisions_total{outcome="allowed",policy="other"}`])
}

func TestOperationsAreBounded(t *testing.T) {
	m := full()
	for i := range 100 {
		m.ObserveCache(fmt.Sprintf("op-%d", i), time.Millisecond)
	}
	got := gather(t, m)
	assert.Len(t, got.of("peerlimit_cache_operation_seconds_count"), 9)
	assert.EqualValues(t, 100, got[`peerlimit_cache_operation_seconds_count{op="other"}`])
}

func TestNoDecisionIsLost(t *testing.T) {
	m := metrics.New(metrics.Config{MaxPolicies: 8})
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 500 {
				m.Decided(context.Background(), observation(fmt.Sprintf("p%d", (g+i)%16), ratelimit.OutcomeDenied, false))
			}
		})
	}
	wg.Wait()
	got := gather(t, m)
	assert.EqualValues(t, 4000, got.sum("decisions_total", `"denied"`))
	assert.EqualValues(t, 4000, got["peerlimit_ratelimit_decision_seconds_count"])
	assert.Len(t, got.of("peerlimit_ratelimit_near_limit_total"), 9)
}

func TestADecisionIsCountedWithoutAllocating(t *testing.T) {
	m := metrics.New(metrics.Config{})
	o := observation("p", ratelimit.OutcomeAllowed, true)
	ctx := context.Background()
	assert.Zero(t, testing.AllocsPerRun(100, func() { m.Decided(ctx, o) }))
}

package e2e

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Metrics is one scrape of a member.
type Metrics struct {
	families map[string]*dto.MetricFamily
	text     string
}

// Scrape does what Prometheus does.
func (m *Member) Scrape(ctx context.Context) (s Metrics, err error) {
	status, _, body, err := m.Request(ctx, http.MethodGet, "/metrics", nil)
	if err != nil {
		return s, err
	}
	if status != http.StatusOK {
		return s, fmt.Errorf("%s: /metrics: %d %s", m.Name, status, body)
	}
	s.text = string(body)
	parser := expfmt.NewTextParser(model.UTF8Validation)
	s.families, err = parser.TextToMetricFamilies(bytes.NewReader(body))
	return s, err
}

// Sum adds up the samples of a metric that have all these labels, given as
// name=value; of a histogram, how many there were.
func (s Metrics) Sum(name string, labels ...string) (sum float64) {
	for _, m := range s.families["peerlimit_"+name].GetMetric() {
		has := map[string]bool{}
		for _, l := range m.GetLabel() {
			has[l.GetName()+"="+l.GetValue()] = true
		}
		all := true
		for _, l := range labels {
			all = all && has[l]
		}
		if all {
			sum += m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return sum
}

// What a member tells Prometheus is what it did.
func TestMetricsAreWhatAMemberDid(t *testing.T) {
	t.Parallel()
	const user, admin = "the-token-of-the-scraper", "the-token-of-the-admin-1"
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	secrets.add(user)
	cluster := NewCluster(t, 3, MemberOptions{Token: admin, Args: []string{
		"--api-token-file=" + file("users", user), "--admin-token-file=" + file("admins", admin),
		"--secret-file=" + secretFile(t, oneSecret),
	}})
	cluster.AwaitKV(startTimeout)
	members := cluster.Members()
	m := members[0]
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	before := make(map[*Member]Metrics)
	for _, m := range members {
		var err error
		before[m], err = m.Scrape(ctx)
		require.NoError(t, err)
	}

	// 30 keys with 5 checks each by way of one member, 3 of which fit; one by
	// way of another.
	for i := range 150 {
		d, err := m.Check(ctx, Check{Key: fmt.Sprintf("caller-%d", i%30), Policy: "calls", Limit: 3, Period: "24h", Synchronous: true}.Body())
		require.NoError(t, err)
		require.False(t, d.Degraded)
		require.Equal(t, i < 90, d.Allowed)
	}
	_, err := members[1].Check(ctx, Check{Key: "caller-x", Policy: "calls", Limit: 3, Period: "24h", Synchronous: true}.Body())
	require.NoError(t, err)
	require.NoError(t, m.Put(ctx, "greeting", []byte("hello"), time.Minute))
	for range 3 {
		_, ok, err := m.Get(ctx, "greeting")
		require.NoError(t, err)
		require.True(t, ok)
	}
	_, ok, err := m.Get(ctx, "nothing")
	require.NoError(t, err)
	require.False(t, ok)
	key, err := m.CreateKey(ctx)
	require.NoError(t, err)
	for _, presented := range []string{key.Key, key.Key, "pl_live_malformed"} {
		_, err := m.Verify(ctx, presented)
		require.NoError(t, err)
	}

	after := make(map[*Member]Metrics)
	rise := func(m *Member, name string, labels ...string) float64 {
		return after[m].Sum(name, labels...) - before[m].Sum(name, labels...)
	}
	everywhere := func(name string) (sum float64) {
		for _, s := range after {
			sum += s.Sum(name)
		}
		return sum
	}
	Eventually(t, 10*time.Second, func() error {
		for _, m := range members {
			s, err := m.Scrape(ctx)
			if err != nil {
				return err
			}
			after[m] = s
		}
		if bare := everywhere("cluster_unprotected_entries"); bare != 0 {
			return fmt.Errorf("%v entries have no copy", bare)
		}
		return nil
	})
	view, err := m.View(ctx)
	require.NoError(t, err)
	assert.EqualValues(t, 90, rise(m, "ratelimit_decisions_total", "policy=calls", "outcome=allowed"))
	assert.EqualValues(t, 60, rise(m, "ratelimit_decisions_total", "policy=calls", "outcome=denied"))
	assert.EqualValues(t, 150, rise(m, "ratelimit_decisions_total"))
	assert.EqualValues(t, 150, rise(m, "ratelimit_decision_seconds"))
	assert.EqualValues(t, 30, rise(m, "ratelimit_near_limit_total"), "the last of three")
	assert.EqualValues(t, 1, rise(members[1], "ratelimit_decisions_total"))
	assert.EqualValues(t, 31, everywhere("ratelimit_keys"))
	assert.EqualValues(t, 3, rise(m, "cache_requests_total", "result=hit")+rise(m, "cache_requests_total", "result=near_hit"))
	assert.EqualValues(t, 1, rise(m, "cache_requests_total", "result=miss"))
	assert.EqualValues(t, 1, rise(m, "cache_operation_seconds", "op=set"))
	assert.EqualValues(t, 2, rise(m, "auth_verdicts_total", "verdict=VALID"))
	assert.EqualValues(t, 1, rise(m, "auth_verdicts_total", "verdict=MALFORMED", "source=key"))
	assert.EqualValues(t, 3, after[m].Sum("cluster_members"))
	assert.EqualValues(t, view.Possession.Slots, after[m].Sum("cluster_possessed_slots"))
	assert.EqualValues(t, 16384, everywhere("cluster_possessed_slots"))
	assert.Equal(t, view.Ring.Version[:12], fmt.Sprintf("%012x", uint64(after[m].Sum("cluster_ring_version"))))
	assert.Zero(t, everywhere("breaker_state"))
	assert.Len(t, after[m].families["peerlimit_breaker_state"].GetMetric(), 3, "the KV and two peers")
	for _, never := range []string{"caller-", "greeting", key.Key, key.ID, user, admin, oneSecret} {
		assert.NotContains(t, after[m].text, never)
	}

	// Only for those with a token.
	for token, want := range map[string]int{"": 401, "some-other-token": 403, user: 200} {
		m.token = token
		status, _, _, err := m.Request(ctx, http.MethodGet, "/metrics", nil)
		require.NoError(t, err)
		assert.Equal(t, want, status)
	}
	m.token = admin

	// A stranger at the peer port is counted, a member that dies is taken over
	// from, and both are in the log.
	status, _, _, err := (&Member{HTTP: m.Peer, client: &http.Client{Timeout: 5 * time.Second}}).Request(ctx, http.MethodGet, "/", nil)
	assert.Error(t, err, "an answer from the peer port: %d", status)
	cluster.Forget(members[2])
	members[2].Kill()
	cluster.AwaitOneRing(startTimeout)
	Eventually(t, 10*time.Second, func() error {
		for _, m := range members[:2] {
			s, err := m.Scrape(ctx)
			if err != nil {
				return err
			}
			after[m] = s
		}
		delete(after, members[2])
		if n := everywhere("cluster_members"); n != 4 {
			return fmt.Errorf("they see %v members", n)
		}
		if n := everywhere("cluster_possessed_slots"); n != 16384 {
			return fmt.Errorf("they serve %v slots", n)
		}
		if n := everywhere("ratelimit_keys"); n != 31 {
			return fmt.Errorf("they have %v keys", n)
		}
		if after[m].Sum("cluster_frames_rejected_total") == 0 {
			return fmt.Errorf("no stranger was counted")
		}
		return nil
	})
	assert.GreaterOrEqual(t, everywhere("cluster_takeovers_total"), before[members[2]].Sum("cluster_possessed_slots")/2)
	for _, m := range members[:2] {
		m.AwaitLog(5*time.Second, `msg="member lost"`, "member="+members[2].Name)
		assert.Equal(t, 1, strings.Count(m.Log(), `msg="member lost"`), "once a change")
		m.AwaitLog(5*time.Second, `msg="slot take-over"`)
		m.AwaitLog(5*time.Second, `msg=unprotected`)
	}
}

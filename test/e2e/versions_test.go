package e2e

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A deployment raises a limit: replicas of a service are replaced one by one by
// such as have a larger limit for the same policy, under load. Nobody is admitted
// beyond the larger limit, those with the smaller one admit nobody beyond theirs,
// and what was used is kept.
func TestTwoVersionsWithDifferentLimits(t *testing.T) {
	needSoak(t, soakShort)
	const before, after = 100, 150
	const half = 60 // what is used, before the deployment, of the keys that are left alone during it
	cluster := NewCluster(t, 0, MemberOptions{})
	started := 0
	launch := func(limit int64) *Member {
		started++
		m := LaunchService(t, serviceConfig{Cluster: cluster.name, Name: fmt.Sprintf("replica-%d", started),
			Join: cluster.Seeds(), Secret: oneSecret, Limit: limit})
		m.AwaitReady()
		cluster.mu.Lock()
		cluster.members = append(cluster.members, m)
		cluster.mu.Unlock()
		return m
	}
	for range 3 {
		launch(before)
	}
	cluster.AwaitOneRing(startTimeout)
	old := cluster.Members()
	call := func(m *Member, key string) (bool, int64) {
		ctx, cancel := short()
		defer cancel()
		d, header, err := m.Call(ctx, key)
		require.NoError(t, err)
		state, err := parseSF(header.Get("RateLimit"))
		require.NoError(t, err)
		left, ok := named(state, "calls")["r"].(int64)
		require.True(t, ok, "%s: %v", m.Name, header)
		return d.Allowed, left
	}
	var resting []string
	for i := range 4 {
		key := fmt.Sprintf("resting:%d", i)
		resting = append(resting, key)
		for n := range half {
			allowed, left := call(old[(i+n)%3], key)
			require.True(t, allowed)
			require.EqualValues(t, before-n-1, left)
		}
	}

	busy := func(n uint64) string { return fmt.Sprintf("busy:%d", n%4) }
	load := StartLoad(t, old, LoadOptions{Callers: 2, Pause: 5 * time.Millisecond,
		Body: func(n uint64) []byte { return []byte(busy(n)) },
		Ask: func(m *Member, ctx context.Context, key []byte) (Decision, error) {
			d, _, err := m.Call(ctx, string(key))
			return d, err
		}})
	load.AwaitEnded(4*before + 300) // every busy key is used up
	var raised time.Time            // when the first with the larger limit was started
	used := int64(half)             // of the first resting key
	for i, m := range old {
		load.Retire(m)
		cluster.Forget(m)
		m.Leave()
		if i == 0 {
			raised = time.Now()
		}
		replacement := launch(after)
		cluster.AwaitOneRing(startTimeout)
		load.Add(replacement)
		load.AwaitEnded(300)
		for _, other := range cluster.Members() { // each by its own limit, of what was used
			limit := int64(after)
			if slices.Contains(old, other) {
				limit = before
			}
			allowed, left := call(other, resting[0])
			used++
			assert.True(t, allowed)
			assert.Equal(t, limit-used, left, other.Name)
		}
	}
	load.AwaitEnded(4*after + 300)
	report := load.Stop()
	counts := report.Counts()
	t.Logf("%v", counts)
	for _, failure := range report.Failures() {
		t.Error(failure)
	}

	admitted := map[string]int{}
	early := map[string]int{}
	for _, c := range report.Calls {
		if c.Outcome != Allowed {
			continue
		}
		admitted[busy(c.N)]++
		if c.Start.Before(raised) {
			early[busy(c.N)]++
		}
		if slices.Contains(old, c.Member) {
			assert.LessOrEqual(t, admitted[busy(c.N)], before, "%s admits by the larger limit: %v", c.Member.Name, c)
		}
	}
	for n := range uint64(4) {
		assert.Equal(t, before, early[busy(n)], busy(n))
		assert.Equal(t, after, admitted[busy(n)], busy(n))
	}
	members := cluster.Members()
	for i, key := range resting[1:] {
		allowed := 0
		for n := range after - half + 3 {
			if ok, _ := call(members[(i+n)%3], key); ok {
				allowed++
			}
		}
		assert.Equal(t, after-half, allowed, "%s: what was used is kept", key)
	}
}

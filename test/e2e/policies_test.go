package e2e

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// PutPolicy stores a policy by way of m.
func (m *Member) PutPolicy(ctx context.Context, path, body string) (Receipt, error) {
	var answer struct{ Receipt Receipt }
	_, err := m.Ask(ctx, http.MethodPut, "/v1/policies/"+path, []byte(body), &answer)
	return answer.Receipt, err
}

// A policy that is stored by way of one member is in force on every member when
// the call returns, and what was used is kept.
func TestPoliciesAreInForceEverywhereAtOnce(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "policies.yaml")
	require.NoError(t, os.WriteFile(file, []byte("policies:\n  - {name: filed, limit: 2, period: 24h}\n"), 0o600))
	cluster := NewCluster(t, 3, MemberOptions{Args: []string{"--policies=" + file}})
	members := cluster.Members()
	ctx, cancel := short()
	defer cancel()
	check := func(policy string) []byte {
		return Check{Key: "k", Policy: policy, Limit: 1000, Period: "24h", Algorithm: "fixed-window"}.Body()
	}
	for _, m := range members {
		d, err := m.Peek(ctx, check("filed"))
		require.NoError(t, err)
		assert.Equal(t, int64(2), d.Limit, "%s: of the file", m.Name)
	}

	for range 5 {
		d, err := members[0].Check(ctx, check("api"))
		require.NoError(t, err)
		require.True(t, d.Allowed)
	}
	for i := range 30 {
		limit := int64(6 + i)
		receipt, err := members[i%3].PutPolicy(ctx, "api", `{"limit":`+string(mustJSON(limit))+`,"period":"24h","algorithm":"fixed-window"}`)
		require.NoError(t, err)
		assert.Equal(t, 3, receipt.Reached)
		for _, m := range members {
			d, err := m.Peek(ctx, check("api"))
			require.NoError(t, err)
			assert.Equal(t, limit, d.Limit, m.Name)
			assert.Equal(t, limit-5, d.Remaining, m.Name)
		}
	}
	_, err := members[1].PutPolicy(ctx, "api/overrides/k", `{"unlimited":true}`)
	require.NoError(t, err)
	for _, m := range members {
		d, err := m.Check(ctx, check("api"))
		require.NoError(t, err)
		assert.Equal(t, "unlimited", d.Reason, m.Name)
	}

	// It outlives the members that have it.
	for _, m := range members[:2] {
		cluster.Forget(m)
		m.Leave()
	}
	d, err := members[2].Peek(ctx, check("api"))
	require.NoError(t, err)
	assert.Equal(t, "unlimited", d.Reason)
	again := cluster.Add(1)[0]
	d, err = again.Peek(ctx, check("api"))
	require.NoError(t, err)
	assert.Equal(t, "unlimited", d.Reason, "a member that is new")
}

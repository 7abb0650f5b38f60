package e2e

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// What was spent by way of one member is reset by way of another, for all.
func TestResetOverTheCluster(t *testing.T) {
	t.Parallel()
	cluster := NewCluster(t, 3, MemberOptions{})
	members := cluster.Members()
	ctx, cancel := short()
	defer cancel()
	check := func(i int) []byte {
		return Check{Key: fmt.Sprintf("t%d:user/%d", i%3, i), Limit: 2, Period: "24h", Cost: 2, Policy: "calls"}.Body()
	}
	for i := range 30 {
		d, err := members[i%3].Check(ctx, check(i))
		require.NoError(t, err)
		require.True(t, d.Allowed)
	}
	d, err := members[0].Check(ctx, check(1))
	require.NoError(t, err)
	require.False(t, d.Allowed)
	status, err := members[2].Ask(ctx, http.MethodDelete, "/v1/ratelimit/t1:user%2F1?policy=calls", nil, nil)
	require.NoError(t, err)
	assert.Equal(t, http.StatusNoContent, status)
	d, err = members[1].Check(ctx, check(1))
	require.NoError(t, err)
	assert.True(t, d.Allowed, "it was reset")

	keys, err := members[0].Keys(ctx)
	require.NoError(t, err)
	assert.Equal(t, 30, keys)
	var reset struct{ Removed int }
	_, err = members[1].Ask(ctx, http.MethodDelete, "/v1/ratelimit?policy=calls&prefix=t2:", nil, &reset)
	require.NoError(t, err)
	assert.Equal(t, 10, reset.Removed)
	_, err = members[1].Ask(ctx, http.MethodDelete, "/v1/ratelimit?policy=calls", nil, &reset)
	require.NoError(t, err)
	assert.Equal(t, 20, reset.Removed)
	_, err = members[2].Ask(ctx, http.MethodDelete, "/v1/ratelimit?policy=calls", nil, &reset)
	require.NoError(t, err)
	assert.Zero(t, reset.Removed, "there is nothing left")
	keys, err = members[0].Keys(ctx)
	require.NoError(t, err)
	assert.Zero(t, keys)
	for i := range 30 {
		d, err := members[i%3].Peek(ctx, check(i))
		require.NoError(t, err)
		assert.Equal(t, int64(2), d.Remaining)
	}
}

// Twenty keys, so that all three members hold some: one that has too little
// left makes all of them denied, and nothing is spent.
func TestAllOrNothingOverTheCluster(t *testing.T) {
	t.Parallel()
	cluster := NewCluster(t, 3, MemberOptions{})
	ctx, cancel := short()
	defer cancel()
	all := func(lastCost int64) []byte {
		var checks []Check
		for i := range 20 {
			checks = append(checks, Check{Key: fmt.Sprintf("part:%d", i), Limit: 10, Period: "24h", Cost: 2})
		}
		checks[19].Cost = lastCost
		return mustJSON(map[string]any{"checks": checks})
	}
	for i, c := range []struct {
		cost    int64
		allowed bool
		status  int
		left    int64 // of all but the last
	}{{9, true, 200, 8}, {2, false, 429, 8}, {1, true, 200, 6}} {
		m := cluster.Members()[i]
		var d Decisions
		status, err := m.Ask(ctx, http.MethodPost, "/v1/ratelimit/check", all(c.cost), &d)
		require.NoError(t, err)
		assert.Equal(t, c.status, status)
		assert.Equal(t, c.allowed, d.Allowed)
		require.Len(t, d.Decisions, 20)
		for key := range 19 {
			peek, err := m.Peek(ctx, Check{Key: fmt.Sprintf("part:%d", key), Limit: 10, Period: "24h"}.Body())
			require.NoError(t, err)
			assert.Equal(t, c.left, peek.Remaining, "of key %d after step %d", key, i+1)
		}
	}
}

func TestTokensOverHTTP(t *testing.T) {
	const user, admin = "the-token-of-a-user-0123", "the-token-of-an-admin-01"
	file := func(name, text string) string {
		path := filepath.Join(t.TempDir(), name)
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	// All addresses: with tokens and a secret that is allowed.
	m := StartMember(t, MemberOptions{Name: "m1", Cluster: clusterName(t), Token: user, Args: []string{
		"--api-token-file=" + file("users", "# users\nold-token-that-still-works\n"+user+"\n"),
		"--admin-token-file=" + file("admins", admin+"\n"),
		"--secret-file=" + secretFile(t, oneSecret), "--bind=0.0.0.0:0", "--peer-bind=0.0.0.0:0", "--kv-bind=0.0.0.0:0",
		"--http=0.0.0.0:0", "--advertise=127.0.0.1"}})
	ctx, cancel := short()
	defer cancel()
	ask := func(token, method, path string) int {
		m.token = token
		status, _, _, err := m.Request(ctx, method, path, Check{Key: "k", Limit: 9, Period: "24h"}.Body())
		require.NoError(t, err)
		return status
	}
	const checkPath, breakerPath = "/v1/ratelimit/check", "/v1/cluster/breakers/nobody/reset"
	for _, c := range []struct {
		token, method, path string
		want                int
	}{
		{"", "POST", checkPath, 401},
		{"wrong", "POST", checkPath, 403},
		{user, "POST", checkPath, 200},
		{"old-token-that-still-works", "POST", checkPath, 200},
		{admin, "POST", checkPath, 200},
		{"", "GET", "/v1/cluster", 401},
		{user, "GET", "/v1/cluster", 200},
		{user, "POST", breakerPath, 403},
		{admin, "POST", breakerPath, 404},
		{"", "GET", "/nowhere", 401},
		{"", "GET", "/healthz", 200},
		{"", "GET", "/readyz", 200},
	} {
		assert.Equal(t, c.want, ask(c.token, c.method, c.path), "%q %s %s", c.token, c.method, c.path)
	}
	log := m.Log()
	for _, secret := range []string{user, admin, oneSecret} {
		assert.NotContains(t, log, secret)
	}
}

// A check whose caller has gone is no decision, and nothing is left of it.
func TestHTTPIsWellKept(t *testing.T) {
	m := StartMember(t, MemberOptions{Name: "m1", Cluster: clusterName(t)})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := m.Check(ctx, Check{Key: "k", Limit: 1, Period: "24h"}.Body())
	require.ErrorIs(t, err, context.Canceled)

	again, cancel := short()
	defer cancel()
	for path, want := range map[string]int{"/": 200, "/nowhere": 404, "/v1/ratelimit/check": 405, "/v1/ratelimit/%2e%2e/x": 405, "//v1//cluster": 200} {
		status, _, body, err := m.Request(again, http.MethodGet, path, nil)
		require.NoError(t, err)
		assert.Equal(t, want, status, "%s: %s", path, body)
	}
}

package main

import (
	"encoding/json"
	"log/slog"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit/ratelimit"
)

func testPolicies(t *testing.T, access *tokens) *handler {
	t.Helper()
	limits, err := ratelimit.New(ratelimit.Config{})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, limits.Close()) })
	h := newHandler(access, testProbes(new(probes)))
	log := slog.New(slog.DiscardHandler)
	h.open(append((&policiesAPI{limits: limits, log: log}).routes(), (&ratelimitAPI{limits: limits, log: log}).routes()...))
	return h
}

func TestStoredPoliciesComeBeforeTheChecks(t *testing.T) {
	h := testPolicies(t, &tokens{})
	assert.JSONEq(t, `{"policies":[]}`, ask(h, "GET", "/v1/policies", "").body)
	check := func(key string) answer {
		return ask(h, "POST", "/v1/ratelimit/check", `{"key":"`+key+`","policy":"api","limit":100,"period":"1s"}`)
	}
	a := ask(h, "PUT", "/v1/policies/api", `{"limit":1,"period":"24h","algorithm":"fixed-window"}`)
	require.Equal(t, 200, a.status, a.body)
	assert.Equal(t, 1, decode[receiptAnswer](t, a).Receipt.Reached)
	assert.Equal(t, 200, check("k").status)
	denied := check("k")
	assert.Equal(t, 429, denied.status)
	assert.Equal(t, `"api";q=1;w=86400`, denied.header.Get("RateLimit-Policy"), "what is in force, not what the check brought")

	require.Equal(t, 200, ask(h, "PUT", "/v1/policies/api/overrides/big%2Fone", `{"times":3}`).status)
	for range 3 {
		assert.Equal(t, 200, check("big/one").status)
	}
	denied = check("big/one")
	assert.Equal(t, 429, denied.status)
	assert.Contains(t, denied.header.Get("RateLimit-Policy"), "q=3")
	shown := ask(h, "GET", "/v1/policies/api", "")
	assert.JSONEq(t, `{"name":"api","limit":1,"period":"24h0m0s","algorithm":"fixed-window","overrides":[{"key":"big/one","times":3}]}`, shown.body)
	again := ask(h, "PUT", "/v1/policies/api", shown.body)
	assert.Equal(t, 200, again.status, "what is shown can be stored: %s", again.body)

	assert.Equal(t, 200, ask(h, "DELETE", "/v1/policies/api/overrides/big%2Fone", "").status)
	assert.Equal(t, 404, ask(h, "DELETE", "/v1/policies/api/overrides/big%2Fone", "").status)
	assert.Equal(t, 200, ask(h, "DELETE", "/v1/policies/api", "").status)
	assert.Equal(t, 404, ask(h, "DELETE", "/v1/policies/api", "").status)
	assert.Equal(t, 404, ask(h, "GET", "/v1/policies/api", "").status)
	assert.Equal(t, 200, check("k").status, "the check's own limit counts again")

	require.Equal(t, 200, ask(h, "PUT", "/v1/policies/monthly", `{"limit":1,"algorithm":"fixed-window","align":"month"}`).status)
	monthly := `{"key":"k","policy":"monthly","limit":100,"period":"1s"}`
	ask(h, "POST", "/v1/ratelimit/check", monthly)
	assert.Equal(t, `"monthly";q=1`, ask(h, "POST", "/v1/ratelimit/check", monthly).header.Get("RateLimit-Policy"))
}

func TestBadPoliciesNameTheField(t *testing.T) {
	h := testPolicies(t, &tokens{})
	for _, c := range []struct{ path, body, field string }{
		{"api", `{"limit":0}`, ""},
		{"api", `{"limit":"5","period":"1s"}`, "limit"},
		{"api", `{"limit":5}`, "period"},
		{"api", `{"limit":5,"period":"1s","algorithm":"leaky"}`, "algorithm"},
		{"api", `{"limit":5,"period":"1s","nonsense":1}`, "nonsense"},
		{"api", `{"name":"other","limit":5,"period":"1s"}`, "name"},
		{"api", "limit: 5\nperiod: 1s\n", "body"},
		{"api", ``, "body"},
		{"api", `[]`, ""},
		{"api/overrides/k", `{"times":0}`, "times"},
		{"api/overrides/k", `{}`, "overrides"},
		{"api/overrides/k", `{"times":2,"limit":3}`, "overrides"},
		{"api/overrides/k", `{"nonsense":2}`, "nonsense"},
	} {
		a := ask(h, "PUT", "/v1/policies/"+c.path, c.body)
		if c.field == "" {
			assert.Contains(t, []int{200, 400}, a.status, "%s: %s", c.body, a.body)
			continue
		}
		if assert.Equal(t, 400, a.status, "%s: %s", c.body, a.body) {
			assert.Equal(t, c.field, a.problem(t).Errors[0].Field, c.body)
		}
	}
	large := ask(h, "PUT", "/v1/policies/api", `{"limit":5,"period":"1s"`+strings.Repeat(" ", 1<<20)+"}")
	assert.Equal(t, 400, large.status)
	assert.Contains(t, large.body, "1048576")
}

func TestWhoMayChangePolicies(t *testing.T) {
	h := testPolicies(t, &tokens{users: hashTokens([]string{"a-user"}), admins: hashTokens([]string{"an-admin"})})
	put := func(token string) int {
		return ask(h, "PUT", "/v1/policies/p", `{"limit":5,"period":"1s"}`, "Authorization", "Bearer "+token).status
	}
	assert.Equal(t, 403, put("a-user"))
	assert.Equal(t, 200, put("an-admin"))
	assert.Equal(t, 200, ask(h, "GET", "/v1/policies", "", "Authorization", "Bearer a-user").status)
}

func TestPolicyFileIsRefusedWithItsLine(t *testing.T) {
	file := write(t, "policies:\n  - name: api\n    limit: 5\n    period: 1s\n  - name: web\n    limit: many\n")
	code, _, stderr := runNode(t, "serve", "--policies", file)
	assert.Equal(t, exitUsage, code)
	assert.Contains(t, stderr, "--policies: "+file+":6: ")
	assert.Contains(t, stderr, "limit")
	code, _, stderr = runNode(t, "serve", "--policies", "/nonexistent")
	assert.Equal(t, exitUsage, code)
	assert.Contains(t, stderr, "--policies")

	policies, err := readPolicies(write(t, "policies:\n  - {name: api, limit: 5, period: 1m}\n"))
	require.NoError(t, err)
	limits, err := ratelimit.New(ratelimit.Config{})
	require.NoError(t, err)
	defer limits.Close()
	require.NoError(t, loadPolicies(t.Context(), limits, policies))
	text, err := json.Marshal(limits.StoredPolicies())
	require.NoError(t, err)
	assert.JSONEq(t, `[{"name":"api","limit":5,"period":"1m0s","algorithm":"token-bucket"}]`, string(text))
}

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/peerlimit/peerlimit/auth"
	"github.com/peerlimit/peerlimit/cluster"
	"github.com/peerlimit/peerlimit/cluster/clustertest"
	"github.com/peerlimit/peerlimit/ratelimit"
)

// Limits of the service that the servers of these tests are replicas of.
var (
	perIP  = ratelimit.Policy{Name: "ip", Limit: 60, Period: time.Hour, Algorithm: ratelimit.FixedWindow}
	perKey = ratelimit.Policy{Name: "key", Limit: 25, Period: time.Hour, Algorithm: ratelimit.FixedWindow}
)

// patient gives members more time than they need, where when one counts as dead
// is not what is tested.
func patient(_ int, cfg *cluster.Config) {
	const ms = time.Millisecond
	cfg.Timings = cluster.Timings{Grant: 1500 * ms, Beat: 50 * ms, Suspect: 500 * ms, Gap: 500 * ms, CopyEvery: 20 * ms, Call: 10_000 * ms}
}

// outage is a store of keys that can be away.
type outage struct {
	auth.Store
	down atomic.Bool
}

var errAway = errors.New("the store is away")

func (o *outage) Lookup(ctx context.Context, d auth.Digest) (auth.Key, error) {
	if o.down.Load() {
		return auth.Key{}, errAway
	}
	return o.Store.Lookup(ctx, d)
}

// newKeys returns what verifies keys on a member, and newLimits what limits.
func newKeys(t *testing.T, node *cluster.Node, store auth.Store) *auth.Authenticator {
	t.Helper()
	keys, err := auth.New(auth.Config{Cluster: node, Store: store})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, keys.Close()) })
	return keys
}

func newLimits(t *testing.T, cfg ratelimit.Config) *ratelimit.Limiter {
	t.Helper()
	cfg.Namespace = "api"
	limits, err := ratelimit.New(cfg)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, limits.Close()) })
	return limits
}

// Three replicas of a service, one with net/http's ServeMux, one with chi, one
// with gRPC, each a member of the cluster: the keys, and the limits by address
// and by key, are those of one service.
func TestServersOfEachKindShareLimits(t *testing.T) {
	t.Parallel()
	nodes := clustertest.Start(t, 3, patient).Nodes
	store := &outage{Store: auth.NewMemory()}
	var limits []*ratelimit.Limiter
	var keys []*auth.Authenticator
	for _, node := range nodes {
		limits = append(limits, newLimits(t, ratelimit.Config{Cluster: node}))
		keys = append(keys, newKeys(t, node, store))
	}
	calls := serveGRPC(t, keys[2], limits[2])
	servers := []front{serveMux(t, keys[0], limits[0]), serveChi(t, keys[1], limits[1]), calls.unary(), calls.stream()}

	issue := func(i int, scopes ...string) string {
		issued, err := keys[i%3].Create(t.Context(), auth.Spec{Project: "e2e", Scopes: scopes})
		require.NoError(t, err)
		secret := issued.Secret.Reveal()
		secrets.add(secret)
		return secret
	}
	a, b, c, d, outsider := issue(0, "read"), issue(1, "read"), issue(2, "read"), issue(3, "read"), issue(4)

	// Who does not get past the keys spends nothing.
	for i, s := range servers {
		s.requireRefused(t, "", http.StatusUnauthorized, codes.Unauthenticated)
		s.requireRefused(t, "pl_live_wrong", http.StatusUnauthorized, codes.Unauthenticated)
		s.requireRefused(t, outsider, http.StatusForbidden, codes.PermissionDenied)
		store.down.Store(true)
		s.requireRefused(t, fmt.Sprintf("unknown-to-all-%d", i), http.StatusServiceUnavailable, codes.Unavailable)
		store.down.Store(false)
	}
	spent := func() int64 {
		now, err := limits[1].Status(t.Context(), perIP, "127.0.0.1")
		require.NoError(t, err)
		require.False(t, now.Degraded)
		return perIP.Limit - now.Remaining
	}
	require.Zero(t, spent())

	// One after the other: each knows what was spent at the others.
	for i, s := range append(servers, servers[0]) {
		reply := s.ask(d)
		require.True(t, reply.allowed(), "%s: %v", s.name, reply)
		if reply.header != nil {
			used := int64(i + 1)
			requireState(t, s, reply.header, perIP.Limit-used, perKey.Limit-used)
		}
	}

	// All at once, over all of them: what the key has, and not what the address has.
	const each = 10
	assert.Equal(t, perKey.Limit, askAtOnce(servers, each, a))
	require.EqualValues(t, 5+25, spent(), "what one limit denied was not spent under the other")
	for _, s := range servers {
		s.requireDenied(t, a, perKey.Name)
	}
	// Two keys that have more than the address has left.
	rest := perIP.Limit - spent()
	got := askAtOnce(servers, each, b, c)
	for _, key := range []string{b, c} { // a call that waited for its last limit may have held the place of another
		for _, s := range servers {
			for s.ask(key).allowed() {
				got++
			}
		}
	}
	assert.Equal(t, rest, got)
	assert.Equal(t, perIP.Limit, spent())
	for _, s := range servers {
		s.requireDenied(t, d, perIP.Name)
		s.requireDenied(t, a, perIP.Name, perKey.Name)
	}
}

// askAtOnce asks every server n times with each key and returns how often it may.
func askAtOnce(servers []front, n int, keys ...string) int64 {
	var allowed atomic.Int64
	var wait sync.WaitGroup
	for _, s := range servers {
		for _, key := range keys {
			for range n {
				wait.Go(func() {
					if s.ask(key).allowed() {
						allowed.Add(1)
					}
				})
			}
		}
	}
	wait.Wait()
	return allowed.Load()
}

// requireState compares what a response says of limits.
func requireState(t *testing.T, s front, header http.Header, ip, key int64) {
	t.Helper()
	policies, err := parseSF(header.Get("RateLimit-Policy"))
	require.NoError(t, err)
	require.Equal(t, []sfItem{
		{"ip", map[string]any{"q": perIP.Limit, "w": int64(3600)}},
		{"key", map[string]any{"q": perKey.Limit, "w": int64(3600)}},
	}, policies, s.name)
	state, err := parseSF(header.Get("RateLimit"))
	require.NoError(t, err)
	require.Len(t, state, 2, s.name)
	require.Equal(t, ip, named(state, "ip")["r"], s.name)
	require.Equal(t, key, named(state, "key")["r"], s.name)
	for _, item := range state {
		if until, ok := item.params["t"]; ok {
			require.Positive(t, until, s.name)
			require.LessOrEqual(t, until, int64(3600), s.name)
		}
	}
	requireXRateLimit(t, s, header, min(ip, key))
}

// requireXRateLimit wants the old headers of those servers that send them.
func requireXRateLimit(t *testing.T, s front, header http.Header, remaining int64) {
	t.Helper()
	if !s.xRateLimit {
		for _, name := range []string{"X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"} {
			require.Empty(t, header.Get(name), s.name)
		}
		return
	}
	require.Equal(t, strconv.FormatInt(remaining, 10), header.Get("X-RateLimit-Remaining"), s.name)
	limit, err := strconv.ParseInt(header.Get("X-RateLimit-Limit"), 10, 64)
	require.NoError(t, err)
	require.Contains(t, []int64{perIP.Limit, perKey.Limit}, limit)
	reset, err := strconv.ParseInt(header.Get("X-RateLimit-Reset"), 10, 64)
	require.NoError(t, err)
	require.Greater(t, reset, time.Now().Unix())
	require.LessOrEqual(t, reset, time.Now().Unix()+3600+1)
}

// requireDenied asks once and wants a denial by these policies, in the form of
// the server's protocol.
func (s front) requireDenied(t *testing.T, key string, by ...string) {
	t.Helper()
	reply := s.ask(key)
	if reply.header == nil {
		require.Equal(t, codes.ResourceExhausted, status.Code(reply.err), "%s: %v", s.name, reply)
		retry, quota := details(reply.err)
		require.NotNil(t, retry, s.name)
		require.Positive(t, retry.GetRetryDelay().AsDuration(), s.name)
		require.LessOrEqual(t, retry.GetRetryDelay().AsDuration(), time.Hour, s.name)
		var violated []string
		for _, v := range quota.GetViolations() {
			violated = append(violated, v.GetQuotaId())
			require.Equal(t, map[string]int64{"ip": perIP.Limit, "key": perKey.Limit}[v.GetQuotaId()], v.GetQuotaValue(), s.name)
		}
		require.Equal(t, by, violated, s.name)
		return
	}
	require.Equal(t, http.StatusTooManyRequests, reply.status, "%s: %v", s.name, reply)
	require.Equal(t, "application/problem+json", reply.header.Get("Content-Type"), s.name)
	var problem struct {
		Problem
		Violated []string `json:"violated-policies"`
	}
	require.NoError(t, json.Unmarshal(reply.body, &problem), s.name)
	require.Equal(t, "https://iana.org/assignments/http-problem-types#quota-exceeded", problem.Type, s.name)
	require.Equal(t, http.StatusTooManyRequests, problem.Status, s.name)
	require.NotEmpty(t, problem.Title, s.name)
	require.Equal(t, by, problem.Violated, s.name)

	state, err := parseSF(reply.header.Get("RateLimit"))
	require.NoError(t, err)
	after, err := strconv.ParseInt(reply.header.Get("Retry-After"), 10, 64)
	require.NoError(t, err, s.name)
	require.LessOrEqual(t, after, int64(3600), s.name)
	for _, policy := range by {
		params := named(state, policy)
		require.Equal(t, int64(0), params["r"], "%s: %v", s.name, state)
		require.Contains(t, params, "t", s.name)
		require.Positive(t, params["t"], s.name)
	}
	for _, item := range state {
		if until, ok := item.params["t"].(int64); ok {
			require.GreaterOrEqual(t, after, until, "%s: Retry-After is earlier than t of %v", s.name, item)
		}
	}
	requireXRateLimit(t, s, reply.header, 0)
}

// requireRefused asks once and wants a refusal that has nothing to do with
// limits.
func (s front) requireRefused(t *testing.T, key string, httpStatus int, code codes.Code) {
	t.Helper()
	reply := s.ask(key)
	if reply.header == nil {
		require.Equal(t, code, status.Code(reply.err), "%s: %v", s.name, reply)
		return
	}
	require.Equal(t, httpStatus, reply.status, "%s: %v", s.name, reply)
	require.Equal(t, "application/problem+json", reply.header.Get("Content-Type"), s.name)
	require.Empty(t, reply.header.Get("RateLimit"), s.name)
	var problem Problem
	require.NoError(t, json.Unmarshal(reply.body, &problem), s.name)
	require.Equal(t, httpStatus, problem.Status, s.name)
	challenge := reply.header.Get("WWW-Authenticate")
	switch {
	case httpStatus == http.StatusServiceUnavailable:
		require.NotEmpty(t, reply.header.Get("Retry-After"), s.name)
	case httpStatus == http.StatusForbidden:
		require.Contains(t, challenge, `error="insufficient_scope"`, s.name)
		require.Contains(t, challenge, `scope="read"`, s.name)
	case key == "":
		require.Regexp(t, `^Bearer realm="[^"]+"$`, challenge, s.name)
	default:
		require.Contains(t, challenge, `error="invalid_token"`, s.name)
	}
}

// details are those of google.rpc in a status, nil where it has none.
func details(err error) (retry *errdetails.RetryInfo, quota *errdetails.QuotaFailure) {
	for _, detail := range status.Convert(err).Details() {
		switch detail := detail.(type) {
		case *errdetails.RetryInfo:
			retry = detail
		case *errdetails.QuotaFailure:
			quota = detail
		}
	}
	return retry, quota
}

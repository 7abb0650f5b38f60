package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/peerlimit/peerlimit/cluster"
	"github.com/peerlimit/peerlimit/cluster/clustertest"
	"github.com/peerlimit/peerlimit/ratelimit"
	"github.com/peerlimit/peerlimit/ratelimit/grpclimit"
)

// lineLog keeps what a limiter logs.
type lineLog struct {
	mu   sync.Mutex
	text bytes.Buffer // guarded by mu
}

func (l *lineLog) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

// count is how many lines have all of words.
func (l *lineLog) count(words ...string) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.text.String()) {
		if _, ok := findLine(line, words); ok {
			n++
		}
	}
	return n
}

// The other members die, those that hold keys and those that have their copies,
// and the one that is left may not decide alone. What its servers answer is by
// the policy's failure mode, and never 429 or RESOURCE_EXHAUSTED where nobody
// found that a caller asks for too much.
func TestServersWhileNobodyMayDecide(t *testing.T) {
	needSoak(t, soakShort)
	members := clustertest.Start(t, 3, patient, func(_ int, cfg *cluster.Config) {
		cfg.MinMembers = 2
		cfg.Timings.Call = 2 * time.Second // above the grant, and not longer than this test likes to wait
	})
	log := new(lineLog)
	limits := newLimits(t, ratelimit.Config{Cluster: members.Nodes[0], Logger: slog.New(slog.NewTextHandler(log, nil))})
	fronts := map[string][]front{}
	for name, mode := range map[string]ratelimit.FailureMode{"open": ratelimit.FailOpen, "closed": ratelimit.FailClosed, "local": ratelimit.FailLocal} {
		policy := ratelimit.Policy{Name: name, Limit: 6, Period: time.Hour, Algorithm: ratelimit.FixedWindow, OnUnavailable: mode}
		served := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
		limit := grpclimit.Config{Limiter: limits, Rules: []grpclimit.Rule{grpclimit.By(policy, grpclimit.Everyone())}}
		calls := startGRPC(t, grpc.UnaryInterceptor(grpclimit.Unary(limit)), grpc.StreamInterceptor(grpclimit.Stream(limit)))
		fronts[name] = []front{
			{name: "net/http", ask: serveHTTP(t, limits.Handler(served, ratelimit.By(policy, ratelimit.Everyone())))},
			calls.unary(), calls.stream(),
		}
	}
	for _, node := range members.Nodes[1:] {
		members.Kill(node)
	}
	members.AwaitAll()

	for _, f := range fronts["open"] {
		for range 3 {
			reply := f.ask("")
			require.True(t, reply.allowed(), "%s: %v", f.name, reply)
			require.Empty(t, reply.header.Get("RateLimit"), "what nobody knows is not told")
		}
	}
	for _, f := range fronts["closed"] {
		reply := f.ask("")
		if reply.header == nil {
			require.Equal(t, codes.Unavailable, status.Code(reply.err), "%s: %v", f.name, reply)
			retry, quota := details(reply.err)
			require.Equal(t, time.Second, retry.GetRetryDelay().AsDuration())
			require.Nil(t, quota)
			continue
		}
		require.Equal(t, http.StatusServiceUnavailable, reply.status, "%s: %v", f.name, reply)
		require.Equal(t, "1", reply.header.Get("Retry-After"))
		require.Empty(t, reply.header.Get("RateLimit"))
		require.Equal(t, "application/problem+json", reply.header.Get("Content-Type"))
		var problem struct {
			Problem
			Violated []string `json:"violated-policies"`
		}
		require.NoError(t, json.Unmarshal(reply.body, &problem))
		require.Equal(t, "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity", problem.Type)
		require.Equal(t, []string{"closed"}, problem.Violated)
	}
	// This member's share, whichever server they ask: 6 by as many members as
	// were seen since it is degraded, three or, as these deaths are known, one.
	share := 0
	for i := 0; fronts["local"][i%3].ask("").allowed(); i++ {
		share++
	}
	assert.LessOrEqual(t, share, 6)
	assert.Positive(t, share)
	for _, f := range fronts["local"] {
		reply := f.ask("")
		if reply.header == nil {
			require.Equal(t, codes.ResourceExhausted, status.Code(reply.err), "%s: %v", f.name, reply)
			continue
		}
		require.Equal(t, http.StatusTooManyRequests, reply.status, "%s: %v", f.name, reply)
		after, err := strconv.ParseInt(reply.header.Get("Retry-After"), 10, 64)
		require.NoError(t, err)
		state, err := parseSF(reply.header.Get("RateLimit"))
		require.NoError(t, err)
		require.GreaterOrEqual(t, after, named(state, "local")["t"])
	}
	for name := range fronts {
		assert.Equal(t, 1, log.count(`msg="limiter degraded"`, "policy="+name, "reason=unavailable", "mode="+name), "once a change")
	}
	assert.Zero(t, log.count(`msg="limiter recovered"`))

	// A second member comes: decisions are ordinary, and the log says so.
	newLimits(t, ratelimit.Config{Cluster: members.Add()})
	for name, all := range fronts {
		Eventually(t, 20*time.Second, func() error {
			reply := all[0].ask("")
			if reply.header.Get("RateLimit") == "" {
				return fmt.Errorf("%s: %v", name, reply)
			}
			if log.count(`msg="limiter recovered"`, "policy="+name, "reason=unavailable") == 0 {
				return errors.New("the log does not say that it has recovered")
			}
			return nil
		})
		for i := range 6 {
			all[i%3].ask("")
		}
		for _, f := range all { // more was asked for than the limit is
			require.False(t, f.ask("").allowed(), f.name)
		}
		assert.Equal(t, 1, log.count(`msg="limiter recovered"`, "policy="+name), "once a change")
	}
}

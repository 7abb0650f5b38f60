package e2e

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit/auth"
	"github.com/peerlimit/peerlimit/auth/postgres"
	"github.com/peerlimit/peerlimit/cluster/clustertest"
)

// lookups counts what a server of keys was asked, by client and key, from the
// statements that it logged.
func lookups(log string) map[string]map[string]int {
	asked := map[string]map[string]int{}
	isLookup := false
	for line := range strings.Lines(log) {
		if strings.Contains(line, "WHERE digest = $1") {
			isLookup = true
			continue
		}
		// client DETAIL:  Parameters: $1 = '\x0123…'
		if client, detail, found := strings.Cut(line, " DETAIL: "); found && isLookup {
			if _, digest, found := strings.Cut(detail, `'\x`); found {
				digest, _, _ = strings.Cut(digest, "'")
				if asked[client] == nil {
					asked[client] = map[string]int{}
				}
				asked[client][digest]++
			}
		}
		isLookup = false
	}
	return asked
}

func digestOf(key string) string {
	sum := sha256.Sum256([]byte(key))
	return hex.EncodeToString(sum[:])
}

// PostgreSQL is stopped under members that verify keys by it, and started again.
// What a member has cached stays valid, of others nobody can tell; and when the
// server is back, everything is as ever within seconds, for one query a key and
// member at most.
func TestKeysWhilePostgreSQLIsStopped(t *testing.T) {
	t.Parallel()
	server := StartPostgreSQL(t)
	cluster := NewCluster(t, 0, MemberOptions{})
	for range 3 {
		o := cluster.Options()
		o.Args = append(o.Args, "--key-store="+server.Address(o.Name))
		cluster.Launch(o).AwaitReady()
	}
	cluster.AwaitOneRing(startTimeout)
	cluster.AwaitKV(startTimeout)
	members := cluster.Members()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cached, err := members[0].CreateKey(ctx)
	require.NoError(t, err)
	fresh, err := members[1].CreateKey(ctx) // nobody has verified it
	require.NoError(t, err)
	for _, m := range members {
		require.NoError(t, m.AwaitCached(ctx, cached.Key))
	}
	replicas := staleReplicas(t, server, cached.Key)

	outages := func(m *Member) int { return strings.Count(m.Log(), "key store unavailable") }
	before := map[string]int{} // a slow server may have been given up on while it made its tables
	for _, m := range members {
		before[m.Name] = outages(m)
	}
	server.Stop()
	unknown := func(i int) string { return fmt.Sprintf("unknown-to-everybody-%d", i) }
	verify := func(m *Member, key string) string {
		v, err := m.Verify(ctx, key)
		if !assert.NoError(t, err) {
			return ""
		}
		return v.Verdict
	}
	for stopped := time.Now(); time.Since(stopped) < 2*time.Second; {
		for _, m := range members {
			require.Equal(t, "VALID", verify(m, cached.Key), "%s, %s after the server was gone", m.Name, time.Since(stopped))
		}
	}
	for i, m := range members {
		for _, key := range []string{fresh.Key, unknown(i)} {
			status, header, body, err := m.Request(ctx, http.MethodPost, "/v1/auth/verify", mustJSON(map[string]string{"key": key}))
			require.NoError(t, err)
			assert.Equal(t, http.StatusServiceUnavailable, status, "%s: %s", m.Name, body)
			assert.Equal(t, "application/problem+json", header.Get("Content-Type"))
			assert.NotEmpty(t, header.Get("Retry-After"))
			var answer Verdict
			require.NoError(t, json.Unmarshal(body, &answer))
			assert.Equal(t, "UNAVAILABLE", answer.Verdict)
		}
		m.AwaitLog(10*time.Second, "key store unavailable")
	}
	replicas.requireStale(t)

	from := len(server.Log(0))
	started := time.Now()
	server.Start()
	for _, m := range members {
		Eventually(t, 10*time.Second, func() error {
			require.Equal(t, "VALID", verify(m, cached.Key), m.Name)
			if v := verify(m, fresh.Key); v != "VALID" {
				return fmt.Errorf("%s: a key that it has not seen is %s", m.Name, v)
			}
			return nil
		})
	}
	replicas.requireNormal(t, server, from)
	t.Logf("as ever %s after the server was started", time.Since(started).Round(time.Millisecond))

	// Many ask for the same keys at once.
	var asking sync.WaitGroup
	for _, m := range members {
		for range 8 {
			asking.Go(func() {
				for i := range 10 {
					assert.Equal(t, "NOT_FOUND", verify(m, unknown(i)), m.Name)
					assert.Equal(t, "VALID", verify(m, fresh.Key), m.Name)
					assert.Equal(t, "VALID", verify(m, cached.Key), m.Name)
				}
			})
		}
	}
	asking.Wait()
	asked := lookups(server.Log(from))
	total := 0
	for _, m := range members {
		m.AwaitLog(10*time.Second, "key store available")
		assert.Equal(t, before[m.Name]+1, outages(m), "%s: once a change", m.Name)
		for key, n := range asked[m.Name] {
			assert.LessOrEqual(t, n, 1, "queries of %s for key %s", m.Name, key)
			total += n
		}
		assert.Equal(t, 1, asked[m.Name][digestOf(unknown(5))], "the log is not read as it should be: %v", asked)
	}
	t.Logf("%d queries for 12 keys and 3 members", total)

	_, err = members[1].ChangeKey(ctx, cached.ID, "disable")
	require.NoError(t, err)
	for _, m := range members {
		assert.Equal(t, "DISABLED", verify(m, cached.Key), m.Name)
	}
}

// replicas are three members in this process, that ask for a key again after
// seconds and not after minutes as those of cmd/node do.
type replicas struct {
	keys []*auth.Authenticator
	key  string
}

const askAgain = 2 * time.Second

func staleReplicas(t *testing.T, server *PostgreSQL, key string) *replicas {
	t.Helper()
	r := &replicas{key: key}
	for i, node := range clustertest.Start(t, 3, patient).Nodes {
		store, err := postgres.Open(server.Address(fmt.Sprintf("replica-%d", i)))
		require.NoError(t, err)
		t.Cleanup(func() { assert.NoError(t, store.Close()) })
		keys, err := auth.New(auth.Config{Cluster: node, Store: store, PositiveTTL: askAgain})
		require.NoError(t, err)
		t.Cleanup(func() { assert.NoError(t, keys.Close()) })
		r.keys = append(r.keys, keys)
	}
	for i, keys := range r.keys { // what was read before the first confirmation is not kept
		Eventually(t, 10*time.Second, func() error {
			result, err := keys.Verify(t.Context(), key)
			if err == nil && (result.Verdict != auth.Valid || !result.Cached) {
				err = fmt.Errorf("replica %d: not cached: %+v", i, result)
			}
			return err
		})
	}
	return r
}

// requireStale verifies the key until each says that what it has is stale.
func (r *replicas) requireStale(t *testing.T) {
	t.Helper()
	for i, keys := range r.keys {
		Eventually(t, askAgain+10*time.Second, func() error {
			result, err := keys.Verify(t.Context(), r.key)
			require.NoError(t, err, "replica %d", i)
			require.Equal(t, auth.Valid, result.Verdict, "replica %d", i)
			if !result.Stale || !result.Cached {
				return fmt.Errorf("replica %d: not stale: %+v", i, result)
			}
			return nil
		})
		assert.NotZero(t, keys.Stats().StaleServed)
		result, err := keys.Verify(t.Context(), "unknown-to-the-replicas")
		assert.ErrorIs(t, err, auth.ErrUnavailable)
		assert.Equal(t, auth.Unavailable, result.Verdict)
	}
}

// requireNormal is after the server was started, with its log from then on.
func (r *replicas) requireNormal(t *testing.T, server *PostgreSQL, from int) {
	t.Helper()
	started := time.Now()
	for i, keys := range r.keys {
		Eventually(t, 10*time.Second, func() error {
			result, err := keys.Verify(t.Context(), r.key)
			require.NoError(t, err, "replica %d", i)
			require.Equal(t, auth.Valid, result.Verdict, "replica %d", i)
			if result.Stale {
				return fmt.Errorf("replica %d: still stale", i)
			}
			return nil
		})
	}
	most := 1 + int(time.Since(started)/askAgain) // it is asked for again when it is that old
	for client, keys := range lookups(server.Log(from)) {
		if strings.HasPrefix(client, "replica-") {
			assert.LessOrEqual(t, keys[digestOf(r.key)], most, client)
		}
	}
}

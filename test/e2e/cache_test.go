package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func cachePath(key string) string { return "/v1/cache/" + url.PathEscape(key) }

// Put stores a value by way of m.
func (m *Member) Put(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	_, err := m.Ask(ctx, http.MethodPut, cachePath(key)+"?ttl="+ttl.String(), value, nil)
	return err
}

// Get reads a value by way of m; ok is false where there is none.
func (m *Member) Get(ctx context.Context, key string) (value []byte, ok bool, err error) {
	status, _, body, err := m.Request(ctx, http.MethodGet, cachePath(key), nil)
	switch {
	case err != nil:
		return nil, false, err
	case status == http.StatusOK:
		return body, true, nil
	case status == http.StatusNotFound:
		return nil, false, nil
	}
	return nil, false, fmt.Errorf("%s: get %q: %d %s", m.Name, key, status, body)
}

// Incr adds to a counter by way of m.
func (m *Member) Incr(ctx context.Context, key string, delta int64) (value int64, err error) {
	var v struct{ Value int64 }
	_, err = m.Ask(ctx, http.MethodPost, cachePath(key)+"/incr", mustJSON(map[string]any{"delta": delta, "ttl": "24h"}), &v)
	return v.Value, err
}

// AwaitKV waits until the members' stores of values know each other.
func (c *Cluster) AwaitKV(timeout time.Duration) {
	c.t.Helper()
	Eventually(c.t, timeout, func() error {
		members := c.Members()
		for _, m := range members {
			ctx, cancel := short()
			var store struct {
				State   string
				Members int
			}
			_, err := m.Ask(ctx, http.MethodGet, "/v1/cache", nil, &store)
			cancel()
			if err == nil && (store.State != "available" || store.Members != len(members)) {
				err = fmt.Errorf("%s: its KV is %s and knows %d members", m.Name, store.State, store.Members)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// What is stored by way of one member is read, replaced and deleted by way of
// the others, also where they have it near.
func TestValuesAreSharedByAllMembers(t *testing.T) {
	t.Parallel()
	cluster := NewCluster(t, 3, MemberOptions{})
	cluster.AwaitKV(10 * time.Second)
	members := cluster.Members()
	ctx, cancel := short()
	defer cancel()
	for i := range 50 {
		key := fmt.Sprintf("shared/%d", i)
		for round, value := range []string{"one", "two"} {
			require.NoError(t, members[(i+round)%3].Put(ctx, key, []byte(value), time.Hour))
			for range 2 {
				for _, m := range members {
					got, ok, err := m.Get(ctx, key)
					require.NoError(t, err)
					assert.True(t, ok, "%s has no %s", m.Name, key)
					assert.Equal(t, value, string(got), m.Name)
				}
			}
		}
		_, err := members[(i+2)%3].Ask(ctx, http.MethodDelete, cachePath(key), nil, nil)
		require.NoError(t, err)
		for _, m := range members {
			_, ok, err := m.Get(ctx, key)
			require.NoError(t, err)
			assert.False(t, ok, "%s still has %s", m.Name, key)
		}
	}
	_, err := members[0].Incr(ctx, "counter", 1)
	require.NoError(t, err)
	status, err := members[1].Ask(ctx, http.MethodPut, cachePath("counter")+"?ttl=1m", []byte("x"), nil)
	assert.Error(t, err)
	assert.Equal(t, http.StatusConflict, status)
	status, _ = members[2].Ask(ctx, http.MethodPost, "/v1/cluster/breakers/kv/reset", nil, nil)
	assert.Equal(t, http.StatusNoContent, status)
}

// A rolling restart of all members keeps every value.
func TestValuesOutliveARollingRestart(t *testing.T) {
	needSoak(t, soakShort)
	for _, pause := range []time.Duration{3 * time.Second, 20 * time.Second}[:soak(t).of(1, 1, 2)] {
		t.Run(pause.String(), func(t *testing.T) { rollWithValues(t, pause) })
	}
}

func rollWithValues(t *testing.T, pause time.Duration) {
	const values = 2000
	cluster := NewCluster(t, 3, MemberOptions{})
	cluster.AwaitKV(10 * time.Second)
	value := func(i int) []byte { return fmt.Appendf(nil, "value %d", i) }
	key := func(i int) string { return fmt.Sprintf("roll:%d", i) }
	members := cluster.Members()
	atOnce(t, values, func(ctx context.Context, i int) error {
		return members[i%3].Put(ctx, key(i), value(i), time.Hour)
	})
	for _, m := range members {
		cluster.Forget(m)
		m.Leave()
		cluster.Add(1)
		time.Sleep(pause) // the pace of the deploy is what is tested
	}
	cluster.AwaitKV(30 * time.Second)
	members = cluster.Members()
	var missing atomic.Int64
	atOnce(t, values, func(ctx context.Context, i int) error {
		got, ok, err := members[i%3].Get(ctx, key(i))
		if err == nil && !ok {
			missing.Add(1)
		}
		if err == nil && ok && !bytes.Equal(got, value(i)) {
			err = fmt.Errorf("%s is %q", key(i), got)
		}
		return err
	})
	t.Logf("%d of %d values are there", values-missing.Load(), values)
	assert.Zero(t, missing.Load())
}

// atOnce does n things, some at a time.
func atOnce(t testing.TB, n int, do func(ctx context.Context, i int) error) {
	t.Helper()
	var next atomic.Int64
	var wait sync.WaitGroup
	for range 16 {
		wait.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				ctx, cancel := short()
				if err := do(ctx, i); err != nil {
					t.Errorf("%d: %v", i, err)
				}
				cancel()
			}
		})
	}
	wait.Wait()
	if t.Failed() {
		t.FailNow()
	}
}

// Increments are counted once each, whoever joins and leaves meanwhile. One may be
// given up, and have been counted or not, where the machine stood still.
func TestCountersAreExactThroughJoinAndLeave(t *testing.T) {
	const callers = 4
	each := soak(t).of(500, 2500, 2500)
	cluster := NewCluster(t, 3, MemberOptions{})
	control := StartControl(t)
	members := cluster.Members()
	total := len(members) * callers * each
	var counted, uncertain atomic.Int64
	var wait sync.WaitGroup
	for _, m := range members {
		for range callers {
			wait.Go(func() {
				for range each {
					ctx, cancel := short()
					began := time.Now()
					_, err := m.Incr(ctx, "exact", 1)
					cancel()
					call := Span{began, time.Now()}
					switch {
					case err == nil:
						counted.Add(1)
					case control.Excuses(call):
						t.Logf("excused: %v", err)
						uncertain.Add(1)
					default:
						t.Error(err)
						uncertain.Add(1)
					}
				}
			})
		}
	}
	awaitCounted := func(n int) {
		Eventually(t, time.Minute, func() error {
			if counted.Load()+uncertain.Load() < int64(n) {
				return errors.New("not counted yet")
			}
			return nil
		})
	}
	awaitCounted(total / 3)
	added := cluster.Add(1)[0]
	awaitCounted(2 * total / 3)
	cluster.Forget(added)
	added.Leave()
	wait.Wait()
	require.Equal(t, int64(total), counted.Load()+uncertain.Load())
	ctx, cancel := short()
	defer cancel()
	for _, m := range members {
		value, err := m.Incr(ctx, "exact", 0)
		require.NoError(t, err)
		assert.GreaterOrEqual(t, value, counted.Load(), m.Name)
		assert.LessOrEqual(t, value, int64(total), m.Name)
	}
}

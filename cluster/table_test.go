package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit/cluster"
	"github.com/peerlimit/peerlimit/cluster/clustertest"
)

func tableNamed(n *cluster.Node, name string) (*tallyTable, error) {
	return cluster.NewTable[tally, spend, bool](n, tallies{}, cluster.TableConfig{Name: name})
}

func TestTableConfigIsChecked(t *testing.T) {
	for name, ok := range map[string]bool{
		"a": true, "rate:limit_v2-x": true, strings.Repeat("x", 64): true,
		"": false, strings.Repeat("x", 65): false, "Upper": false, "with space": false, "new\nline": false, "trailing\n": false, "ümlaut": false,
	} {
		table, err := tableNamed(nil, name)
		if ok {
			require.NoError(t, err, "%q", name)
			require.NoError(t, table.Close())
		} else {
			require.ErrorContains(t, err, "TableConfig.Name", "%q", name)
		}
	}
	_, err := cluster.NewTable[tally, spend, bool](nil, tallies{}, cluster.TableConfig{Name: "a", MaxEntries: -1})
	require.ErrorContains(t, err, "TableConfig.MaxEntries")
}

func TestTableAlone(t *testing.T) {
	now := int64(1)
	table, err := cluster.NewTable[tally, spend, bool](nil, tallies{}, cluster.TableConfig{Name: "alone", Now: func() int64 { return now }})
	require.NoError(t, err)
	ctx := context.Background()
	do := func(key string, limit int64) bool {
		t.Helper()
		ok, err := table.Do(ctx, []byte(key), spend{Limit: limit, Wait: true}) // there is nobody to wait for
		require.NoError(t, err)
		return ok
	}
	require.True(t, do("a:1", 2))
	require.True(t, do("a:1", 2))
	require.False(t, do("a:1", 2))
	require.True(t, do("a:2", 1))
	require.True(t, do("b:1", 1))
	require.True(t, do(strings.Repeat("k", cluster.MaxKey), 1))

	for _, key := range []string{"", strings.Repeat("k", cluster.MaxKey+1)} {
		_, err := table.Do(ctx, []byte(key), spend{Limit: 1})
		require.ErrorContains(t, err, "1 to 4096")
		require.ErrorContains(t, err, fmt.Sprint(len(key)))
	}

	require.Equal(t, 4, table.Len())
	n, err := table.Count(ctx)
	require.NoError(t, err)
	require.Equal(t, 4, n)
	require.Equal(t, cluster.TableStats{Entries: 4, Held: 4}, table.Stats())
	for prefix, want := range map[string][]string{"a:": {"a:1", "a:2"}, "b:": {"b:1"}, "c:": nil} {
		keys, err := table.Keys(ctx, prefix, 10)
		require.NoError(t, err)
		require.Equal(t, want, keys, "%q", prefix)
	}
	keys, err := table.Keys(ctx, "", 3)
	require.NoError(t, err)
	require.Len(t, keys, 3)
	keys, err = table.Keys(ctx, "", 0)
	require.NoError(t, err)
	require.Empty(t, keys)
	seen := map[string]int64{}
	table.Range(func(key string, s tally) bool { seen[key] = s.N; return len(seen) < 4 })
	require.EqualValues(t, 2, seen["a:1"])

	now += int64(time.Hour) // they expire
	require.Zero(t, table.Len())
	require.True(t, do("a:1", 1))
	require.NoError(t, table.Close())
	require.NoError(t, table.Close())
}

func TestTableAloneKeepsToItsCap(t *testing.T) {
	now := int64(1)
	table, err := cluster.NewTable[tally, spend, bool](nil, tallies{}, cluster.TableConfig{Name: "cap", MaxEntries: 10_000, Now: func() int64 { return now }})
	require.NoError(t, err)
	for i := range 40_000 {
		now += int64(time.Millisecond)
		_, err := table.Do(context.Background(), fmt.Append(nil, i), spend{Limit: 1})
		require.NoError(t, err)
	}
	s := table.Stats()
	require.InDelta(t, 10_000, s.Entries, 4000, "about the cap")
	require.EqualValues(t, 40_000-s.Entries, s.EvictedLive)
	// The soonest to expire have gone: the latest are all there.
	latest := map[string]bool{}
	table.Range(func(key string, _ tally) bool { latest[key] = true; return true })
	for i := 35_000; i < 40_000; i++ {
		require.True(t, latest[fmt.Sprint(i)], "%d", i)
	}
}

func TestNamesOnANode(t *testing.T) {
	c := clustertest.Start(t, 1)
	first, err := tableNamed(c.Nodes[0], "one")
	require.NoError(t, err)
	_, err = tableNamed(c.Nodes[0], "one")
	require.ErrorContains(t, err, `"one"`)
	_, err = cluster.NewTable[tally, spend, bool](c.Nodes[0], tallies{}, cluster.TableConfig{Name: "now", Now: func() int64 { return 1 }})
	require.ErrorContains(t, err, "TableConfig.Now")
	second, err := tableNamed(c.Nodes[0], "two")
	require.NoError(t, err)
	for _, table := range []*tallyTable{first, second} { // nothing is shared
		ok, err := table.Do(context.Background(), []byte("key"), spend{Limit: 1})
		require.NoError(t, err)
		require.True(t, ok)
	}
	require.NoError(t, first.Close())
	require.NoError(t, first.Close())
	_, err = tableNamed(c.Nodes[0], "one")
	require.NoError(t, err, "the name is free again")
}

func TestTwoTablesOverMembers(t *testing.T) {
	c := clustertest.Start(t, 3)
	ctx := context.Background()
	var tables [2][]*tallyTable
	for _, n := range c.Nodes {
		for i, name := range []string{"first", "second"} {
			table, err := tableNamed(n, name)
			require.NoError(t, err)
			tables[i] = append(tables[i], table)
		}
	}
	const keys = 60
	for i, limit := range []int64{3, 5} {
		for k := range keys {
			allowed := int64(0)
			for n := range 2 * limit {
				ok, err := tables[i][int(n)%3].Do(ctx, fmt.Appendf(nil, "key:%d", k), spend{Limit: limit})
				require.NoError(t, err)
				if ok {
					allowed++
				}
			}
			require.Equal(t, limit, allowed)
		}
	}
	for _, table := range tables[0] {
		_, err := table.Do(ctx, []byte("other:1"), spend{Limit: 100})
		require.NoError(t, err)
		n, err := table.Count(ctx)
		require.NoError(t, err)
		require.Equal(t, keys+1, n)
		found, err := table.Keys(ctx, "key:", 1000)
		require.NoError(t, err)
		require.Len(t, found, keys)
		require.IsIncreasing(t, found)
		found, err = table.Keys(ctx, "key:", 7)
		require.NoError(t, err)
		require.Len(t, found, 7)
		found, err = table.Keys(ctx, "none", 7)
		require.NoError(t, err)
		require.Empty(t, found)
	}
	held := 0
	for _, table := range tables[1] {
		held += table.Stats().Held
		require.Equal(t, table.Stats().Held, table.Len())
	}
	require.Equal(t, keys, held, "each key is held by one")

	// Who is gone is missed, and named.
	c.Kill(c.Nodes[2])
	n, err := tables[0][0].Count(ctx)
	if err != nil {
		require.ErrorContains(t, err, "node-2")
		require.LessOrEqual(t, n, keys+1, "its backup may have answered for it meanwhile")
	}
}

// spendEvery spends a number of permits of each key.
func spendEvery(t *testing.T, table *tallyTable, keys, times int, limit int64) (allowed int) {
	t.Helper()
	for k := range keys {
		for range times {
			ok, err := table.Do(context.Background(), fmt.Appendf(nil, "key:%d", k), spend{Limit: limit})
			require.NoError(t, err)
			if ok {
				allowed++
			}
		}
	}
	return allowed
}

// A member that never makes the table keeps what it is handed as it came, and
// passes it on; one that makes it later finds it there.
func TestATableThatAMemberDoesNotHave(t *testing.T) {
	t.Parallel()
	c := clustertest.Start(t, 2)
	const keys, limit = 200, 10
	var tables []*tallyTable
	for _, n := range c.Nodes {
		tables = append(tables, newTally(t, n))
	}
	require.Equal(t, keys*4, spendEvery(t, tables[0], keys, 4, limit))
	held := func() int { return tables[0].Stats().Held + tables[1].Stats().Held }
	require.Equal(t, keys, held())

	without := c.Add() // which does not make the table
	require.Eventually(t, func() bool { return held() < keys*9/10 }, 10*time.Second, 5*time.Millisecond, "it is handed a part of the slots")
	var elsewhere []byte
	here := map[string]bool{}
	require.Eventually(t, func() bool {
		now := held()
		time.Sleep(100 * time.Millisecond)
		return now == held()
	}, 10*time.Second, time.Millisecond, "the moves end")
	for _, table := range tables {
		table.Range(func(key string, _ tally) bool { here[key] = true; return true })
	}
	for k := range keys {
		if key := fmt.Sprintf("key:%d", k); !here[key] {
			elsewhere = []byte(key)
			break
		}
	}
	require.NotNil(t, elsewhere)

	// Nobody can run operations on what it holds. They end in time, or with
	// their context.
	start := time.Now()
	_, err := tables[0].Do(context.Background(), elsewhere, spend{Limit: limit})
	require.ErrorIs(t, err, cluster.ErrUnavailable)
	require.Less(t, time.Since(start), cluster.Slowness*500*time.Millisecond)
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(20*time.Millisecond, cancel)
	start = time.Now()
	_, err = tables[0].Do(ctx, elsewhere, spend{Limit: limit})
	require.ErrorIs(t, err, context.Canceled)
	require.Less(t, time.Since(start), 200*time.Millisecond)
	ctx, cancel = context.WithTimeout(context.Background(), 30*time.Millisecond)
	start = time.Now()
	_, err = tables[0].Do(ctx, elsewhere, spend{Limit: limit})
	cancel()
	require.True(t, errors.Is(err, context.DeadlineExceeded) || errors.Is(err, cluster.ErrUnavailable), "%v", err)
	require.Less(t, time.Since(start), 200*time.Millisecond)

	// It leaves, and all is as it was.
	c.Close(without)
	require.Equal(t, keys, held())
	require.Equal(t, keys*2, spendEvery(t, tables[1], keys, 2, limit))

	// The others leave, so that everything is with one that has not made the
	// table; then it does.
	last := c.Add()
	c.Close(c.Nodes[0])
	c.Close(c.Nodes[1])
	late := newTally(t, last)
	require.Equal(t, keys, late.Len())
	require.Equal(t, keys*(limit-6), spendEvery(t, late, keys, limit, limit))
}

// An operation of a caller that has given up is not waited for, and the table
// serves on.
func TestCancelledCallers(t *testing.T) {
	c := clustertest.Start(t, 2)
	tables := []*tallyTable{newTally(t, c.Nodes[0]), newTally(t, c.Nodes[1])}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	var cancelled atomic.Int64
	for k := range 200 {
		key := fmt.Appendf(nil, "key:%d", k)
		_, err := tables[0].Do(ctx, key, spend{Limit: 100})
		if err != nil {
			require.ErrorIs(t, err, context.Canceled)
			cancelled.Add(1)
		}
		ok, err := tables[0].Do(context.Background(), key, spend{Limit: 100})
		require.NoError(t, err)
		require.True(t, ok)
	}
	t.Logf("%d of 200 ended early", cancelled.Load())
}

func ExampleTable() {
	// A limiter of a window that ends an hour after its first hit. In a
	// cluster the node comes first; nil is this process alone.
	table, err := cluster.NewTable[tally, spend, bool](nil, tallies{}, cluster.TableConfig{Name: "logins"})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer table.Close()
	ctx := context.Background()
	for range 3 {
		allowed, err := table.Do(ctx, []byte("user:7"), spend{Limit: 2})
		fmt.Println(allowed, err)
	}
	fmt.Println(table.Len())
	_, err = table.Do(ctx, nil, spend{Limit: 2})
	fmt.Println(err)
	// Output:
	// true <nil>
	// true <nil>
	// false <nil>
	// 1
	// cluster: key has 0 bytes: want 1 to 4096
}

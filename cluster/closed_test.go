package cluster_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit/cluster"
	"github.com/peerlimit/peerlimit/cluster/clustertest"
)

// Nobody tells operations that their time is up once a member is closed; they
// must find out by themselves.
func TestDoAfterClose(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(c *clustertest.Cluster, n *cluster.Node){
		"closed": (*clustertest.Cluster).Close, "killed": (*clustertest.Cluster).Kill,
	} {
		t.Run(name, func(t *testing.T) {
			c := clustertest.Start(t, 3)
			var tables []*tallyTable
			for _, n := range c.Nodes {
				tables = append(tables, newTally(t, n))
			}
			for _, at := range []int{0, 2} {
				for k := range 60 { // it has learned who holds what
					_, err := tables[at].Do(context.Background(), fmt.Appendf(nil, "key:%d", k), spend{Limit: 1000})
					require.NoError(t, err)
				}
			}
			end(c, c.Nodes[2])
			for k := range 60 {
				done := make(chan error, 1)
				ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second) // so that the test ends
				go func() {
					_, err := tables[2].Do(ctx, fmt.Appendf(nil, "key:%d", k), spend{Limit: 1000})
					done <- err
				}()
				select {
				case err := <-done:
					require.ErrorIs(t, err, cluster.ErrClosed)
				case <-time.After(2 * time.Second):
					cancel()
					<-done
					t.Fatalf("key:%d: not answered after 2 s", k)
				}
				cancel()
			}
		})
	}
}

func TestClosedTable(t *testing.T) {
	for _, n := range []*cluster.Node{nil, clustertest.Start(t, 1).Nodes[0]} {
		table := newTally(t, n)
		require.NoError(t, table.Close())
		_, err := table.Do(context.Background(), []byte("key"), spend{Limit: 1})
		require.ErrorIs(t, err, cluster.ErrClosed)
	}
}

func TestKeysNegativeLimit(t *testing.T) {
	keys, err := newTally(t, nil).Keys(context.Background(), "", -1)
	require.NoError(t, err)
	require.Empty(t, keys)
}

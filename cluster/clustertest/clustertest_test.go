package clustertest_test

import (
	"context"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit/cluster"
	"github.com/peerlimit/peerlimit/cluster/clustertest"
)

func TestMembersComeAndGo(t *testing.T) {
	c := clustertest.Start(t, 3, func(i int, cfg *cluster.Config) {
		if i == 2 {
			cfg.Zone = "z"
		}
	})
	require.Len(t, c.Nodes, 3)
	assert.Equal(t, "z", c.Nodes[2].Self().Zone)
	added := c.Add()
	assert.Equal(t, "node-3", added.Self().Name)
	assert.Len(t, c.Nodes[0].Members(), 4)

	c.Kill(c.Nodes[1])
	c.AwaitAll()
	assert.Len(t, added.Members(), 3)
	assert.ErrorIs(t, c.Nodes[1].Ready(), cluster.ErrClosed)

	c.Close(c.Nodes[0])
	assert.Len(t, added.Members(), 2)

	var got atomic.Int32
	for _, n := range c.Nodes[2:] {
		n.Handle("ping", func(context.Context, cluster.Member, []byte) ([]byte, error) { got.Add(1); return nil, nil })
	}
	assert.True(t, added.Broadcast(context.Background(), "ping", nil).Complete())
	assert.EqualValues(t, 2, got.Load())
}

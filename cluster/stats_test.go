package cluster_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit/cluster"
	"github.com/peerlimit/peerlimit/cluster/clustertest"
)

func TestStatsTellWhatIsUnprotected(t *testing.T) {
	t.Parallel()
	c := clustertest.Start(t, 1)
	alone := c.Nodes[0]
	table := newTally(t, alone)
	for k := range 50 {
		_, err := table.Do(context.Background(), fmt.Appendf(nil, "key:%d", k), spend{Limit: 10})
		require.NoError(t, err)
	}
	s := alone.Stats()
	assert.Equal(t, 1, s.Members)
	assert.Equal(t, 50, s.UnprotectedEntries, "nobody else is there")
	assert.Equal(t, s.Slots, s.Unprotected)
	assert.Zero(t, s.ReplicationLag)
	assert.Equal(t, map[string]cluster.BreakerStats{"kv": {State: "closed"}}, s.Breakers)
	assert.Contains(t, s.FramesRejected, "secret")

	newTally(t, c.Add())
	require.Eventually(t, func() bool {
		s := alone.Stats()
		return s.Members == 2 && s.UnprotectedEntries == 0 && s.Moves > 0 && s.Slots > 0 && s.Slots < 16384
	}, 20*time.Second, 10*time.Millisecond, "it has a backup now")
	s, other := alone.Stats(), c.Nodes[1].Stats()
	assert.Equal(t, s.RingVersion, other.RingVersion)
	assert.Equal(t, 16384, s.Slots+other.Slots)
	assert.Less(t, s.ReplicationLag, time.Second)
	assert.Equal(t, cluster.BreakerStats{State: "closed"}, s.Breakers["node-1"])
}

package e2e

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A load that goes on for a while, with nothing happening: the measure for the
// tests in which something does.
func TestConstantLoadInQuiet(t *testing.T) {
	needSoak(t, soakShort)
	length := time.Duration(soak(t).of(0, 10, 60)) * time.Second
	const limit = 5_000
	cluster := NewCluster(t, 3, MemberOptions{})
	control := StartControl(t)
	load := StartLoad(t, cluster.Members(), LoadOptions{Pause: 2 * time.Millisecond, Body: func(uint64) []byte {
		return Check{Key: "quiet", Limit: limit, Period: "24h", Algorithm: "fixed-window"}.Body()
	}})
	<-time.After(length) // the load is what is waited for
	report := load.Stop()
	report.Require(t, control)
	counts := report.Counts()
	require.Greater(t, counts.Sent, int64(limit), "the load was too light")
	assert.Equal(t, int64(limit), counts.Allowed)
}

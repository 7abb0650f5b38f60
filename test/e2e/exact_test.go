package e2e

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Three processes, one key, three times the limit from all of them at once:
// exactly the limit is allowed.
func TestLimitIsExactOverThreeMembers(t *testing.T) {
	level := soak(t)
	runs, limit := level.of(1, 2, 10), int64(level.of(2_000, 10_000, 10_000))
	cluster := NewCluster(t, 3, MemberOptions{})
	control := StartControl(t)
	for run := range runs {
		t.Run(fmt.Sprintf("fixed window %d", run+1), func(t *testing.T) {
			counts, _ := burstUndisturbed(t, cluster, control, int(3*limit),
				Check{Key: fmt.Sprintf("window:%d", run), Limit: limit, Period: "24h", Algorithm: "fixed-window"})
			assert.Equal(t, limit, counts.Allowed)
			assert.Equal(t, 2*limit, counts.Denied)
			assert.Zero(t, counts.Degraded)
		})
		t.Run(fmt.Sprintf("token bucket %d", run+1), func(t *testing.T) {
			counts, took := burstUndisturbed(t, cluster, control, int(3*limit),
				Check{Key: fmt.Sprintf("bucket:%d", run), Limit: limit, Period: "24h"})
			// What comes back while it runs, in whole permits.
			refill := int64(math.Floor(took.Seconds() * float64(limit) / (24 * time.Hour).Seconds()))
			t.Logf("of which the refill may be %d", refill)
			assert.GreaterOrEqual(t, counts.Allowed, limit)
			assert.LessOrEqual(t, counts.Allowed, limit+refill)
			assert.Equal(t, counts.Sent, counts.Allowed+counts.Denied)
			assert.Zero(t, counts.Degraded)
		})
	}
}

// burstUndisturbed sends a burst, and sends it again with another key where
// decisions were degraded while the machine was stalled: a process that gets no
// processor for 150 ms counts as dead, and that is not what is tested here.
func burstUndisturbed(t *testing.T, cluster *Cluster, control *Control, total int, check Check) (Counts, time.Duration) {
	t.Helper()
	key := check.Key
	for try := 1; ; try++ {
		check.Key = fmt.Sprintf("%s:%d", key, try)
		start := time.Now()
		counts, took, err := Burst(cluster.Members(), 64, total, check.Body())
		t.Logf("%v in %s, %.0f/s", counts, took.Round(time.Millisecond), float64(counts.Sent)/took.Seconds())
		require.NoError(t, err)
		if counts.Degraded == 0 || try == 5 || !control.Excuses(Span{start, time.Now()}) {
			return counts, took
		}
		t.Logf("the machine was stalled: once more (%s)", control.Summary())
	}
}

// Many keys from three members: each by itself is exact too.
func TestEachOfManyKeysIsExact(t *testing.T) {
	t.Parallel()
	const keys, limit, asked = 60, 10, 25
	cluster := NewCluster(t, 3, MemberOptions{})
	load := StartLoad(t, nil, LoadOptions{Callers: 8, Body: func(n uint64) []byte {
		return Check{Key: fmt.Sprintf("many:%d", n%keys), Limit: limit, Period: "24h", Algorithm: "fixed-window"}.Body()
	}})
	for _, m := range cluster.Members() {
		load.Add(m)
	}
	load.AwaitEnded(keys * asked)
	report := load.Stop()
	require.Empty(t, report.Failures())
	assert.Equal(t, int64(keys*limit), report.Counts().Allowed)

	for _, m := range cluster.Members() {
		ctx, cancel := short()
		n, err := m.Keys(ctx)
		cancel()
		require.NoError(t, err)
		assert.Equal(t, keys, n, "as %s counts them", m.Name)
	}
}

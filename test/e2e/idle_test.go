package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

// A member that nobody asks anything is small, and says little, while two
// others join and leave. No other test runs beside it: a collector that gets no
// processor lets memory grow.
func TestAnIdleMemberIsSmallAndQuiet(t *testing.T) {
	needSoak(t, soakShort)
	cluster := NewCluster(t, 1, MemberOptions{Args: []string{"--log-level=info"}})
	m := cluster.Members()[0]
	cluster.Add(2)
	cluster.AwaitOneRing(startTimeout)
	time.Sleep(4 * time.Second) // for what starting took to be collected
	rss := rssOf(t, m)
	m.Leave()
	lines := strings.Count(m.Log(), "\n")
	t.Logf("%d KiB resident, %d lines of log", rss, lines)
	if rss == 0 {
		t.Log("resident memory is not to be had on this system")
	}
	assert.LessOrEqual(t, rss, 64<<10, "KiB resident")
	assert.LessOrEqual(t, lines, 60, "lines at level info from its start to its end:\n%s", m.Log())
}

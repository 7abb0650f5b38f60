package e2e

import (
	"context"
	"net/http"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// SIGTERM and SIGINT let a member leave: exit code 0, and the others know.
func TestSignalsLetAMemberLeave(t *testing.T) {
	t.Parallel()
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(signal.String(), func(t *testing.T) {
			cluster := NewCluster(t, 3, MemberOptions{})
			leaver := cluster.Members()[2]
			start := time.Now()
			leaver.Signal(signal)
			leaver.AwaitExit(20 * time.Second)
			t.Logf("left after %s", time.Since(start).Round(time.Millisecond))
			assert.Equal(t, 0, leaver.ExitCode())
			cluster.Forget(leaver)
			cluster.AwaitOneRing(10 * time.Second)
			cluster.Members()[0].AwaitLog(5*time.Second, "member left", "member="+leaver.Name)
		})
	}
}

// While a member leaves, /readyz says no and what is asked is still answered; a
// second signal does not wait for that.
func TestSecondSignalStopsAtOnce(t *testing.T) {
	m := StartMember(t, MemberOptions{Name: "m1", Cluster: "stop", Args: []string{"--drain-delay=1m"}})
	m.Signal(syscall.SIGTERM)
	Eventually(t, 5*time.Second, func() error {
		if err := m.Ready(); err == nil {
			return assert.AnError
		}
		return nil
	})
	ctx, cancel := short()
	defer cancel()
	d, err := m.Check(ctx, Check{Key: "k", Limit: 1, Period: "24h"}.Body())
	require.NoError(t, err)
	assert.True(t, d.Allowed)
	assert.True(t, m.Alive())

	start := time.Now()
	m.Signal(syscall.SIGTERM)
	m.AwaitExit(5 * time.Second)
	assert.Less(t, time.Since(start), 2*time.Second)
}

// A member that waits for its seeds can be stopped, and tells probes that it is
// alive and not ready.
func TestStoppingWhileStarting(t *testing.T) {
	cluster := NewCluster(t, 1, MemberOptions{Cluster: "shop", Args: []string{"--secret-file=" + secretFile(t, oneSecret)}})
	port := freePorts(t, 1)[0]
	m := LaunchMember(t, MemberOptions{Name: "m2", Cluster: "shop", Join: cluster.Seeds(),
		Args: []string{"--http=127.0.0.1:" + port, "--secret-file=" + secretFile(t, anotherSecret)}})
	m.HTTP = "127.0.0.1:" + port
	Eventually(t, startTimeout, func() error {
		_, err := m.Ask(context.Background(), http.MethodGet, "/healthz", nil, nil)
		return err
	})
	assert.Error(t, m.Ready())
	status, _, body, err := m.Request(context.Background(), http.MethodPost, "/v1/ratelimit/check",
		Check{Key: "k", Limit: 1, Period: "24h"}.Body())
	require.NoError(t, err)
	assert.Equal(t, http.StatusServiceUnavailable, status, "%s", body)
	m.Leave()
}

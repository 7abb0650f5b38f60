package e2e

import (
	"context"
	"io"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// What the other tests stand on is tested here.

func TestNetworkPartitionsWithoutAWord(t *testing.T) {
	network := NewNetwork(t, 3)
	a, b, c := network.Hosts[0], network.Hosts[1], network.Hosts[2]

	receiver := listenOn(t, b)
	reaches := func(from, to *Host) bool {
		ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
		defer cancel()
		conn, err := from.Dial(ctx, "tcp", net.JoinHostPort(to.Addr, receiver))
		if err != nil {
			var timeout net.Error
			require.ErrorAs(t, err, &timeout)
			require.True(t, timeout.Timeout(), "an error that a cut cable does not cause: %v", err)
			return false
		}
		return assert.NoError(t, conn.Close())
	}
	require.True(t, reaches(a, b), "before the partition")
	require.True(t, reaches(c, b))

	network.Partition([]*Host{a, b})
	assert.True(t, reaches(a, b), "on one side")
	assert.False(t, reaches(c, b), "from the other side")

	network.Heal()
	Eventually(t, 5*time.Second, func() error {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		conn, err := c.Dial(ctx, "tcp", net.JoinHostPort(b.Addr, receiver))
		if err == nil {
			return conn.Close()
		}
		return err
	})
}

// listenOn accepts connections on a host and returns the port: a process there,
// for a socket of this one would need a goroutine in the namespace.
func listenOn(t *testing.T, h *Host) (port string) {
	t.Helper()
	m := h.Command(testBinary(t))
	m.Env = append(m.Environ(), echoVariable+"="+h.Addr)
	stdout, err := m.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, processes.start(m))
	t.Cleanup(func() {
		_ = m.Process.Kill()
		_ = processes.wait(m)
	})
	line := make([]byte, 64)
	n, err := stdout.Read(line)
	require.NoError(t, err)
	_, port, err = net.SplitHostPort(string(line[:n]))
	require.NoError(t, err)
	return port
}

func TestControlSeesAStall(t *testing.T) {
	control := StartControl(t)
	before := time.Now()
	Eventually(t, 10*time.Second, func() error {
		if control.Asked() < 10 {
			return io.ErrNoProgress
		}
		return nil
	})
	// Nothing but a stalled echo process can be told from a stalled machine.
	control.stallEcho(t, 120*time.Millisecond)
	assert.True(t, control.Excuses(Span{before, time.Now()}), control.Summary())
	assert.False(t, control.Excuses(Span{before.Add(-time.Hour), before.Add(-time.Minute)}))
}

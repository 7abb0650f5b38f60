package e2e

import (
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// From another host a member can be reached at the documented ports and nowhere
// else: what its kernel lists for its network namespace, in which nothing but it
// runs. (What strangers get there: see attack_test.go and strangers_test.go.)
func TestOnlyDocumentedPortsAreOpen(t *testing.T) {
	t.Parallel()
	network := NewNetwork(t, 2)
	secret := secretFile(t, oneSecret)
	cluster := NewCluster(t, 0, MemberOptions{Args: []string{"--secret-file=" + secret}})
	for _, host := range network.Hosts {
		o := cluster.Options()
		o.Host = host
		cluster.Launch(o).AwaitReady()
	}
	cluster.AwaitOneRing(startTimeout)
	for _, m := range cluster.Members() {
		want := []string{"tcp " + m.Gossip, "tcp " + m.KV, "tcp " + m.Peer, "udp " + m.Gossip, "udp " + m.KV}
		slices.Sort(want)
		assert.Equal(t, want, openPorts(t, m), "ports of %s that can be reached from elsewhere", m.Name)
	}
}

// openPorts returns where m's network namespace accepts connections and packets,
// loopback left out, in order.
func openPorts(t testing.TB, m *Member) (open []string) {
	t.Helper()
	const listening, unconnected = "0A", "07" // TCP_LISTEN, and what a UDP socket is that has no peer
	for _, table := range []struct{ file, protocol, state string }{
		{"tcp", "tcp", listening}, {"tcp6", "tcp", listening}, {"udp", "udp", unconnected}, {"udp6", "udp", unconnected},
	} {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", m.PID(), table.file))
		if os.IsNotExist(err) {
			continue // without IPv6
		}
		require.NoError(t, err)
		for line := range strings.Lines(string(text)) {
			fields := strings.Fields(line)
			if len(fields) < 4 || fields[3] != table.state {
				continue
			}
			addr, port := procAddress(t, fields[1])
			if !addr.IsLoopback() {
				open = append(open, table.protocol+" "+net.JoinHostPort(addr.String(), port))
			}
		}
	}
	slices.Sort(open)
	return open
}

// procAddress reads an address of /proc/net: 32-bit words in the machine's order
// (here little-endian), a colon, the port; all in hexadecimal. See proc_net(5).
func procAddress(t testing.TB, text string) (net.IP, string) {
	t.Helper()
	host, portHex, found := strings.Cut(text, ":")
	require.True(t, found, text)
	ip, err := hex.DecodeString(host)
	require.NoError(t, err)
	for word := range slices.Chunk(ip, 4) {
		slices.Reverse(word)
	}
	port, err := strconv.ParseUint(portHex, 16, 16)
	require.NoError(t, err)
	return net.IP(ip), strconv.FormatUint(port, 10)
}

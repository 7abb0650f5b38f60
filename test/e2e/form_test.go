package e2e

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Five members that are started at the same time, each knowing the addresses of
// all, end in one cluster.
func TestFiveAtOnceFormOneCluster(t *testing.T) {
	for run := range soak(t).of(2, 20, 20) {
		t.Run(fmt.Sprint(run+1), func(t *testing.T) {
			ports := freePorts(t, 5)
			var seeds []string
			for _, port := range ports {
				seeds = append(seeds, "127.0.0.1:"+port)
			}
			cluster := NewCluster(t, 0, MemberOptions{Join: seeds})
			start := time.Now()
			for i := range ports {
				o := cluster.Options()
				o.Args = append(o.Args, "--bind="+seeds[i])
				cluster.Launch(o)
			}
			for _, m := range cluster.Members() {
				m.AwaitReady()
			}
			cluster.AwaitOneRing(startTimeout)
			took := time.Since(start)
			t.Logf("one cluster after %s", took.Round(time.Millisecond))
			assert.Less(t, took, 15*time.Second, "5 s are promised, on a machine that does nothing else")
		})
	}
}

// freePorts returns ports that were free a moment ago, for UDP and TCP. They are
// below those that the system gives to who asks for any, as other tests do.
func freePorts(t testing.TB, n int) (ports []string) {
	t.Helper()
	for len(ports) < n {
		port := fmt.Sprint(10_000 + rand.IntN(20_000))
		if slices.Contains(ports, port) {
			continue
		}
		tcp, err := net.Listen("tcp", "127.0.0.1:"+port)
		if err != nil {
			continue
		}
		tcp.Close()
		udp, err := net.ListenPacket("udp", "127.0.0.1:"+port)
		if err != nil {
			continue
		}
		udp.Close()
		ports = append(ports, port)
	}
	return ports
}

func secretFile(t testing.TB, lines ...string) (path string) {
	t.Helper()
	for _, secret := range lines {
		secrets.add(secret)
	}
	path = filepath.Join(t.TempDir(), "secrets")
	require.NoError(t, os.WriteFile(path, []byte(strings.Join(lines, "\n")+"\n"), 0o600))
	return path
}

const (
	oneSecret     = "8f1c4a0d6be7352990ab13cd57ef2468aa00bb11"
	anotherSecret = "00112233445566778899aabbccddeeff01234567"
)

// A member with another secret, without one, or of another cluster stays out,
// and the seed's log says why.
func TestStrangersDoNotJoin(t *testing.T) {
	t.Parallel()
	cluster := NewCluster(t, 2, MemberOptions{
		Cluster: "shop", Args: []string{"--secret-file=" + secretFile(t, oneSecret)}})
	seed := cluster.Members()[0]
	for _, c := range []struct {
		name    string
		options MemberOptions
		says    []string // a line of the seed's log
	}{
		{"another secret", MemberOptions{Cluster: "shop", Args: []string{"--secret-file=" + secretFile(t, anotherSecret)}}, []string{"secret"}},
		{"no secret", MemberOptions{Cluster: "shop"}, []string{"secret"}},
		{"another cluster", MemberOptions{Cluster: "mall", Args: []string{"--secret-file=" + secretFile(t, oneSecret)}}, []string{"cluster"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := len(seed.Log())
			o := c.options
			o.Name, o.Join = "stranger", cluster.Seeds()
			stranger := LaunchMember(t, o)
			Eventually(t, startTimeout, func() error {
				if _, found := findLine(seed.Log()[before:], append(c.says, "WARN")); !found {
					return fmt.Errorf("the seed's log has no warning with %q", c.says)
				}
				return nil
			})
			require.NoError(t, cluster.OneRing(), "the cluster is what it was")
			stranger.Kill()
		})
	}
}

// A secret is rotated by adding the new one on every member first.
func TestMembersWithASecretInCommonJoin(t *testing.T) {
	t.Parallel()
	cluster := NewCluster(t, 1, MemberOptions{
		Cluster: "shop", Args: []string{"--secret-file=" + secretFile(t, oneSecret, anotherSecret)}})
	o := cluster.Options()
	o.Args = []string{"--secret-file=" + secretFile(t, anotherSecret, oneSecret)}
	cluster.Launch(o).AwaitReady()
	cluster.AwaitOneRing(startTimeout)
	counts, _, err := Burst(cluster.Members(), 4, 200, Check{Key: "k", Limit: 50, Period: "24h"}.Body())
	require.NoError(t, err)
	assert.Equal(t, int64(50), counts.Allowed)
}

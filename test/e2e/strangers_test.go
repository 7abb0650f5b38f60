package e2e

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Whatever strangers send to the port between members, the member stays
// healthy, and what was refused is counted by its reason.
func TestStrangersOnThePeerPort(t *testing.T) {
	t.Parallel()
	cluster := NewCluster(t, 2, MemberOptions{})
	m := cluster.Members()[0]
	load := StartLoad(t, cluster.Members(), LoadOptions{Callers: 2, Pause: time.Millisecond, Body: func(uint64) []byte {
		return Check{Key: "k", Limit: 1_000_000, Period: "24h"}.Body()
	}})

	random := make([]byte, 4096)
	_, _ = rand.Read(random)
	own := clusterHash(cluster.name)
	for _, c := range []struct {
		name, reason string
		send         []byte
	}{
		{"random bytes", "length", append([]byte{0xff}, random...)},
		{"HTTP", "length", []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n")},
		{"Redis", "length", []byte("*9000000000000000000\r\n")},
		{"half a frame", "truncated", hello(0x0101, helloMagic, own)[:20]},
		{"a frame that is no hello", "magic", hello(0x0101, 7, own)},
		{"another cluster", "cluster", hello(0x0101, helloMagic, own+1)},
		{"a wrong version", "version", hello(0x6363, helloMagic, own)},
		{"an empty frame", "length", []byte{0, 0, 0, 0}},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := m.refused(t)[c.reason]
			for range 20 {
				knock(t, m.Peer, c.send)
			}
			Eventually(t, 10*time.Second, func() error {
				if n := m.refused(t)[c.reason] - before; n < 20 {
					return fmt.Errorf("%d of 20 were counted under %q: %v", n, c.reason, m.refused(t))
				}
				return nil
			})
		})
	}

	t.Run("slow-loris", func(t *testing.T) {
		before := m.refused(t)["timeout"]
		var wait sync.WaitGroup
		for range 50 {
			wait.Go(func() {
				conn, err := net.Dial("tcp", m.Peer)
				if !assert.NoError(t, err) {
					return
				}
				defer conn.Close()
				for _, b := range hello(0x0101, helloMagic, own) { // never the whole
					if _, err := conn.Write([]byte{b}); err != nil {
						return
					}
					_ = conn.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
					if _, err := conn.Read(make([]byte, 1)); err == io.EOF {
						return
					}
				}
				t.Error("the connection was not closed")
			})
		}
		wait.Wait()
		Eventually(t, 10*time.Second, func() error {
			if n := m.refused(t)["timeout"] - before; n < 50 {
				return fmt.Errorf("%d of 50 were counted", n)
			}
			return nil
		})
	})

	report := load.Stop()
	counts := report.Counts()
	t.Logf("meanwhile: %v, the slowest %v", counts, report.Slowest())
	assert.Zero(t, counts.Errors)
	assert.Zero(t, counts.Denied)
	require.NoError(t, cluster.OneRing())
	require.NoError(t, m.Ready())
}

const helloMagic = 0x7065_6572_6c69_6d74 // "peerlimt"

// hello is the first frame of who dials a peer port, as on the wire: length,
// type, versions (the oldest and the newest that it speaks), magic, the boot ID
// that is meant, the cluster, the own boot ID, the lane.
func hello(versions uint16, magic, cluster uint64) []byte {
	b := binary.BigEndian.AppendUint32(nil, 37)
	b = append(b, 1, byte(versions))
	b = binary.BigEndian.AppendUint16(b, versions)
	b = binary.BigEndian.AppendUint64(b, magic)
	b = binary.BigEndian.AppendUint64(b, 0)
	b = binary.BigEndian.AppendUint64(b, cluster)
	b = binary.BigEndian.AppendUint64(b, 9)
	return append(b, 0)
}

// clusterHash is how a hello names the cluster.
func clusterHash(name string) uint64 {
	sum := sha256.Sum256([]byte("peerlimit cluster\x00" + name))
	return binary.BigEndian.Uint64(sum[:])
}

// knock sends bytes to a port and waits until the other side has hung up.
func knock(t testing.TB, address string, bytes []byte) {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	require.NoError(t, err)
	defer conn.Close()
	_, _ = conn.Write(bytes) // it may be hung up while there is more to send
	_ = conn.(*net.TCPConn).CloseWrite()
	_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	_, err = io.Copy(io.Discard, conn)
	if err, ok := err.(net.Error); ok && err.Timeout() {
		t.Errorf("the connection was not closed after %d bytes", len(bytes))
	}
}

// refused is how many frames and connections the member has refused, by reason.
func (m *Member) refused(t testing.TB) map[string]uint64 {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	view, err := m.View(ctx)
	require.NoError(t, err)
	require.NotNil(t, view.FramesRejected, "GET /v1/cluster shows no frames_rejected")
	return view.FramesRejected
}

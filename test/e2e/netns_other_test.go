//go:build !linux

package e2e

import (
	"context"
	"errors"
	"net"
	"os/exec"
	"testing"
)

// Network needs Linux; see netns_linux_test.go.
type Network struct{ Hosts []*Host }

// Host needs Linux.
type Host struct{ Addr string }

// NewNetwork skips the test.
func NewNetwork(t testing.TB, _ int) *Network {
	t.Skip("network namespaces need Linux")
	return nil
}

// Partition is never reached.
func (*Network) Partition(...[]*Host) {}

// Heal is never reached.
func (*Network) Heal() {}

// Command is never reached.
func (*Host) Command(name string, args ...string) *exec.Cmd { return exec.Command(name, args...) }

// Dial is never reached.
func (*Host) Dial(context.Context, string, string) (net.Conn, error) {
	return nil, errors.ErrUnsupported
}

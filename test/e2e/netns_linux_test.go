package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// Network is a network of its own for members: each on a host that is a network
// namespace, all hosts on a bridge that is in a namespace too. Nothing of it
// can be seen from the machine's own network.
//
// A partition moves hosts to bridges of their own, so that packets are lost
// without a word, as when a cable is cut: no connection is refused or reset.
type Network struct {
	t       testing.TB
	hub     string // the namespace of the bridges
	Hosts   []*Host
	bridges int
}

// Host is one network namespace.
type Host struct {
	Addr  string // its address on the network
	space string // the namespace's name
	port  string // the interface's name at the hub
}

var networks atomic.Int64

// NewNetwork makes a network of n hosts for the time of the test, or skips the
// test where that is not allowed.
func NewNetwork(t testing.TB, n int) *Network {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("network namespaces need the ip command (Debian: iproute2)")
	}
	id := fmt.Sprintf("pl%d-%d", os.Getpid(), networks.Add(1))
	net := &Network{t: t, hub: id + "-hub"}
	if out, err := ip("netns", "add", net.hub); err != nil {
		t.Skipf("network namespaces are not allowed here: %v: %s", err, out)
	}
	t.Cleanup(net.remove)
	net.ip("-n", net.hub, "link", "set", "lo", "up")
	net.bridge()
	for i := range n {
		host := &Host{
			Addr:  fmt.Sprintf("10.231.0.%d", i+1),
			space: fmt.Sprintf("%s-%d", id, i+1),
			port:  fmt.Sprintf("port%d", i+1),
		}
		net.ip("netns", "add", host.space)
		net.Hosts = append(net.Hosts, host)
		net.ip("-n", host.space, "link", "set", "lo", "up")
		net.ip("-n", net.hub, "link", "add", host.port, "type", "veth", "peer", "name", "eth0", "netns", host.space)
		net.ip("-n", host.space, "addr", "add", host.Addr+"/24", "dev", "eth0")
		net.ip("-n", host.space, "link", "set", "eth0", "up")
		net.ip("-n", net.hub, "link", "set", host.port, "up", "master", bridgeName(0))
	}
	return net
}

func bridgeName(i int) string { return fmt.Sprintf("bridge%d", i) }

// bridge adds one more bridge to the hub.
func (n *Network) bridge() {
	n.t.Helper()
	name := bridgeName(n.bridges)
	n.bridges++
	n.ip("-n", n.hub, "link", "add", name, "type", "bridge")
	n.ip("-n", n.hub, "link", "set", name, "up")
}

// Partition cuts the network into groups of hosts; a host that is in none of
// them is alone.
func (n *Network) Partition(groups ...[]*Host) {
	n.t.Helper()
	side := map[*Host]int{}
	for i, group := range groups {
		for _, host := range group {
			side[host] = i
		}
	}
	alone := len(groups)
	for _, host := range n.Hosts {
		i, grouped := side[host]
		if !grouped {
			i = alone
			alone++
		}
		for n.bridges <= i {
			n.bridge()
		}
		n.ip("-n", n.hub, "link", "set", host.port, "master", bridgeName(i))
	}
}

// Heal joins all hosts again.
func (n *Network) Heal() { n.t.Helper(); n.Partition(n.Hosts) }

// ip runs one command of iproute2 and ends the test if it fails.
func (n *Network) ip(args ...string) {
	n.t.Helper()
	if out, err := ip(args...); err != nil {
		n.t.Fatalf("ip %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

func ip(args ...string) (string, error) {
	out, err := exec.Command("ip", args...).CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

func (n *Network) remove() {
	for _, host := range n.Hosts {
		if out, err := ip("netns", "del", host.space); err != nil {
			n.t.Errorf("remove %s: %v: %s", host.space, err, out)
		}
	}
	if out, err := ip("netns", "del", n.hub); err != nil {
		n.t.Errorf("remove %s: %v: %s", n.hub, err, out)
	}
}

// Command is a command that runs on the host. The process that starts it
// becomes it, so that signals reach it.
func (h *Host) Command(name string, args ...string) *exec.Cmd {
	return exec.Command("ip", append([]string{"netns", "exec", h.space, name}, args...)...)
}

// Dial connects as a program on the host would, to the host's loopback too: a
// socket belongs to the namespace in which its thread was when it was made.
func (h *Host) Dial(ctx context.Context, network, address string) (conn net.Conn, err error) {
	done := make(chan struct{})
	go func() { // its thread is lost if the way back fails
		defer close(done)
		runtime.LockOSThread()
		var there, back *os.File
		if back, err = os.Open("/proc/thread-self/ns/net"); err != nil {
			runtime.UnlockOSThread()
			return
		}
		defer back.Close()
		if there, err = os.Open(filepath.Join("/run/netns", h.space)); err != nil {
			runtime.UnlockOSThread()
			return
		}
		defer there.Close()
		if err = unix.Setns(int(there.Fd()), unix.CLONE_NEWNET); err != nil {
			runtime.UnlockOSThread()
			return
		}
		// FallbackDelay: with two addresses to try, another thread would dial.
		dialer := net.Dialer{FallbackDelay: -1}
		conn, err = dialer.DialContext(ctx, network, address)
		if returned := unix.Setns(int(back.Fd()), unix.CLONE_NEWNET); returned != nil {
			err = errors.Join(err, returned)
			return // not unlocked: the thread ends with the goroutine
		}
		runtime.UnlockOSThread()
	}()
	<-done
	return conn, err
}

// Package clustertest runs several members of a cluster in one process, for the
// tests of packages that use them. Everything stays on loopback, on ports that
// are free. It is not for measuring: the members share one scheduler and one
// garbage collector.
package clustertest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/peerlimit/peerlimit/cluster"
	"github.com/peerlimit/peerlimit/cluster/internal/hook"
)

// Secret is the secret of the clusters that Start makes.
var Secret = []byte("a secret for tests, and no other use")

// patience is how long members may take to find one another.
const patience = 20 * time.Second

// An Option changes the Config of the i-th member before it starts.
type Option func(i int, cfg *cluster.Config)

// Cluster is a number of members. Its methods are for the test's goroutine.
type Cluster struct {
	// Nodes are the members in the order they were started. Those that were
	// killed or closed stay in it.
	Nodes []*cluster.Node

	t       testing.TB
	options []Option
	gone    map[*cluster.Node]bool
}

// Start starts n members, node-0 to node-(n-1), and returns when each is ready
// and sees all. They are closed when the test ends. It fails the test if that
// does not come about.
func Start(t testing.TB, n int, options ...Option) *Cluster {
	t.Helper()
	c := &Cluster{t: t, options: options, gone: make(map[*cluster.Node]bool)}
	t.Cleanup(c.closeAll)
	if n < 1 {
		t.Fatalf("clustertest: %d members", n)
	}
	c.Nodes = []*cluster.Node{c.start(0)}
	rest := make([]*cluster.Node, n-1)
	var wg sync.WaitGroup
	for i := range rest {
		wg.Go(func() { rest[i] = c.start(i + 1) })
	}
	wg.Wait()
	for _, node := range rest {
		if node != nil {
			c.Nodes = append(c.Nodes, node)
		}
	}
	if t.Failed() {
		t.FailNow()
	}
	c.AwaitAll()
	return c
}

// Add starts one more member and returns when all see it.
func (c *Cluster) Add() *cluster.Node {
	c.t.Helper()
	node := c.start(len(c.Nodes))
	if node == nil {
		c.t.FailNow()
	}
	c.Nodes = append(c.Nodes, node)
	c.AwaitAll()
	return node
}

// start returns nil, and marks the test as failed, if it can't.
func (c *Cluster) start(i int) *cluster.Node {
	cfg := cluster.Config{
		ClusterName:  "test",
		NodeID:       fmt.Sprintf("node-%d", i),
		Bind:         "127.0.0.1:0",
		PeerBind:     "127.0.0.1:0",
		KVBind:       "127.0.0.1:0",
		Secret:       Secret,
		DrainTimeout: 5 * time.Second,
		Logger:       slog.New(slog.DiscardHandler),
	}
	for _, node := range c.live() {
		cfg.Join = append(cfg.Join, node.Self().Gossip)
	}
	for _, o := range c.options {
		o(i, &cfg)
	}
	node, err := cluster.Start(context.Background(), cfg)
	if err != nil {
		c.t.Errorf("clustertest: start member %d: %v", i, err)
		return nil
	}
	hook.Settle(node) // tests make their tables when all members are ready
	return node
}

// live returns the members that run, as far as the test has not ended them, by
// this package or by themselves.
func (c *Cluster) live() []*cluster.Node {
	var out []*cluster.Node
	for _, node := range c.Nodes {
		if !c.gone[node] && !errors.Is(node.Ready(), cluster.ErrClosed) {
			out = append(out, node)
		}
	}
	return out
}

// AwaitAll waits until every member that was not killed or closed sees exactly
// those, and is ready, or drains.
func (c *Cluster) AwaitAll() {
	c.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		live := c.live()
		why := missing(live)
		if why == "" {
			return
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("clustertest: not one cluster of %d within %s: %s", len(live), patience, why)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// missing tells what keeps the members from being one cluster.
func missing(live []*cluster.Node) string {
	if len(live) == 0 {
		return ""
	}
	want := make(map[uint64]bool)
	for _, node := range live {
		want[node.Self().Boot] = true
	}
	version := live[0].Status().Ring.Version
	for _, node := range live {
		if err := node.Ready(); err != nil && !errors.Is(err, cluster.ErrDraining) {
			return fmt.Sprintf("%s is not ready: %v", node.Self().Name, err)
		}
		members := node.Members()
		for _, m := range members {
			if !want[m.Boot] {
				return fmt.Sprintf("%s sees %s, which is gone", node.Self().Name, m)
			}
		}
		if len(members) != len(want) {
			return fmt.Sprintf("%s sees %d members of %d", node.Self().Name, len(members), len(want))
		}
		if node.Status().Ring.Version != version {
			return fmt.Sprintf("%s has another ring", node.Self().Name)
		}
	}
	return ""
}

// Kill ends a member as a crash would, without draining or a goodbye. It does
// not wait until the others notice; AwaitAll does.
func (c *Cluster) Kill(node *cluster.Node) {
	c.t.Helper()
	c.gone[node] = true
	if err := hook.Crash(node); err != nil {
		c.t.Errorf("clustertest: kill %s: %v", node.Self().Name, err)
	}
}

// Close closes a member, which drains and says goodbye first, and waits until
// no other one sees it.
func (c *Cluster) Close(node *cluster.Node) {
	c.t.Helper()
	c.gone[node] = true
	if err := node.Close(); err != nil {
		c.t.Errorf("clustertest: close %s: %v", node.Self().Name, err)
	}
	c.AwaitAll()
}

// closeAll ends what still runs. Nobody is left to take anything over, so
// nothing is drained.
func (c *Cluster) closeAll() {
	var wg sync.WaitGroup
	for _, node := range c.Nodes {
		wg.Go(func() {
			if err := hook.Crash(node); err != nil {
				c.t.Errorf("clustertest: stop %s: %v", node.Self().Name, err)
			}
		})
	}
	wg.Wait()
}

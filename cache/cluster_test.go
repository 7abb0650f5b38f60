package cache

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/peerlimit/peerlimit/cluster"
	"github.com/peerlimit/peerlimit/cluster/clustertest"
)

// 30,000 increments from three members, a join and a graceful leave among them.
func TestCounterThroughJoinAndLeave(t *testing.T) {
	c := clustertest.Start(t, 3)
	ctx := context.Background()
	var counters []*Counter
	for _, node := range c.Nodes {
		counters = append(counters, newTestCounter(t, Config{Cluster: node, Namespace: "test"}))
	}
	const each, callers = 10_000, 8
	var done atomic.Int64
	var wg sync.WaitGroup
	for _, counter := range counters {
		for range callers {
			wg.Go(func() {
				for range each / callers {
					if _, err := counter.Incr(ctx, "k", 1, time.Hour); err != nil {
						t.Error(err)
						return
					}
					done.Add(1)
				}
			})
		}
	}
	await := func(n int64) {
		for done.Load() < n && !t.Failed() {
			time.Sleep(time.Millisecond)
		}
	}
	await(each / 2)
	// As a program does: its tables are made as soon as it is a member.
	joined, err := cluster.Start(ctx, cluster.Config{
		ClusterName: "test", NodeID: "joined", Bind: "127.0.0.1:0", PeerBind: "127.0.0.1:0", KVBind: "127.0.0.1:0",
		Secret: clustertest.Secret, Join: []string{c.Nodes[0].Self().Gossip},
	})
	if err != nil {
		t.Fatal(err)
	}
	fourth := newTestCounter(t, Config{Cluster: joined, Namespace: "test"})
	await(each)
	if _, ok, err := fourth.Get(ctx, "k"); err != nil || !ok {
		t.Errorf("on the one that has joined: %v, %v", ok, err)
	}
	if err := joined.Close(); err != nil {
		t.Errorf("leave: %v", err)
	}
	_ = fourth.Close()
	wg.Wait()
	for i, counter := range counters {
		if got, ok, err := counter.Get(ctx, "k"); err != nil || !ok || got != 3*each {
			t.Errorf("member %d: got %d, %v, %v, want %d", i, got, ok, err, 3*each)
		}
	}
}

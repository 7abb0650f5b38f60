package cache

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/peerlimit/peerlimit/cluster/clustertest"
)

// 30,000 increments from three members, a join and a graceful leave among them.
func TestCounterThroughJoinAndLeave(t *testing.T) {
	c := clustertest.Start(t, 4)
	ctx := context.Background()
	var counters []*Counter
	for _, node := range c.Nodes {
		counters = append(counters, newTestCounter(t, Config{Cluster: node, Namespace: "test"}))
	}
	const each, callers = 10_000, 8
	var done atomic.Int64
	var wg sync.WaitGroup
	for _, counter := range counters[:3] {
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
	for done.Load() < 3*each/4 && !t.Failed() {
		time.Sleep(time.Millisecond)
	}
	node := c.Add()
	counters = append(counters, newTestCounter(t, Config{Cluster: node, Namespace: "test"}))
	for done.Load() < 3*each/2 && !t.Failed() {
		time.Sleep(time.Millisecond)
	}
	_ = counters[3].Close()
	c.Close(c.Nodes[3])
	wg.Wait()
	for i, counter := range counters {
		if i == 3 {
			continue
		}
		if got, ok, err := counter.Get(ctx, "k"); err != nil || !ok || got != 3*each {
			t.Errorf("member %d: got %d, %v, %v, want %d", i, got, ok, err, 3*each)
		}
	}
}

package ratelimit

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/peerlimit/peerlimit/cluster/clustertest"
)

// What grants and copies cost: decisions at the holder, of a process alone and of
// one of three members, by the size of the limit, with one caller and with 64. A
// holder owes its backup at most 1 % of a limit, so a small one waits for the copy
// all the time and a large one never. Each limit is used up and the next one begun.
func BenchmarkCopies(b *testing.B) {
	alone, err := New(Config{})
	if err != nil {
		b.Fatal(err)
	}
	defer alone.Close()
	c := clustertest.Start(b, 3)
	var holder *Limiter
	for i, node := range c.Nodes {
		l, err := New(Config{Cluster: node, Namespace: "copies"})
		if err != nil {
			b.Fatal(err)
		}
		defer l.Close()
		if i == 0 {
			holder = l
		}
	}
	for _, node := range c.Nodes {
		if err := node.AwaitReady(context.Background()); err != nil {
			b.Fatal(err)
		}
	}
	time.Sleep(2 * time.Second) // backups are in place
	run := 0
	for _, at := range []struct {
		name string
		l    *Limiter
	}{{"alone", alone}, {"of three", holder}} {
		for _, limit := range []int64{100, 10_000, 1_000_000} {
			for _, synchronous := range []bool{false, true} {
				if synchronous && (at.l == alone || limit != 10_000) {
					continue
				}
				for _, callers := range []int{1, 64} {
					name := fmt.Sprintf("%s/limit=%d/callers=%d", at.name, limit, callers)
					if synchronous {
						name = fmt.Sprintf("%s/synchronous/callers=%d", at.name, callers)
					}
					b.Run(name, func(b *testing.B) {
						run++
						p := Policy{Name: fmt.Sprintf("copies%d", run), Limit: limit, Period: 24 * time.Hour, Algorithm: FixedWindow, Synchronous: synchronous}
						benchmarkCopies(b, at.l, p, callers)
					})
				}
			}
		}
	}
}

func benchmarkCopies(b *testing.B, l *Limiter, p Policy, callers int) {
	var keys []string // held here, enough for b.N permits
	for i := 0; int64(len(keys)) <= int64(b.N)/p.Limit; i++ {
		if key := fmt.Sprint("k", i); l.table.Here(xxhash.Sum64(tableKey(nil, p.Name, key))) {
			keys = append(keys, key)
		}
	}
	took := make([][]time.Duration, callers)
	var next, denied atomic.Int64
	var wg sync.WaitGroup
	b.ReportAllocs()
	b.ResetTimer()
	for caller := range callers {
		mine := make([]time.Duration, 0, b.N/callers+1)
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(b.N); i = next.Add(1) - 1 {
				start := time.Now()
				d, err := l.Allow(context.Background(), p, keys[i/p.Limit])
				mine = append(mine, time.Since(start))
				if err != nil || d.Degraded {
					b.Error(d, err)
					return
				}
				if !d.Allowed {
					denied.Add(1)
				}
			}
			took[caller] = mine
		})
	}
	wg.Wait()
	b.StopTimer()
	all := slices.Concat(took...)
	slices.Sort(all)
	b.ReportMetric(float64(all[len(all)/2].Nanoseconds()), "p50-ns")
	b.ReportMetric(float64(all[len(all)*99/100].Nanoseconds()), "p99-ns")
	if n := denied.Load(); n > 0 {
		b.Errorf("%d of %d denied, within the limits", n, b.N)
	}
}

package kv

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Three members in one process, plain TCP between them, values of 500 bytes, 16
// callers on one member. See partitionCount.
func BenchmarkSet(b *testing.B) {
	benchmark(b, func(m *testMember, i int) error {
		return m.Set(context.Background(), key(i%1000), make([]byte, 500), time.Hour)
	})
}

func BenchmarkGet(b *testing.B) {
	benchmark(b, func(m *testMember, i int) error {
		_, ok, err := m.Get(context.Background(), key(i%1000))
		if err == nil && !ok {
			return fmt.Errorf("key %d is missing", i%1000)
		}
		return err
	})
}

func benchmark(b *testing.B, f func(m *testMember, i int) error) {
	n := newTestNet(b)
	m := n.start(nil)
	n.start(nil)
	n.start(nil)
	n.whole()
	for i := range 1000 {
		if err := m.Set(context.Background(), key(i), make([]byte, 500), time.Hour); err != nil {
			b.Fatal(err)
		}
	}
	const callers = 16
	var next, failed atomic.Int64
	took := make([][]time.Duration, callers)
	var wg sync.WaitGroup
	b.ResetTimer()
	for c := range callers {
		wg.Go(func() {
			for {
				i := int(next.Add(1))
				if i > b.N {
					return
				}
				began := time.Now()
				if f(m, i) != nil {
					failed.Add(1)
				}
				took[c] = append(took[c], time.Since(began))
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	all := slices.Concat(took...)
	slices.Sort(all)
	b.ReportMetric(float64(all[len(all)/2].Microseconds()), "µs-p50")
	b.ReportMetric(float64(all[len(all)*99/100].Microseconds()), "µs-p99")
	b.ReportMetric(float64(failed.Load()), "failed") // a machine that is busy with something else
}

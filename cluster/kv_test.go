package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/peerlimit/peerlimit/cluster/internal/kv"
)

// brokenKV fails with err, where that is set.
type brokenKV struct {
	KVStore
	err   error
	calls int
}

func (b *brokenKV) Get(ctx context.Context, key string) (KVItem, bool, error) {
	b.calls++
	if b.err != nil {
		return KVItem{}, false, b.err
	}
	return b.KVStore.Get(ctx, key)
}

func TestKVBreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		var log bytes.Buffer
		store := &brokenKV{KVStore: kv.NewLocal(0)}
		k := NewKV(store, slog.New(slog.NewTextHandler(&log, nil)))
		get := func(want error) {
			t.Helper()
			if _, _, err := k.Get(ctx, "k"); !errors.Is(err, want) {
				t.Fatalf("got %v, want %v", err, want)
			}
		}
		is := func(want string) {
			t.Helper()
			if got := k.BreakerState(); got != want {
				t.Fatalf("breaker is %s, want %s", got, want)
			}
			if healthy := k.Healthy(); healthy == (want == "open") {
				t.Fatalf("breaker is %s, healthy: %v", want, healthy)
			}
		}
		// closed → open, by five failures in a row only.
		store.err = ErrKVUnavailable
		for range 4 {
			get(ErrKVUnavailable)
		}
		store.err = nil
		get(nil)
		for _, err := range []error{ErrWrongKind, context.Canceled, context.DeadlineExceeded, ErrWrongKind, ErrWrongKind, ErrWrongKind} {
			store.err = err
			get(err) // none of these is the store's fault
		}
		is("closed")
		store.err = ErrKVUnavailable
		for range 5 {
			get(ErrKVUnavailable)
		}
		is("open")
		before := store.calls
		get(ErrKVOpen)
		if store.calls != before {
			t.Fatal("an open breaker let a call through")
		}
		// open → half-open → open.
		time.Sleep(10*time.Second + time.Nanosecond)
		is("half-open")
		get(ErrKVUnavailable)
		is("open")
		// open → half-open → closed.
		time.Sleep(10*time.Second + time.Nanosecond)
		store.err = nil
		get(nil)
		is("half-open")
		get(nil)
		is("closed")
		get(nil)
		// Reset.
		store.err = ErrKVUnavailable
		for range 5 {
			get(ErrKVUnavailable)
		}
		is("open")
		k.ResetBreaker()
		is("closed")
		get(ErrKVUnavailable)

		want := KVBreakerStats{BreakerStats{State: "closed", Opened: 3, HalfOpened: 2, Closed: 2, OpenFor: 20*time.Second + 2}, 1}
		if got := k.BreakerStats(); got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
		var lines []string
		for line := range strings.Lines(log.String()) {
			_, msg, _ := strings.Cut(line, "level=")
			lines = append(lines, strings.TrimSpace(msg))
		}
		wantLog := []string{
			`WARN msg="breaker open" name=kv`, `INFO msg="breaker half-open" name=kv`,
			`WARN msg="breaker open" name=kv`, `INFO msg="breaker half-open" name=kv`,
			`INFO msg="breaker closed" name=kv`,
			`WARN msg="breaker open" name=kv`, `INFO msg="breaker closed" name=kv`,
		}
		if fmt.Sprint(lines) != fmt.Sprint(wantLog) {
			t.Errorf("got\n%s", strings.Join(lines, "\n"))
		}
	})
}

// A call of before a reset has no say in the breaker of after.
func TestKVBreakerResetWithCallsUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := NewKV(&brokenKV{KVStore: kv.NewLocal(0)}, nil)
		for range kvBreakerFailures - 1 {
			_ = k.breaker.guard(func() error { return ErrKVUnavailable })
		}
		err := k.breaker.guard(func() error {
			k.ResetBreaker()
			return ErrKVUnavailable
		})
		if !errors.Is(err, ErrKVUnavailable) || k.BreakerState() != "closed" {
			t.Errorf("got %v, breaker %s", err, k.BreakerState())
		}
		func() {
			defer func() {
				if recover() == nil {
					t.Error("the panic was kept")
				}
			}()
			_ = k.breaker.guard(func() error { panic("x") })
		}()
	})
}

// kvNodes starts members and waits until their KVs know each other.
func kvNodes(tb testing.TB, count int) ([]*Node, []*KV) {
	tb.Helper()
	var nodes []*Node
	var kvs []*KV
	var join []string
	for i := range count {
		node, err := Start(context.Background(), Config{
			ClusterName: "test", NodeID: fmt.Sprint("node-", i),
			Bind: "127.0.0.1:0", PeerBind: "127.0.0.1:0", KVBind: "127.0.0.1:0",
			Join: join, Secret: testSecret,
		})
		if err != nil {
			tb.Fatal(err)
		}
		tb.Cleanup(func() { _ = node.kill() })
		nodes, kvs = append(nodes, node), append(kvs, node.KV())
		join = append(join, node.Self().Gossip)
	}
	deadline := time.Now().Add(30 * time.Second)
	for _, k := range kvs {
		for k.Stats().Members < count {
			if time.Now().After(deadline) {
				tb.Fatalf("the KV's members don't find each other: %+v", k.Stats())
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	return nodes, kvs
}

func TestKVThroughPeerPort(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	_, kvs := kvNodes(t, 3)
	const count = 500
	for i := range count {
		var err error
		for range 5 { // the machine may be busy with something else
			if err = kvs[i%3].Set(ctx, fmt.Sprint(i), []byte(fmt.Sprint("value ", i)), time.Minute); err == nil {
				break
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	leave, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := kvs[0].leave(leave); err != nil {
		t.Fatal(err)
	}
	for _, k := range kvs { // the one that left asks the others
		for i := range count {
			var it KVItem
			var ok bool
			var err error
			for range 5 {
				if it, ok, err = k.Get(ctx, fmt.Sprint(i)); err == nil {
					break
				}
			}
			if err != nil || !ok || string(it.Value) != fmt.Sprint("value ", i) {
				t.Fatalf("%d: got %q, %v, %v", i, it.Value, ok, err)
			}
		}
	}
}

// Three members in one process, TLS between them, values of 500 bytes, 16
// callers on one member.
func BenchmarkKV(b *testing.B) {
	ctx := context.Background()
	_, kvs := kvNodes(b, 3)
	value := make([]byte, 500)
	for i := range 1000 {
		if err := kvs[0].Set(ctx, fmt.Sprint(i), value, time.Hour); err != nil {
			b.Fatal(err)
		}
	}
	for name, f := range map[string]func(i int) error{
		"Set": func(i int) error { return kvs[0].Set(ctx, fmt.Sprint(i%1000), value, time.Hour) },
		"Get": func(i int) error { _, _, err := kvs[0].Get(ctx, fmt.Sprint(i%1000)); return err },
	} {
		b.Run(name, func(b *testing.B) {
			const callers = 16
			var next, failed atomic.Int64
			took := make([][]time.Duration, callers)
			var wg sync.WaitGroup
			for c := range callers {
				wg.Go(func() {
					for i := int(next.Add(1)); i <= b.N; i = int(next.Add(1)) {
						began := time.Now()
						if f(i) != nil {
							failed.Add(1)
						}
						took[c] = append(took[c], time.Since(began))
					}
				})
			}
			wg.Wait()
			all := slices.Concat(took...)
			slices.Sort(all)
			b.ReportMetric(float64(all[len(all)/2].Microseconds()), "µs-p50")
			b.ReportMetric(float64(all[len(all)*99/100].Microseconds()), "µs-p99")
			b.ReportMetric(float64(failed.Load()), "failed") // a machine that is busy with something else
		})
	}
}

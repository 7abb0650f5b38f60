package ratelimit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/peerlimit/peerlimit/cluster"
	"github.com/peerlimit/peerlimit/cluster/clustertest"
)

// patient gives members more time than they need, so that a machine that is busy
// with something else does not look like one that fails.
func patient(_ int, cfg *cluster.Config) {
	const ms = time.Millisecond
	cfg.Timings = cluster.Timings{Grant: 1500 * ms, Beat: 50 * ms, Suspect: 500 * ms, Gap: 500 * ms, CopyEvery: 20 * ms, Call: 10_000 * ms}
}

// members starts n members of a cluster with a limiter each.
func members(t testing.TB, n int) (*clustertest.Cluster, []*Limiter) {
	t.Helper()
	c := clustertest.Start(t, n, patient)
	all := make([]*Limiter, n)
	for i, node := range c.Nodes {
		l, err := New(Config{Cluster: node, Namespace: "test", Logger: slog.New(slog.NewTextHandler(t.Output(), nil))})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		all[i] = l
	}
	return c, all
}

func TestClusterCountsExactly(t *testing.T) {
	t.Parallel()
	_, all := members(t, 3)
	ctx := context.Background()
	const limit = 400
	for _, p := range []Policy{PerDay("bucket", limit), fixedNamed("fixed", limit), Calendar("day", limit, Day, nil)} {
		var allowed, degraded atomic.Int64
		var wg sync.WaitGroup
		for _, l := range all {
			for range 8 {
				wg.Go(func() {
					for range 25 {
						d, err := l.Allow(ctx, p, "k")
						if err != nil {
							t.Error(err)
						}
						if d.Allowed {
							allowed.Add(1)
						}
						if d.Degraded {
							degraded.Add(1)
						}
					}
				})
			}
		}
		wg.Wait()
		if allowed.Load() != limit || degraded.Load() != 0 {
			t.Errorf("%s: %d of %d allowed, %d degraded", p.Name, allowed.Load(), limit, degraded.Load())
		}
	}
}

// Every operation means the same on a member that does not hold the key.
func TestClusterOperations(t *testing.T) {
	t.Parallel()
	_, all := members(t, 3)
	ctx := context.Background()
	p := PerDay("p", 10)
	for i := range 20 {
		key := fmt.Sprint("key-", i)
		a, b := all[i%3], all[(i+1)%3]
		if n, d, err := a.AllowAtMost(ctx, p, key, 7); n != 7 || d.Remaining != 3 || err != nil {
			t.Fatalf("%d, %+v, %v", n, d, err)
		}
		if err := b.Refund(ctx, p, key, 2); err != nil {
			t.Fatal(err)
		}
		if d, err := a.Status(ctx, p, key); d.Remaining != 5 || err != nil {
			t.Fatalf("%+v, %v", d, err)
		}
	}
	for _, l := range all {
		if n, err := l.Size(ctx); n != 20 || err != nil {
			t.Errorf("%d keys, %v", n, err)
		}
	}
	if err := all[0].Reset(ctx, p, "key-3"); err != nil {
		t.Fatal(err)
	}
	if d, err := all[1].Status(ctx, p, "key-3"); d.Remaining != 10 || err != nil {
		t.Errorf("after a reset: %+v, %v", d, err)
	}
	if n, err := all[1].ResetAll(ctx, p, "key-1"); n != 11 || err != nil {
		t.Errorf("%d reset, %v", n, err)
	}
	if n, err := all[2].ResetAll(ctx, p, ""); n != 8 || err != nil {
		t.Errorf("%d reset, %v", n, err)
	}
}

// Callers at once ask on all members for keys with different holders: what was
// allowed is what is spent, and a caller that dies gives everything back.
func TestClusterAllowAll(t *testing.T) {
	t.Parallel()
	_, all := members(t, 3)
	ctx := context.Background()
	const limit = 100
	p := fixedNamed("p", limit)
	p.OnUnavailable = FailClosed
	keys := make([]string, 6)
	allowed := make([]atomic.Int64, len(keys))
	for i := range keys {
		keys[i] = fmt.Sprint("key-", i)
	}
	var wg sync.WaitGroup
	for g := range 9 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(g), 2))
			for range 40 {
				perm := rnd.Perm(len(keys))[:3]
				checks := make([]Check, len(perm))
				for i, k := range perm {
					checks[i] = Check{Policy: p, Key: keys[k], Cost: 1}
				}
				got, err := all[g%3].AllowAll(ctx, checks...)
				if err != nil {
					t.Error(err)
				}
				if got.Allowed {
					for _, k := range perm {
						allowed[k].Add(1)
					}
				}
			}
		})
	}
	wg.Wait()
	for _, key := range keys {
		dead := part{policy: p, key: key, cost: 1} // sets aside, and is heard of no more
		if err := all[0].prepare(&dead); err != nil {
			t.Fatal(err)
		}
		all[0].reserve(ctx, &dead)
	}
	for k, key := range keys {
		until(t, func() bool {
			d, err := all[1].Status(ctx, p, key)
			return err == nil && !d.Degraded && d.Remaining == limit-allowed[k].Load()
		})
	}
}

func TestClusterPlaces(t *testing.T) {
	t.Parallel()
	_, all := members(t, 3)
	ctx := context.Background()
	p := InFlight("busy", 3, 30*time.Second)
	var held []*Place
	for _, l := range all {
		place, d, err := l.Acquire(ctx, p, "k")
		if place == nil || err != nil {
			t.Fatalf("%+v, %v", d, err)
		}
		held = append(held, place)
	}
	if place, d, err := all[0].Acquire(ctx, p, "k"); place != nil || d.Allowed || err != nil {
		t.Fatalf("a fourth of three: %+v, %v", d, err)
	}
	if is, err := held[1].Renew(ctx); !is || err != nil {
		t.Errorf("%v, %v", is, err)
	}
	if err := held[2].Release(ctx); err != nil {
		t.Error(err)
	}
	if place, d, err := all[1].Acquire(ctx, p, "k"); place == nil || err != nil {
		t.Errorf("after a release: %+v, %v", d, err)
	}
}

// A stored policy is in force on every member when the call returns, and on one
// that joins later.
func TestClusterPolicies(t *testing.T) {
	t.Parallel()
	c, all := members(t, 3)
	ctx := context.Background()
	p := PerDay("p", 10)
	limits := func(l *Limiter, key string) int64 {
		t.Helper()
		d, err := l.Status(ctx, p, key)
		if err != nil {
			t.Fatal(err)
		}
		return d.Limit
	}
	for i := range int64(5) {
		want := 20 + i
		r, err := all[i%3].PutPolicy(ctx, StoredPolicy{Policy: PerDay("p", want)})
		if err != nil || r.Reached != 3 || r.Members != 3 {
			t.Fatalf("%+v, %v", r, err)
		}
		for j, l := range all {
			if got := limits(l, "k"); got != want {
				t.Errorf("change %d: member %d has a limit of %d, want %d", i, j, got, want)
			}
		}
	}
	if _, err := all[0].SetOverride(ctx, "p", Override{Key: "big", Times: 10}); err != nil {
		t.Fatal(err)
	}
	if got := limits(all[2], "big"); got != 240 {
		t.Errorf("override: a limit of %d", got)
	}
	late, err := New(Config{Cluster: c.Add(), Namespace: "test"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { late.Close() })
	until(t, func() bool { return limits(late, "big") == 240 && limits(late, "k") == 24 })
	r, err := late.DeletePolicy(ctx, "p")
	if err != nil || r.Reached != 4 {
		t.Fatalf("%+v, %v", r, err)
	}
	for j, l := range append(all, late) {
		if got := limits(l, "k"); got != 10 {
			t.Errorf("after its deletion: member %d has a limit of %d", j, got)
		}
	}
}

func TestNamespacesAreApart(t *testing.T) {
	c, all := members(t, 1)
	if l, err := New(Config{Cluster: c.Nodes[0], Namespace: "test"}); err == nil {
		l.Close()
		t.Error("the same namespace twice")
	}
	other, err := New(Config{Cluster: c.Nodes[0], Namespace: "other"})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	ctx := context.Background()
	p := PerDay("p", 1)
	for _, l := range []*Limiter{all[0], other} {
		if d, err := l.Allow(ctx, p, "k"); !d.Allowed || err != nil {
			t.Errorf("%+v, %v", d, err)
		}
	}
	all[0].Close()
	again, err := New(Config{Cluster: c.Nodes[0], Namespace: "test"})
	if err != nil {
		t.Fatalf("a namespace that was closed is taken: %v", err)
	}
	again.Close()
}

// A member leaves: what it counted goes on at the others.
func TestClusterMemberLeaves(t *testing.T) {
	t.Parallel()
	c, all := members(t, 3)
	ctx := context.Background()
	p := fixedNamed("p", 1000)
	keys := make([]string, 12)
	for i := range keys {
		keys[i] = fmt.Sprint("key-", i)
		if d, err := all[0].AllowN(ctx, p, keys[i], 600); !d.Allowed || d.Degraded || err != nil {
			t.Fatalf("%+v, %v", d, err)
		}
	}
	c.Close(c.Nodes[2])
	all[2].Close()
	for _, key := range keys {
		if d, err := all[1].AllowN(ctx, p, key, 500); err != nil || d.Allowed || d.Degraded {
			t.Errorf("%s: %+v, %v: it was forgotten", key, d, err)
		}
	}
}

func TestClosedNodeIsUnavailable(t *testing.T) {
	c := clustertest.Start(t, 1)
	l, err := New(Config{Cluster: c.Nodes[0]})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c.Nodes[0].Close()
	d, err := l.Allow(context.Background(), PerDay("p", 1), "k")
	if err != nil || !d.Allowed || !d.Degraded {
		t.Errorf("%+v, %v", d, err)
	}
	if err := l.Reset(context.Background(), PerDay("p", 1), "k"); !errors.Is(err, cluster.ErrClosed) {
		t.Errorf("%v", err)
	}
}

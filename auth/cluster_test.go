package auth_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/peerlimit/peerlimit/auth"
	"github.com/peerlimit/peerlimit/cluster/clustertest"
)

// startKeys starts n members with an Authenticator each, on one store.
func startKeys(t *testing.T, n int) (*clustertest.Cluster, []*auth.Authenticator) {
	t.Helper()
	c := clustertest.Start(t, n)
	store := auth.NewMemory()
	keys := make([]*auth.Authenticator, n)
	for i := range keys {
		var err error
		if keys[i], err = auth.New(auth.Config{Cluster: c.Nodes[i], Store: store}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = keys[i].Close() })
	}
	return c, keys
}

func TestRevocationOverACluster(t *testing.T) {
	_, keys := startKeys(t, 3)
	ctx := context.Background()
	rounds, callers := 50, 4
	if testing.Short() {
		rounds = 10
	}
	took := make([]time.Duration, rounds)
	var before, after atomic.Int64
	for round := range rounds {
		issued, err := keys[0].Create(ctx, auth.Spec{Project: "p"})
		if err != nil {
			t.Fatal(err)
		}
		key := issued.Secret.Reveal()
		var returned atomic.Bool
		stop := make(chan struct{})
		var wg sync.WaitGroup
		for i, a := range keys {
			if r, err := a.Verify(ctx, key); r.Verdict != auth.Valid {
				t.Fatalf("member %d: %v, %v", i, r.Verdict, err)
			}
			for range callers {
				wg.Go(func() {
					for {
						late := returned.Load()
						r, _ := a.Verify(ctx, key)
						switch {
						case r.Verdict == auth.Valid && late:
							t.Errorf("round %d: member %d: VALID from %v after the call returned", round, i, r.Source)
						case r.Verdict == auth.Valid:
							before.Add(1)
						case late:
							after.Add(1)
						}
						select {
						case <-stop:
							return
						case <-time.After(200 * time.Microsecond): // all members share this machine with them
						}
					}
				})
			}
		}
		r, err := keys[round%3].Disable(ctx, issued.Key.ID)
		returned.Store(true)
		if err != nil || r.Reached != 3 || r.Members != 3 || len(r.Unreached) != 0 {
			t.Errorf("round %d: %+v, %v", round, r, err)
		}
		took[round] = r.Took
		for i, a := range keys {
			if r, err := a.Verify(ctx, key); r.Verdict != auth.Disabled {
				t.Errorf("round %d: member %d: %v, %v", round, i, r.Verdict, err)
			}
		}
		for enough := after.Load() + 2*int64(callers); after.Load() < enough && !t.Failed(); {
			time.Sleep(100 * time.Microsecond)
		}
		close(stop)
		wg.Wait()
	}
	if before.Load() == 0 {
		t.Error("nobody was accepted before")
	}
	slices.Sort(took)
	t.Logf("%d revocations under load: p50 %v, p99 %v", rounds, took[rounds/2], took[rounds*99/100])
}

func TestRevocationNamesTheMemberThatIsGone(t *testing.T) {
	t.Parallel()
	c, keys := startKeys(t, 3)
	ctx := context.Background()
	issued, err := keys[0].Create(ctx, auth.Spec{Project: "p"})
	if err != nil {
		t.Fatal(err)
	}
	key := issued.Secret.Reveal()
	for _, a := range keys {
		if r, err := a.Verify(ctx, key); r.Verdict != auth.Valid {
			t.Fatal(r.Verdict, err)
		}
	}
	_ = keys[2].Close()
	c.Kill(c.Nodes[2])
	r, err := keys[0].Disable(ctx, issued.Key.ID)
	if err != nil || r.Reached < 2 || fmt.Sprint(r.Unreached) != "[node-2]" && r.Members != 2 {
		t.Errorf("%+v, %v", r, err)
	}
	for _, a := range keys[:2] {
		if r, err := a.Verify(ctx, key); r.Verdict != auth.Disabled {
			t.Error(r.Verdict, err)
		}
	}
}

// Two Authenticators on a node need two namespaces, and don't hear of each other.
func TestNamespaces(t *testing.T) {
	c := clustertest.Start(t, 1)
	cfg := auth.Config{Cluster: c.Nodes[0], Store: auth.NewMemory()}
	a, err := auth.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := auth.New(cfg); err == nil {
		_ = b.Close()
		t.Error("the same namespace twice: no error")
	}
	cfg.Namespace = "other"
	b, err := auth.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range []*auth.Authenticator{a, b} {
		if err := x.Close(); err != nil {
			t.Error(err)
		}
	}
	cfg.Namespace = ""
	again, err := auth.New(cfg) // the namespace is free again
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
}

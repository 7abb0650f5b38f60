package kv

import (
	"context"
	"fmt"
	"io"
	"log"
	"sync"
	"testing"
	"time"

	"github.com/olric-data/olric"
	"github.com/olric-data/olric/config"
)

// The tests in this file are about olric as it comes, not about this package.
// They keep the evidence for what is never used of it. One of them failing is
// good news: olric has changed, and the decision that rests on it may be looked
// at again.

// plainOlric is a member as olric's documentation sets it up.
type plainOlric struct {
	db   *olric.Olric
	dmap olric.DMap
	name string
}

func plainOlrics(t *testing.T, count int, change func(*config.Config)) []*plainOlric {
	t.Helper()
	var all []*plainOlric
	var peers []string
	for range count {
		port, err := freePort("127.0.0.1")
		if err != nil {
			t.Fatal(err)
		}
		gossip, err := freePort("127.0.0.1")
		if err != nil {
			t.Fatal(err)
		}
		c := config.New("local")
		c.BindAddr, c.BindPort = "127.0.0.1", port
		c.MemberlistConfig.BindAddr, c.MemberlistConfig.BindPort = "127.0.0.1", gossip
		c.MemberlistConfig.AdvertisePort = gossip
		c.Logger = log.New(io.Discard, "", 0)
		c.LogOutput = nil
		c.Peers = append([]string(nil), peers...)
		c.PartitionCount = 23
		c.DMaps = &config.DMaps{Engine: config.NewEngine()}
		c.DMaps.Engine.Config["tableSize"] = uint64(64 << 10)
		c.DMaps.Engine.Config["maxIdleTableTimeout"] = time.Minute
		if change != nil {
			change(c)
		}
		db, err := olric.New(c)
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		wg.Go(func() { _ = db.Start() })
		t.Cleanup(func() {
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			defer cancel()
			_ = db.Shutdown(ctx)
			wg.Wait()
		})
		o := &plainOlric{db: db, name: joinHostPort("127.0.0.1", port)}
		eventually(t, 10*time.Second, func() (err error) {
			o.dmap, err = newDMap(db.NewEmbeddedClient())
			return err
		})
		all = append(all, o)
		peers = append(peers, joinHostPort("127.0.0.1", gossip))
	}
	eventually(t, 10*time.Second, func() error {
		for _, o := range all {
			owners := make(map[string]bool)
			table, err := o.db.NewEmbeddedClient().RoutingTable(context.Background())
			if err != nil {
				return err
			}
			for _, r := range table {
				owners[r.PrimaryOwners[len(r.PrimaryOwners)-1]] = true
			}
			if len(owners) != count {
				return fmt.Errorf("%d of %d members own partitions", len(owners), count)
			}
		}
		return nil
	})
	return all
}

func TestEvidenceIncrLosesCounts(t *testing.T) {
	ctx := context.Background()
	ms := plainOlrics(t, 3, nil)
	const each = 200
	for round := range 10 {
		key := fmt.Sprint("counter-", round)
		var wg sync.WaitGroup
		for _, m := range ms {
			for range 2 {
				wg.Go(func() {
					for range each {
						if _, err := m.dmap.Incr(ctx, key, 1); err != nil {
							t.Error(err)
							return
						}
					}
				})
			}
		}
		wg.Wait()
		r, err := ms[0].dmap.Get(ctx, key)
		if err != nil {
			t.Fatal(err)
		}
		got, err := r.Int()
		if err != nil {
			t.Fatal(err)
		}
		if sent := 6 * each; got < sent {
			t.Logf("%d of %d increments from three members were counted", got, sent)
			return
		}
	}
	t.Error("olric counts increments from several members right: EmbeddedDMap.Incr could be used")
}

func TestEvidenceExpireErases(t *testing.T) {
	ctx := context.Background()
	ms := plainOlrics(t, 2, nil)
	const keys = 60
	erased := 0
	for i := range keys {
		if err := ms[0].dmap.Put(ctx, key(i), value(i)); err != nil {
			t.Fatal(err)
		}
		if err := ms[1].dmap.Expire(ctx, key(i), time.Hour); err != nil {
			t.Fatal(err)
		}
		r, err := ms[0].dmap.Get(ctx, key(i))
		if err != nil {
			erased++
			continue
		}
		if s, err := r.String(); err != nil || s != value(i) {
			erased++
		}
	}
	t.Logf("%d of %d values were erased by setting their time to live", erased, keys)
	if erased == 0 {
		t.Error("olric keeps values whose time to live is set: EmbeddedDMap.Expire could be used")
	}
}

func TestEvidenceAsyncReplicationLosesWrites(t *testing.T) {
	ctx := context.Background()
	ms := plainOlrics(t, 2, func(c *config.Config) {
		c.ReplicaCount = 2
		c.ReplicationMode = config.AsyncReplicationMode
	})
	const callers, each = 8, 250
	const sent = callers * each
	for round := range 10 {
		key := fmt.Sprint("counter-", round)
		owner := ownerOf(t, ms, key)
		var wg sync.WaitGroup
		for range callers {
			wg.Go(func() {
				for range each {
					if _, err := owner.dmap.Incr(ctx, key, 1); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
		// Once everything is quiet both copies should agree.
		time.Sleep(100 * time.Millisecond)
		r, err := owner.dmap.Get(ctx, key)
		if err != nil {
			t.Fatal(err)
		}
		got, err := r.Int()
		if err != nil {
			t.Fatal(err)
		}
		if got < sent {
			t.Logf("round %d: %d of %d increments at the owner were counted", round, got, sent)
			return
		}
	}
	t.Error("olric's asynchronous replication loses nothing: it could be used")
}

func ownerOf(t *testing.T, ms []*plainOlric, key string) *plainOlric {
	t.Helper()
	table, err := ms[0].db.NewEmbeddedClient().RoutingTable(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	hkey := hasher{}.Sum64([]byte(dmapName + key))
	owners := table[hkey%uint64(len(table))].PrimaryOwners
	for _, m := range ms {
		if m.name == owners[len(owners)-1] {
			return m
		}
	}
	t.Fatal("no owner")
	return nil
}

func TestEvidenceDeleteBringsBack(t *testing.T) {
	ctx := context.Background()
	m := plainOlrics(t, 1, func(c *config.Config) {
		c.PartitionCount = 1
		c.DMaps.Engine.Config["tableSize"] = uint64(4 << 10)
	})[0]
	put := func(key, value string) {
		t.Helper()
		if err := m.dmap.Put(ctx, key, value); err != nil {
			t.Fatal(err)
		}
	}
	put("k", "old")
	for i := range 100 { // into a second table
		put(key(i), value(i))
	}
	put("k", "new")
	if _, err := m.dmap.Delete(ctx, "k"); err != nil {
		t.Fatal(err)
	}
	r, err := m.dmap.Get(ctx, "k")
	if err != nil {
		t.Errorf("olric's engine keeps deleted keys deleted (%v): ours may be given up", err)
		return
	}
	if s, err := r.String(); err != nil || s != "old" {
		t.Errorf("got %q, %v: neither deleted nor brought back", s, err)
	}
}

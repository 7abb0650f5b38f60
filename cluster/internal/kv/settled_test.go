package kv

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vmihailenco/msgpack/v5"
)

func soonSettled(c *Config) {
	quick(c)
	c.timings.trust = 500 * time.Millisecond
}

func (m *testMember) isSettled() bool {
	in := m.current() // nil: it starts anew
	return in != nil && in.settledTable() != nil
}

// awaitSettled waits until those members ask olric no more.
func awaitSettled(t *testing.T, ms ...*testMember) {
	t.Helper()
	eventually(t, 10*time.Second, func() error {
		for _, m := range ms {
			if !m.isSettled() {
				return errors.New("not settled")
			}
		}
		return nil
	})
}

// An owner that has an entry answers without asking the backup, once members
// have not changed for a while; one that has none asks.
func TestSettledOwner(t *testing.T) {
	n := newTestNet(t)
	ctx := context.Background()
	a, b := n.start(soonSettled), n.start(soonSettled)
	n.whole()
	const count = 200
	n.fill(a, count)
	awaitSettled(t, a, b)
	// Without a copy at the backup it is still found, and not asked for.
	drop := func(shards func(g *engine, part uint64) *shard) {
		for _, m := range []*testMember{a, b} {
			g := m.current().engine
			for part := range uint64(partitionCount) {
				if s := shards(g, part); s != nil {
					s.mu.Lock()
					for hkey := range s.m {
						s.removeLocked(hkey)
					}
					s.mu.Unlock()
				}
			}
		}
	}
	owned := func(g *engine, part uint64) *shard { return g.owned[part].Load() }
	backups := func(g *engine, part uint64) *shard { return g.backups[part].Load() }
	drop(backups)
	for _, m := range []*testMember{a, b} {
		if missing := n.missing(m, count); missing > 0 {
			t.Fatalf("%d of %d are missing", missing, count)
		}
	}
	// And without one at the owner it is asked for.
	n.fill(a, count)
	drop(owned)
	for _, m := range []*testMember{a, b} {
		if missing := n.missing(m, count); missing > 0 {
			t.Fatalf("%d of %d are missing at the owner", missing, count)
		}
	}
	// A change of members ends it.
	c := n.start(soonSettled)
	n.whole()
	eventually(t, 5*time.Second, func() error {
		if a.current().settledTable() != nil || c.current().settledTable() != nil {
			return errors.New("settled")
		}
		return nil
	})
	if err := a.Set(ctx, "k", []byte("v"), time.Minute); err != nil {
		t.Fatal(err)
	}
	mustGet(t, c.Map, "k")
}

// Where all has settled a member reads and writes without its own olric, but
// for what it lacks, or has to write, as the owner.
func TestSettledWithoutOlric(t *testing.T) {
	t.Parallel()
	n := newTestNet(t)
	ctx := context.Background()
	patient := func(c *Config) {
		soonSettled(c)
		c.timings.broken = time.Hour
	}
	a, b := n.start(patient), n.start(patient)
	n.whole()
	const count = 20
	n.fill(a, count)
	eventually(t, 5*time.Second, func() error { return a.Mark(ctx, "counter", time.Minute) })
	awaitSettled(t, a, b)
	a.caller.Store(&caller{DMap: noDMap{}})
	owns := func(key string) bool {
		return a.current().table.Load().owners[hashOf(key)%partitionCount].name == a.current().name
	}
	// Now and then a table comes, and olric is asked for a moment.
	settled := func(f func() error) {
		t.Helper()
		eventually(t, 5*time.Second, f)
	}
	own := 0
	for i := range count {
		settled(func() error {
			it, ok, err := a.Get(ctx, key(i))
			if err == nil && (!ok || string(it.Value) != value(i)) {
				t.Fatalf("%s: got %q, %v", key(i), it.Value, ok)
			}
			return err
		})
		missing := "missing-" + strconv.Itoa(i)
		if owns(missing) {
			own++
			if _, ok, err := a.Get(ctx, missing); ok || !errors.Is(err, ErrUnavailable) {
				t.Fatalf("%s: got %v, %v", missing, ok, err)
			}
			if err := a.Set(ctx, missing, []byte("v"), time.Minute); !errors.Is(err, ErrUnavailable) {
				t.Fatalf("set %s: got %v", missing, err)
			}
			continue
		}
		settled(func() error {
			_, ok, err := a.Get(ctx, missing)
			if ok {
				t.Fatalf("%s: is there", missing)
			}
			return err
		})
		settled(func() error { return a.Set(ctx, missing, []byte("v"), time.Minute) })
		mustGet(t, b.Map, missing)
		settled(func() error {
			_, ok, err := a.Get(ctx, missing)
			if err == nil && !ok {
				t.Fatalf("%s: is not there", missing)
			}
			return err
		})
	}
	if own == 0 || own == count {
		t.Errorf("%d of %d are the member's own", own, count)
	}
	if !owns("counter") {
		settled(func() error {
			if err := a.Set(ctx, "counter", nil, time.Minute); !errors.Is(err, ErrWrongKind) {
				return fmt.Errorf("a counter's key: got %w", err)
			}
			return nil
		})
	}
	// Larger than what a call takes.
	if err := b.Set(ctx, "large", make([]byte, 3*maxCall), time.Minute); err != nil {
		t.Fatal(err)
	}
	if it, ok, err := b.Get(ctx, "large"); !ok || err != nil || len(it.Value) != 3*maxCall {
		t.Errorf("got %d bytes, %v, %v", len(it.Value), ok, err)
	}
	stopped, cancel := context.WithCancel(ctx)
	cancel()
	if _, _, err := a.Get(stopped, key(1)); !errors.Is(err, context.Canceled) {
		t.Errorf("given up: got %v", err)
	}
}

// payload is a table as olric's coordinator sends it.
func payload(t testing.TB, owners func(part int) []string) []byte {
	type member struct {
		Name      string
		NameHash  uint64
		ID        uint64
		Birthdate int64
	}
	type route struct{ Owners, Backups []member }
	table := make(map[uint64]*route)
	for part := range partitionCount {
		r := &route{Backups: []member{{Name: "backup", ID: 9}}}
		for _, name := range owners(part) {
			r.Owners = append(r.Owners, member{Name: name, NameHash: 1 << 63, ID: 7, Birthdate: -1})
		}
		table[uint64(part)] = r
	}
	b, err := msgpack.Marshal(table)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestTables(t *testing.T) {
	in := &instance{name: "me"}
	boots := map[string]uint64{"other": 2}
	asked := 0
	take := func(p []byte) *ownerTable {
		in.take(in.pushes.Add(1), p, func(name string) uint64 { asked++; return boots[name] })
		return in.table.Load()
	}
	halves := func(part int) []string {
		switch {
		case part == 5:
			return []string{"other", "me"} // one that has something yet
		case part%2 == 0:
			return []string{"me"}
		}
		return []string{"other"}
	}
	first := take(payload(t, halves))
	if o := first.owners; o[0] != (partOwner{name: "me"}) || o[1] != (partOwner{"other", 2}) || o[5].name != "" || asked != 1 {
		t.Errorf("got %v, asked %d times", o[:6], asked)
	}
	if in.settledTable() != nil {
		t.Error("settled at once")
	}
	first.settled.Store(true)
	if in.settledTable() != first {
		t.Error("not settled")
	}
	// The same again, and one that is on its way.
	second := take(payload(t, halves))
	if in.settledTable() != second || second.since != first.since {
		t.Errorf("the same: settled %v", in.settledTable() != nil)
	}
	in.pushes.Add(1)
	if in.settledTable() != nil {
		t.Error("settled while another comes")
	}
	take(payload(t, halves))
	// Another.
	if take(payload(t, func(int) []string { return []string{"me"} })); in.settledTable() != nil {
		t.Error("settled though it changed")
	}
	in.table.Load().settled.Store(true)
	// Nonsense leaves nothing settled.
	for _, bad := range [][]byte{nil, {0xc0}, {0x81, 0x01}, []byte("x"), payload(t, halves)[:2000], payload(t, func(int) []string { return nil })} {
		if take(bad); in.settledTable() != nil {
			t.Errorf("%.20x: settled", bad)
		}
	}
	// A member that was not known yet is asked for again.
	late := func(int) []string { return []string{"late"} }
	take(payload(t, late))
	boots["late"] = 4
	if got := take(payload(t, late)).owners[1].boot; got != 4 {
		t.Errorf("got %d", got)
	}
	if take(payload(t, halves)).settled.Store(true); in.settledTable() == nil {
		t.Error("not settled")
	}
	in.retired.Store(true)
	if in.settledTable() != nil {
		t.Error("settled though it leaves")
	}
}

func FuzzParseTable(f *testing.F) {
	f.Add(payload(f, func(part int) []string { return []string{"127.0.0.1:" + strconv.Itoa(part)} }))
	f.Add([]byte{0x80})
	f.Fuzz(func(t *testing.T, b []byte) {
		if table, err := parseTable(b); (table == nil) == (err == nil) {
			t.Fatalf("got %v, %v", table, err)
		}
	})
}

// No read finds what was overwritten a moment ago, whoever joins and leaves:
// members stop answering by themselves when owners change.
func TestReadsFollowWrites(t *testing.T) {
	needSoak(t)
	t.Parallel()
	n := newTestNet(t)
	start := func() *testMember {
		return n.start(func(c *Config) {
			quick(c)
			c.timings.trust = 2 * time.Second // partitions are moved once a second
		})
	}
	// A table is sent to all at once; one may get it some time before the other.
	const moment = 200 * time.Millisecond
	ctx := context.Background()
	a, b := start(), start()
	n.whole()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var reads, misses, settled atomic.Int64
	for i := range 8 {
		key := fmt.Sprint("followed-", i)
		var written, before atomic.Int64 // the last one, and the last one that is older than a moment
		writer, reader := a, b
		if i%2 == 0 {
			writer, reader = b, a
		}
		wg.Go(func() {
			for v := int64(1); ; v++ {
				select {
				case <-stop:
					return
				case <-time.After(time.Duration(rand.IntN(5)) * time.Millisecond):
				}
				if writer.Set(ctx, key, []byte(strconv.FormatInt(v, 10)), time.Minute) == nil {
					written.Store(v)
					time.AfterFunc(moment, func() {
						for old := before.Load(); old < v && !before.CompareAndSwap(old, v); old = before.Load() {
						}
					})
				}
			}
		})
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(time.Millisecond):
				}
				least := before.Load()
				if reader.isSettled() {
					settled.Add(1)
				}
				it, ok, err := reader.Get(ctx, key)
				if err != nil || !ok {
					misses.Add(1)
					continue
				}
				reads.Add(1)
				if got, _ := strconv.ParseInt(string(it.Value), 10, 64); got < least {
					t.Errorf("%s: read %d, %d was written at least %v before", key, got, least, moment)
				}
			}
		})
	}
	for range 3 {
		awaitSettled(t, a, b)
		c := start()
		n.whole()
		awaitSettled(t, a, b, c)
		time.Sleep(time.Second)
		n.leave(c)
		n.whole()
	}
	close(stop)
	wg.Wait()
	t.Logf("%d reads, %d of nothing, %d while all had settled", reads.Load(), misses.Load(), settled.Load())
	if settled.Load() < reads.Load()/20 {
		t.Errorf("%d of %d reads were made while all had settled", settled.Load(), reads.Load())
	}
}

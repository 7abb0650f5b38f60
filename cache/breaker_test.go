package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/peerlimit/peerlimit/cluster"
)

// What each call answers while the breaker is closed, open and half-open.
func TestBreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		s := newStore()
		var log bytes.Buffer
		c, err := New[string](Config{KV: cluster.NewKV(s, slog.New(slog.NewTextHandler(&log, nil)))})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		mustSet(t, c, "there", "v", time.Hour)
		mustSet(t, c, "replaced", "v", time.Hour)
		mustSet(t, c, "deleted", "v", time.Hour)
		loads := 0
		// answers makes each call once. Open or failing, there is not one that
		// returns an error but those that can't have an answer.
		answers := func(want string) {
			t.Helper()
			_, got, err1 := c.Get(ctx, "there")
			v, err2 := c.GetOrLoad(ctx, fmt.Sprint("load", loads), time.Minute, func(context.Context) (string, error) {
				loads++
				return "loaded", nil
			})
			many, err3 := c.GetMany(ctx, []string{"there"})
			_, ttl, err4 := c.TTL(ctx, "there")
			err5 := c.Set(ctx, "replaced", "newer", time.Hour)
			err6 := c.Delete(ctx, "deleted")
			_, err7 := c.Len(ctx)
			_, err8 := c.DeletePrefix(ctx, "nobody")
			text := fmt.Sprintln(got, v, len(many), ttl, err1, err2, err3, err4, err5, err6,
				errors.Is(err7, ErrUnavailable), errors.Is(err8, ErrUnavailable))
			if text != want {
				t.Fatalf("got  %s\nwant %s", text, want)
			}
		}
		state := func(want string) {
			t.Helper()
			if got := c.BreakerState(); got != want || c.Healthy() == (want == "open") || c.Stats().Breaker != want {
				t.Fatalf("breaker is %s, want %s; healthy: %v", got, want, c.Healthy())
			}
		}
		const (
			well = "true loaded 1 true <nil> <nil> <nil> <nil> <nil> <nil> false false\n"
			open = "false loaded 0 false <nil> <nil> <nil> <nil> <nil> <nil> true true\n"
		)
		c.near.DropAll()
		state("closed")
		answers(well)
		// Failing: the same answers, at first by asking.
		s.fail(cluster.ErrKVUnavailable)
		c.near.DropAll()
		answers(open)
		state("open")
		before := c.Stats()
		answers(open)
		after := c.Stats()
		if after.Errors != before.Errors || after.Open == before.Open {
			t.Errorf("an open breaker: %+v, then %+v", before, after)
		}
		// What is near is answered all the same.
		c.near.Put("near", c.near.Generation("near"), "v", 1, time.Minute)
		mustHave(t, c, "near", "v")
		// Half-open, and open again.
		time.Sleep(10*time.Second + time.Nanosecond)
		state("half-open")
		mustMiss(t, c, "there")
		state("open")
		// Half-open, and closed: what could not be written is made good by then.
		s.fail(nil)
		time.Sleep(10*time.Second + time.Nanosecond)
		state("half-open")
		mustHave(t, c, "there", "v")
		for c.BreakerState() != "closed" {
			mustMiss(t, c, "nobody")
		}
		mustMiss(t, c, "replaced")
		mustMiss(t, c, "deleted")
		c.near.DropAll()
		answers(well)
		c.ResetBreaker()
		state("closed")
		if !bytes.Contains(log.Bytes(), []byte(`msg="breaker half-open" name=kv`)) {
			t.Errorf("got %s", log.String())
		}
	})
}

// A write that the store did not take leaves a miss on every member, never the
// older value, and is made good later.
func TestOwedWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		m := newMembers(t, 2, nil)
		defer m.close()
		a, b := m.caches[0], m.caches[1]
		mustSet(t, a, "set", "old", time.Hour)
		mustSet(t, a, "deleted", "old", time.Hour)
		mustHave(t, b, "set", "old")
		mustHave(t, b, "deleted", "old")
		m.store.fail(cluster.ErrKVUnavailable)
		mustSet(t, a, "set", "new", time.Hour)
		if err := a.Delete(ctx, "deleted"); err != nil {
			t.Fatal(err)
		}
		m.store.fail(nil)
		// The store is back before the debt is paid: the old values are there,
		// and are not used.
		for _, c := range m.caches {
			mustMiss(t, c, "set")
			mustMiss(t, c, "deleted")
			if _, ok, err := c.TTL(ctx, "set"); ok || err != nil {
				t.Errorf("ttl: %v, %v", ok, err)
			}
			if got, err := c.GetMany(ctx, []string{"set", "deleted"}); len(got) != 0 || err != nil {
				t.Errorf("get many: %v, %v", got, err)
			}
		}
		if st := a.Stats(); st.Owed != 2 || st.DroppedWrites != 2 {
			t.Errorf("got %+v", st)
		}
		if st := b.Stats(); st.Owed != 0 {
			t.Errorf("got %+v", st)
		}
		// What is set since is not deleted by paying.
		time.Sleep(2 * voidMargin)
		mustSet(t, b, "set", "newer", time.Hour)
		time.Sleep(2 * payEvery)
		if st := a.Stats(); st.Owed != 0 {
			t.Errorf("got %+v", st)
		}
		for _, c := range m.caches {
			mustHave(t, c, "set", "newer")
			mustMiss(t, c, "deleted")
		}
		// And the store itself has forgotten.
		if _, ok, _ := m.store.Get(ctx, "test\x00deleted"); ok {
			t.Error("the store still has it")
		}
	})
}

func TestGravesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGraves()
		g.max = 10
		for i := range 8 {
			if !g.dig(fmt.Sprint("others", i), 1, false) {
				t.Fatal("no room")
			}
		}
		for i := range 10 { // others make room
			if !g.dig(fmt.Sprint("own", i), 1, true) {
				t.Fatal("no room")
			}
		}
		if g.dig("one more", 1, true) || g.dig("one more", 1, false) {
			t.Error("there was room")
		}
		if !g.dig("own3", 7, false) || !g.void("own3", 7) || g.void("own3", 8) || g.void("others1", 1) {
			t.Error("wrong instants")
		}
		if n := len(g.debts()); n != 10 {
			t.Errorf("%d debts", n)
		}
		g.paid("own3", 1) // an older debt
		g.paid("own4", 1)
		if n := len(g.debts()); n != 9 {
			t.Errorf("%d debts", n)
		}
		time.Sleep(owedTTL + 1)
		if n := len(g.debts()); n != 0 || !g.empty() {
			t.Errorf("%d debts", n)
		}
	})
}

// Where there is no room to remember a delete it says so.
func TestTooManyOwed(t *testing.T) {
	m := newMembers(t, 1, nil)
	c := m.caches[0]
	c.graves.max = 1
	m.store.fail(cluster.ErrKVUnavailable)
	ctx := context.Background()
	if err := c.Delete(ctx, "1"); err != nil {
		t.Fatal(err)
	}
	if err := c.Delete(ctx, "2"); !errors.Is(err, ErrUnavailable) {
		t.Fatalf("got %v", err)
	}
}

func FuzzTold(f *testing.F) {
	f.Add(appendTold(nil, tellDrop, 0, "k"))
	f.Add(appendTold(nil, tellPrefix, 0, ""))
	f.Add([]byte{tellVoid})
	f.Fuzz(func(t *testing.T, b []byte) {
		what, at, key, err := parseTold(b)
		if err != nil {
			return
		}
		if again := appendTold(nil, what, at, key); !bytes.Equal(again, b) {
			t.Fatalf("%x became %x", b, again)
		}
	})
}

// silent is a store that answers nothing until its callers give up.
type silent struct{ *store }

func (s silent) Get(ctx context.Context, _ string) (cluster.KVItem, bool, error) {
	<-ctx.Done()
	return cluster.KVItem{}, false, cluster.ErrKVUnavailable
}

func (s silent) Set(ctx context.Context, _ string, _ []byte, _ time.Duration) error {
	<-ctx.Done()
	return cluster.ErrKVUnavailable
}

func (s silent) Delete(ctx context.Context, _ string) error {
	<-ctx.Done()
	return cluster.ErrKVUnavailable
}

// However long the store is silent, no call waits for longer than Timeout.
func TestSilentStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		c, err := New[string](Config{KV: cluster.NewKV(silent{newStore()}, nil)})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		for name, f := range map[string]func() error{
			"get": func() error { _, _, err := c.Get(ctx, "k"); return err },
			"load": func() error {
				_, err := c.GetOrLoad(ctx, "k", time.Minute, func(context.Context) (string, error) { return "v", nil })
				return err
			},
			"set":    func() error { return c.Set(ctx, "k", "v", time.Minute) },
			"delete": func() error { return c.Delete(ctx, "k") },
			"ttl":    func() error { _, _, err := c.TTL(ctx, "k"); return err },
		} {
			c.ResetBreaker()
			c.near.DropAll()
			began := time.Now()
			if err := f(); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if took := time.Since(began); took > c.cfg.Timeout {
				t.Errorf("%s took %v", name, took)
			}
		}
	})
}

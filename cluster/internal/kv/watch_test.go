package kv

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// quick are timings for tests of what takes long.
func quick(c *Config) {
	t := timings{}.orDefaults()
	t.broken = time.Second
	t.probe = 100 * time.Millisecond
	t.settle = 300 * time.Millisecond
	t.start = 3 * time.Second
	c.timings = t
}

// An olric that doesn't answer is started anew, and what it held is there again.
func TestWatchdog(t *testing.T) {
	t.Parallel()
	n := newTestNet(t)
	var log syncBuffer
	n.logger = slog.New(slog.NewTextHandler(&log, nil))
	ctx := context.Background()
	var told atomic.Int64
	a := n.start(func(c *Config) {
		quick(c)
		c.Available = func() { told.Add(1) }
	})
	const count = 300
	n.fill(a, count)
	// It is wedged: nothing gets in or out any more.
	a.current().kill()
	before := a.current().name
	// Alone it never asks anybody, so that it must also be deaf to itself.
	a.caller.Store(&caller{DMap: noDMap{}})
	if err := a.Set(ctx, "k", nil, time.Minute); !errors.Is(err, ErrUnavailable) {
		t.Fatalf("got %v", err)
	}
	eventually(t, 10*time.Second, func() error {
		if st := a.Stats(); st.Restarts != 1 || st.State != "available" {
			return fmt.Errorf("%+v", st)
		}
		return nil
	})
	if a.current().name == before {
		t.Error("the new olric has the name of the old one")
	}
	eventually(t, 5*time.Second, func() error {
		if missing := n.missing(a, count); missing > 0 {
			return fmt.Errorf("%d of %d are missing", missing, count)
		}
		return nil
	})
	eventually(t, 5*time.Second, func() error {
		if got := told.Load(); got != 2 {
			return fmt.Errorf("told %d times that it is available, not 2", got)
		}
		return nil
	})
	if !a.Healthy() {
		t.Error("not healthy")
	}
	out := log.String()
	for line, want := range map[string]int{"kv unavailable": 1, "kv available": 2} {
		if got := strings.Count(out, `"`+line+`"`); got != want {
			t.Errorf("%d lines %q, want %d, in\n%s", got, line, want, out)
		}
	}
}

// Members that could not see each other when they started come together.
func TestMerge(t *testing.T) {
	t.Parallel()
	n := newTestNet(t)
	apart := func(c *Config) {
		quick(c)
		all := c.Peers
		start := time.Now()
		c.Peers = func() []Peer {
			if time.Since(start) < 500*time.Millisecond {
				return nil
			}
			return all()
		}
	}
	var ms []*testMember
	for i := range 3 {
		m := n.start(apart)
		ms = append(ms, m)
		if err := m.Set(context.Background(), key(i), []byte(value(i)), time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	for _, m := range ms {
		if st := m.Stats(); st.Members != 1 {
			t.Fatalf("not apart: %+v", st)
		}
	}
	began := time.Now()
	n.whole()
	t.Logf("together after %v", time.Since(began))
	eventually(t, 10*time.Second, func() error {
		for _, m := range ms {
			if missing := n.missing(m, 3); missing > 0 {
				return fmt.Errorf("member %d misses %d", m.boot, missing)
			}
		}
		return nil
	})
}

// A member that is gone without a word, sockets closed and all, costs no value.
func TestAbruptLoss(t *testing.T) {
	t.Parallel()
	n := newTestNet(t)
	const count = 1000
	a, b, c := n.start(nil), n.start(nil), n.start(nil)
	n.whole()
	n.fill(a, count)
	if err := c.Kill(); err != nil {
		t.Fatal(err)
	}
	n.mu.Lock()
	delete(n.members, c.boot)
	n.mu.Unlock()
	eventually(t, 20*time.Second, func() error {
		for _, m := range []*testMember{a, b} {
			if st := m.Stats(); st.Members != 2 || st.State != "available" {
				return fmt.Errorf("%+v", st)
			}
		}
		return nil
	})
	for _, m := range []*testMember{a, b} {
		if missing := n.missing(m, count); missing > 0 {
			t.Fatalf("%d of %d are missing", missing, count)
		}
	}
	c.stop(t)
}

// A deleted key stays deleted while its holders leave, one after the other, and
// loads that began before end late.
func TestDeleteThroughLeave(t *testing.T) {
	t.Parallel()
	n := newTestNet(t)
	ctx := context.Background()
	const count = 300
	a, b, c := n.start(nil), n.start(nil), n.start(nil)
	n.whole()
	n.fill(a, count)
	since := a.Now()
	for i := range count {
		eventually(t, 5*time.Second, func() error { return b.Delete(ctx, key(i)) })
	}
	var wg sync.WaitGroup
	stop := make(chan struct{})
	wg.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			_ = c.Fill(ctx, key(i%count), []byte("old"), time.Hour, since)
		}
	})
	n.leave(a)
	n.leave(b)
	close(stop)
	wg.Wait()
	for i := range count {
		mustMiss(t, c.Map, key(i))
	}
}

// What was deleted is not filled in again by an owner that has just become it,
// and can't ask the one that knows of the delete.
func TestFillInDoubt(t *testing.T) {
	t.Parallel()
	n := newTestNet(t)
	ctx := context.Background()
	var deaf atomic.Bool
	cfg := func(c *Config) {
		c.Call = func(ctx context.Context, boot uint64, kind CallKind, request []byte) ([]byte, error) {
			if kind == CallBackup && deaf.Load() {
				return nil, errors.New("no answer")
			}
			return n.call(ctx, boot, kind, request)
		}
	}
	a, b := n.start(cfg), n.start(cfg)
	n.whole()
	since := a.Now()
	const count = 100
	for i := range count {
		eventually(t, 5*time.Second, func() error { return a.Delete(ctx, key(i)) })
	}
	for _, m := range []*testMember{a, b} {
		g := m.current().engine
		for part := range g.owned {
			if s := g.owned[part].Load(); s != nil {
				s.mu.Lock()
				for hkey := range s.m {
					s.removeLocked(hkey)
				}
				s.mu.Unlock()
			}
		}
	}
	deaf.Store(true)
	for i := range count {
		for _, m := range []*testMember{a, b} {
			if err := m.Fill(ctx, key(i), []byte("old"), time.Hour, since); !errors.Is(err, ErrUnavailable) {
				t.Fatalf("fill %q at member %d: %v", key(i), m.boot, err)
			}
			if _, err := m.SetIfAbsent(ctx, key(i), []byte("old"), time.Hour); !errors.Is(err, ErrUnavailable) {
				t.Fatalf("set %q if absent, at member %d: %v", key(i), m.boot, err)
			}
		}
	}
	deaf.Store(false)
	for i := range count {
		if err := b.Fill(ctx, key(i), []byte("old"), time.Hour, since); err != nil {
			t.Fatal(err)
		}
		mustMiss(t, a.Map, key(i))
	}
}

// A member that leaves, and has stopped its olric, still answers those who have
// not heard of it: what it has as a backup is kept up to date, and what it has
// can be read.
func TestRetired(t *testing.T) {
	t.Parallel()
	n := newTestNet(t)
	ctx := context.Background()
	const count = 20
	a, b := n.start(nil), n.start(nil)
	n.whole()
	n.fill(a, count)
	in := a.current()
	in.retired.Store(true)
	written, refused := 0, 0
	for i := range count {
		if it := mustGet(t, b.Map, key(i)); string(it.Value) != value(i) {
			t.Fatalf("%s holds %q", key(i), it.Value)
		}
		switch err := b.Set(ctx, key(i), []byte("new"), time.Hour); {
		case err == nil:
			written++
			if e := in.engine.find(key(i)); string(e.payload()) != "new" {
				t.Fatalf("%s: its backup holds %q", key(i), e.payload())
			}
		case errors.Is(err, ErrUnavailable):
			refused++
		default:
			t.Fatal(err)
		}
	}
	if written == 0 || refused == 0 {
		t.Errorf("%d were written, %d refused", written, refused)
	}
	if st, err := b.askStatusOf(ctx, a.boot); err == nil {
		t.Errorf("it says that it runs %+v", st)
	}
	in.retired.Store(false)
}

// After it has left a member's calls are answered by the others.
func TestCallsAfterLeave(t *testing.T) {
	n := newTestNet(t)
	ctx := context.Background()
	a, b := n.start(nil), n.start(nil)
	n.whole()
	n.fill(a, 100)
	leave, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := b.Leave(leave); err != nil {
		t.Fatal(err)
	}
	if err := b.Leave(leave); err != nil {
		t.Errorf("again: %v", err)
	}
	if missing := n.missing(b, 100); missing > 0 {
		t.Errorf("%d of 100 are missing", missing)
	}
	if err := b.Set(ctx, "k", []byte("v"), time.Minute); err != nil {
		t.Fatal(err)
	}
	if it := mustGet(t, a.Map, "k"); string(it.Value) != "v" {
		t.Errorf("got %q", it.Value)
	}
	if st := b.Stats(); st.State != "left" || !b.Healthy() {
		t.Errorf("got %+v", st)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := b.Get(ctx, "k"); !errors.Is(err, ErrClosed) {
		t.Errorf("after close: %v", err)
	}
}

// A member that has left asks the others, and outlives them: olric's client
// panics on some errors of dialing.
func TestLeftMemberOutlivesOthers(t *testing.T) {
	t.Parallel()
	n := newTestNet(t)
	ctx := context.Background()
	a, b := n.start(nil), n.start(nil)
	n.whole()
	n.fill(a, 20)
	leave, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := b.Leave(leave); err != nil {
		t.Fatal(err)
	}
	_ = a.ln.Close() // its connections are refused from here on
	if err := a.Kill(); err != nil {
		t.Fatal(err)
	}
	if _, err := b.dialFor(ctx, &instance{}, LoopbackAddr(a.boot).String()+":1"); err == nil || errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("olric is told of %v", err)
	}
	for range 4 { // it fetches the partition table every 250 ms
		time.Sleep(250 * time.Millisecond)
		if _, _, err := b.Get(ctx, key(1)); !errors.Is(err, ErrUnavailable) {
			t.Errorf("got %v", err)
		}
	}
}

// One olric that takes streams and says nothing holds nobody up for longer than
// a call may take.
func TestSilentPeer(t *testing.T) {
	t.Parallel()
	n := newTestNet(t)
	a, b := n.start(nil), n.start(nil)
	n.whole()
	n.fill(a, 50)
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	n.mu.Lock()
	b.dial = silent.Addr().String() // accepted by the system, read by nobody
	n.mu.Unlock()
	a.current().kill() // no connection is left from before
	a.current().mu.Lock()
	a.current().cut = false
	a.current().mu.Unlock()
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			began := time.Now()
			_, _, err := a.Get(context.Background(), key(i))
			if took := time.Since(began); took > a.timings.call+200*time.Millisecond {
				t.Errorf("took %v (%v)", took, err)
			}
		})
	}
	wg.Wait()
}

// At level info a member says little about its start, the joining of two others
// and its end.
func TestFewLogLines(t *testing.T) {
	t.Parallel()
	n := newTestNet(t)
	var log syncBuffer
	a := n.start(func(c *Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	n.start(nil)
	n.start(nil)
	n.whole()
	n.fill(a, 500)
	time.Sleep(2 * time.Second)
	n.leave(a)
	lines := strings.Count(log.String(), "\n")
	t.Logf("%d lines:\n%s", lines, log.String())
	if lines > 60 {
		t.Errorf("%d lines", lines)
	}
	if strings.Contains(log.String(), "password") || strings.Contains(log.String(), key(1)) {
		t.Error("a secret or a key was logged")
	}
}

// A member of another cluster name or without the secret is never let in.
func TestStrangers(t *testing.T) {
	t.Parallel()
	n := newTestNet(t)
	a := n.start(nil)
	for what, change := range map[string]func(*Config){
		"secret": func(c *Config) { c.Secrets = [][]byte{[]byte("another")} },
		"none":   func(c *Config) { c.Secrets = nil },
		"name":   func(c *Config) { c.ClusterName = "another" },
	} {
		b := n.start(func(c *Config) { quick(c); change(c) })
		time.Sleep(300 * time.Millisecond)
		if st := a.Stats(); st.Members != 1 {
			t.Errorf("%s: %+v", what, st)
		}
		if st := b.Stats(); st.Members != 1 {
			t.Errorf("%s: %+v", what, st)
		}
		n.mu.Lock()
		delete(n.members, b.boot)
		n.mu.Unlock()
		b.stop(t)
	}
}

func TestIdleMemory(t *testing.T) {
	t.Parallel()
	if testing.Short() || raceEnabled {
		t.Skip("takes 5 s, and means nothing with the race detector")
	}
	n := newTestNet(t)
	m := n.startProcess()
	a := n.start(nil)
	n.start(nil)
	n.whole()
	n.fill(a, 100)
	before := cpuTime(m.child.cmd.Process.Pid)
	time.Sleep(5 * time.Second)
	// It is olric's coordinator, which does more than the others.
	t.Logf("it used %v of processor time in 5 s", cpuTime(m.child.cmd.Process.Pid)-before)
	kib := m.child.ask(t, childOrder{Ask: "rss"})
	t.Logf("an idle member has %s KiB resident", kib)
	var n64 int
	if _, err := fmt.Sscan(kib, &n64); err != nil || n64 <= 0 || n64 > 64<<10 {
		t.Errorf("resident: %s KiB, want at most 64 MiB", kib)
	}
}

type syncBuffer struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

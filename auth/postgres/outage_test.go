package postgres_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/peerlimit/peerlimit/auth"
	"github.com/peerlimit/peerlimit/auth/postgres"
)

// gate is a way to the server that can be closed: connections break and new ones are refused, as when it is stopped.
type gate struct {
	t      *testing.T
	server string
	addr   string

	mu       sync.Mutex // guards all below
	listener net.Listener
	conns    map[net.Conn]bool
	wg       sync.WaitGroup
}

func newGate(t *testing.T, server string) *gate {
	g := &gate{t: t, server: server, addr: "127.0.0.1:0", conns: map[net.Conn]bool{}}
	g.open()
	t.Cleanup(g.close)
	return g
}

func (g *gate) open() {
	g.t.Helper()
	l, err := net.Listen("tcp", g.addr)
	if err != nil {
		g.t.Fatal(err)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.listener, g.addr = l, l.Addr().String()
	g.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			g.wg.Go(func() { g.pass(c) })
		}
	})
}

func (g *gate) pass(client net.Conn) {
	server, err := net.Dial("tcp", g.server)
	if err != nil {
		_ = client.Close()
		return
	}
	g.mu.Lock()
	g.conns[client], g.conns[server] = true, true
	g.mu.Unlock()
	var wg sync.WaitGroup
	for _, way := range [][2]net.Conn{{client, server}, {server, client}} {
		wg.Go(func() {
			_, _ = io.Copy(way[0], way[1])
			_ = way[0].Close()
			_ = way[1].Close()
		})
	}
	wg.Wait()
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.conns, client)
	delete(g.conns, server)
}

func (g *gate) close() {
	g.mu.Lock()
	_ = g.listener.Close()
	for c := range g.conns {
		_ = c.Close()
	}
	g.mu.Unlock()
	g.wg.Wait()
}

type countingStore struct {
	*postgres.Store
	lookups atomic.Int64
}

func (s *countingStore) Lookup(ctx context.Context, d auth.Digest) (auth.Key, error) {
	s.lookups.Add(1)
	return s.Store.Lookup(ctx, d)
}

// The server goes away and comes back under an Authenticator that is in use.
func TestOutage(t *testing.T) {
	address := schema(t)
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	g := newGate(t, u.Host)
	u.Host = g.addr
	store := &countingStore{Store: open(t, u.String())}
	const fresh = 400 * time.Millisecond
	a, err := auth.New(auth.Config{Store: store, PositiveTTL: fresh, StaleTTL: time.Hour, NegativeTTL: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	issued, err := a.Create(t.Context(), auth.Spec{Project: "p"})
	if err != nil {
		t.Fatal(err)
	}
	key, unknown := issued.Secret.Reveal(), "unknown-to-all-of-them"
	verify := func(key string) (auth.Result, error) { return a.Verify(t.Context(), key) }
	if r, err := verify(key); r.Verdict != auth.Valid {
		t.Fatal(r.Verdict, err)
	}
	if r, err := verify(unknown); r.Verdict != auth.NotFound {
		t.Fatal(r.Verdict, err)
	}

	g.close()
	closed, stale := time.Now(), 0
	for time.Since(closed) < 3*fresh {
		r, err := verify(key)
		if r.Verdict != auth.Valid {
			t.Fatalf("%v after the server was gone: %v, %v", time.Since(closed), r.Verdict, err)
		}
		if r.Stale {
			stale++
		}
		if r, err := verify(unknown); r.Verdict == auth.Valid || r.Verdict == auth.NotFound && time.Since(closed) > fresh {
			t.Fatalf("unknown, %v after the server was gone: %v, %v", time.Since(closed), r.Verdict, err)
		}
		time.Sleep(5 * time.Millisecond)
	}
	if stale == 0 || a.Stats().StaleServed == 0 {
		t.Error("nothing was served as stale")
	}
	if r, err := verify(unknown); r.Verdict != auth.Unavailable || !errors.Is(err, auth.ErrUnavailable) {
		t.Errorf("unknown: %v, %v", r.Verdict, err)
	}
	if _, err := a.Disable(t.Context(), issued.Key.ID); err == nil {
		t.Error("a key was disabled without a store")
	}

	g.open()
	opened := time.Now()
	store.lookups.Store(0)
	for {
		r, err := verify(key)
		if r.Verdict != auth.Valid {
			t.Fatalf("%v after the server was back: %v, %v", time.Since(opened), r.Verdict, err)
		}
		if !r.Stale {
			break
		}
		if time.Since(opened) > 5*time.Second {
			t.Fatal("still stale 5 s after the server was back")
		}
		time.Sleep(5 * time.Millisecond)
	}
	if n := store.lookups.Load(); n != 1 {
		t.Errorf("%d look-ups of one key, want 1", n)
	}
	if r, err := verify(unknown); r.Verdict != auth.NotFound {
		t.Errorf("unknown: %v, %v", r.Verdict, err)
	}
	t.Logf("normal %v after the server was back, %d answers were stale", time.Since(opened).Round(time.Millisecond), stale)
	if _, err := a.Disable(t.Context(), issued.Key.ID); err != nil {
		t.Error(err)
	}
	if r, err := verify(key); r.Verdict != auth.Disabled {
		t.Error(r.Verdict, err)
	}
}

package kv

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"sync"
	"testing"
	"time"
)

// testNet is a cluster of stores in one process: streams are plain TCP on
// loopback, the membership is a list.
type testNet struct {
	t      testing.TB
	secret []byte
	logger *slog.Logger

	mu      sync.Mutex
	next    uint64
	members map[uint64]*testMember
}

type testMember struct {
	*Store
	boot   uint64
	gossip string
	ln     net.Listener
	dial   string
	wg     sync.WaitGroup
	child  *child // a process of its own, in place of Store
}

func newTestNet(t testing.TB) *testNet {
	n := &testNet{t: t, secret: []byte("a secret of the test"), members: make(map[uint64]*testMember)}
	if os.Getenv("KV_LOG") != "" {
		n.logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	t.Cleanup(n.closeAll)
	return n
}

func (n *testNet) closeAll() {
	n.mu.Lock()
	all := n.members
	n.members = make(map[uint64]*testMember)
	n.mu.Unlock()
	for _, m := range all {
		m.stop(n.t)
	}
}

func (m *testMember) stop(t testing.TB) {
	if m.child != nil {
		m.child.kill()
		return
	}
	if err := m.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	_ = m.ln.Close()
	m.wg.Wait()
}

// peers lists the others as a membership would.
func (n *testNet) peers(self uint64) []Peer {
	n.mu.Lock()
	defer n.mu.Unlock()
	var ps []Peer
	for boot, m := range n.members {
		if boot != self {
			ps = append(ps, Peer{Boot: boot, Gossip: m.gossip})
		}
	}
	return ps
}

func (n *testNet) dialStream(ctx context.Context, boot uint64) (net.Conn, error) {
	n.mu.Lock()
	m := n.members[boot]
	n.mu.Unlock()
	if m == nil {
		return nil, errors.New("no such member")
	}
	var d net.Dialer
	return d.DialContext(ctx, "tcp", m.dial)
}

// call asks a member of this process; children are asked by streams.
func (n *testNet) call(_ context.Context, boot uint64, _ CallKind, request []byte) ([]byte, error) {
	n.mu.Lock()
	m := n.members[boot]
	n.mu.Unlock()
	switch {
	case m == nil:
		return nil, errors.New("no such member")
	case m.child != nil:
		return nil, nil
	}
	return m.ServeCall(request)
}

// start starts a member and waits until it serves.
func (n *testNet) start(cfg func(*Config)) *testMember {
	n.t.Helper()
	g, err := Listen("127.0.0.1:0", "")
	if err != nil {
		n.t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		n.t.Fatal(err)
	}
	n.mu.Lock()
	n.next++
	m := &testMember{boot: n.next, gossip: g.Addr(), ln: ln, dial: ln.Addr().String()}
	n.mu.Unlock()
	c := Config{
		ClusterName: n.t.Name(),
		Secrets:     [][]byte{n.secret},
		Gossip:      g,
		Boot:        m.boot,
		Peers:       func() []Peer { return n.peers(m.boot) },
		DialStream:  n.dialStream,
		Call:        n.call,
		Logger:      n.logger,
	}
	if cfg != nil {
		cfg(&c)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if m.Store, err = Start(c); err != nil {
		n.t.Fatal(err)
	}
	m.wg.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			m.wg.Go(func() { m.ServeStream(conn) })
		}
	})
	n.mu.Lock()
	n.members[m.boot] = m
	n.mu.Unlock()
	n.tellChildren()
	if err := m.Ready(ctx); err != nil {
		n.t.Fatal(err)
	}
	return m
}

// leave lets a member leave gracefully.
func (n *testNet) leave(m *testMember) {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := m.Leave(ctx); err != nil {
		n.t.Errorf("leave: %v", err)
	}
	n.mu.Lock()
	delete(n.members, m.boot)
	n.mu.Unlock()
	m.stop(n.t)
}

// whole waits until every member's olric knows all of them.
func (n *testNet) whole() {
	n.t.Helper()
	n.mu.Lock()
	want := len(n.members)
	n.mu.Unlock()
	eventually(n.t, 20*time.Second, func() error {
		n.mu.Lock()
		defer n.mu.Unlock()
		for _, m := range n.members {
			if m.child != nil {
				continue
			}
			if st := m.Stats(); st.Members != want {
				return fmt.Errorf("member %d: %+v", m.boot, st)
			}
		}
		return nil
	})
}

func eventually(t testing.TB, limit time.Duration, f func() error) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func key(i int) string   { return fmt.Sprintf("key-%d", i) }
func value(i int) string { return fmt.Sprintf("value-%d", i) }

// held counts the keys that m itself has.
func (m *testMember) held() int {
	n := 0
	m.current().engine.each(func(uint64, envelope) { n++ })
	return n
}

// fill stores count values, trying again where the store is between two states.
func (n *testNet) fill(m *testMember, count int) {
	n.t.Helper()
	for i := range count {
		eventually(n.t, 5*time.Second, func() error {
			return m.Set(context.Background(), key(i), []byte(value(i)), time.Hour)
		})
	}
}

// missing counts how many of the values m doesn't find. Where olric's owner of a
// key gets no answer from the backup it says that there is nothing, so that a
// miss counts only if it stays one.
func (n *testNet) missing(m *testMember, count int) int {
	n.t.Helper()
	left := make([]int, count)
	for i := range left {
		left[i] = i
	}
	for try := range 10 {
		if try > 0 {
			n.t.Logf("%d misses, looking again: the first is %s", len(left), key(left[0]))
			time.Sleep(100 * time.Millisecond)
		}
		left = slices.DeleteFunc(left, func(i int) bool { return n.has(m, i) })
		if len(left) == 0 {
			break
		}
	}
	return len(left)
}

func (n *testNet) has(m *testMember, i int) (ok bool) {
	n.t.Helper()
	var it Item
	eventually(n.t, 5*time.Second, func() (err error) {
		it, ok, err = m.Get(context.Background(), key(i))
		return err
	})
	if ok && string(it.Value) != value(i) {
		n.t.Fatalf("key %d: got %q", i, it.Value)
	}
	return ok
}

func TestRollingRestart(t *testing.T) {
	t.Parallel()
	n := newTestNet(t)
	const count = 2000
	ms := []*testMember{n.start(nil), n.start(nil), n.start(nil)}
	n.whole()
	began := time.Now()
	n.fill(ms[0], count)
	t.Logf("%d sets in %v", count, time.Since(began))
	for i := range ms {
		began := time.Now()
		n.leave(ms[i])
		t.Logf("left in %v", time.Since(began))
		if missing := n.missing(ms[(i+1)%3], count); missing > 0 {
			t.Fatalf("after member %d left: %d of %d are missing", i, missing, count)
		}
		began = time.Now()
		ms[i] = n.start(nil)
		n.whole()
		t.Logf("joined in %v", time.Since(began))
		if missing := n.missing(ms[i], count); missing > 0 {
			t.Fatalf("after member %d came back: %d of %d are missing", i, missing, count)
		}
	}
}

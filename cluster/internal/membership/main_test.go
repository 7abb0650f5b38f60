package membership

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

// memberlist does not wait for its goroutines on Shutdown: a probe under way
// ends with its interval, at most awarenessMax × probeInterval.
func TestMain(m *testing.M) {
	_ = flag.Set("test.parallel", "4") // in place of its default: they mostly wait
	code := m.Run()
	var err error
	for range 10 {
		if err = goleak.Find(); err == nil {
			break
		}
	}
	if err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// lan is a network of members on loopback, which can be cut in parts.
type lan struct {
	t *testing.T

	mu   sync.Mutex
	part map[string]int // by gossip address; members of different parts don't reach each other
}

func newLAN(t *testing.T) *lan { return &lan{t: t, part: make(map[string]int)} }

// put moves members to a part of the network.
func (l *lan) put(part int, members ...*peer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range members {
		l.part[p.addr()] = part
	}
}

func (l *lan) reaches(from func() string) func(to string) bool {
	return func(to string) bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.part[from()] == l.part[to]
	}
}

// peer is a member under test and what it reported.
type peer struct {
	*Membership
	log *logBuffer

	mu      sync.Mutex
	changes []Change
}

func (p *peer) addr() string { return p.transport.advertise.String() }

func (p *peer) changed(c Change) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.changes = append(p.changes, c)
}

// count returns how many changes of one kind there were about a boot.
func (p *peer) count(kind Kind, boot uint64) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for _, c := range p.changes {
		if c.Kind == kind && c.Member.Boot == boot {
			n++
		}
	}
	return n
}

// start runs a member until the test ends.
func (l *lan) start(id string, edit func(*Config)) *peer {
	l.t.Helper()
	p := &peer{log: new(logBuffer)}
	var addr string
	var ready sync.WaitGroup
	ready.Add(1)
	cfg := Config{
		Cluster:     "test",
		Meta:        Meta{ID: id, Peer: "127.0.0.1:1", ProtoMin: 1, ProtoMax: 1},
		Boot:        NewBoot(),
		Bind:        "127.0.0.1:0",
		Advertise:   netip.MustParseAddr("127.0.0.1"),
		JoinTimeout: 2 * time.Second,
		OnChange:    p.changed,
		Logger:      slog.New(slog.NewTextHandler(p.log, nil)),
		reaches:     func(to string) bool { ready.Wait(); return l.reaches(func() string { return addr })(to) },
	}
	if edit != nil {
		edit(&cfg)
	}
	m, err := Start(cfg)
	require.NoError(l.t, err)
	p.Membership = m
	addr = p.addr()
	ready.Done()
	l.t.Cleanup(func() { require.NoError(l.t, m.Shutdown()) })
	return p
}

func seedsOf(seeds ...string) func(*Config) {
	return func(c *Config) { c.Seeds = seeds }
}

// within waits until ok, and fails the test if that takes longer than d.
func within(t *testing.T, d time.Duration, what string, ok func() bool) time.Duration {
	t.Helper()
	begin := time.Now()
	for !ok() {
		if time.Since(begin) > d {
			t.Fatalf("not within %s: %s", d, what)
		}
		time.Sleep(2 * time.Millisecond)
	}
	return time.Since(begin)
}

// see tells whether each of the members sees exactly them.
func see(members ...*peer) bool {
	want := make(map[uint64]bool)
	for _, p := range members {
		want[p.boot] = true
	}
	for _, p := range members {
		got := p.Members()
		if len(got) != len(want) {
			return false
		}
		for _, m := range got {
			if !want[m.Boot] {
				return false
			}
		}
	}
	return true
}

type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func (b *logBuffer) has(texts ...string) bool {
	s := b.String()
	for _, text := range texts {
		if !strings.Contains(s, text) {
			return false
		}
	}
	return true
}

// names is a resolver whose answers can be changed.
type names struct {
	mu    sync.Mutex
	addrs map[string][]netip.Addr
}

func (n *names) set(host string, addrs ...string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.addrs == nil {
		n.addrs = make(map[string][]netip.Addr)
	}
	n.addrs[host] = nil
	for _, a := range addrs {
		n.addrs[host] = append(n.addrs[host], netip.MustParseAddr(a))
	}
}

func (n *names) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if a, ok := n.addrs[host]; ok {
		return a, nil
	}
	return nil, fmt.Errorf("lookup %s: no such host", host)
}

package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit/cluster/internal/ring"
)

var testSecret = []byte("a secret for tests, and no other use")

// logText is a log that a test reads.
type logText struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

// lines returns how many lines hold all the texts.
func (l *logText) lines(texts ...string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for line := range strings.Lines(l.buf.String()) {
		all := true
		for _, text := range texts {
			all = all && strings.Contains(line, text)
		}
		if all {
			n++
		}
	}
	return n
}

// testNode starts a member that ends, without draining, with the test.
func testNode(t *testing.T, id string, edit func(*Config), join ...*Node) (*Node, *logText) {
	t.Helper()
	log := new(logText)
	cfg := Config{
		ClusterName: "test", NodeID: id, Bind: "127.0.0.1:0", Secret: testSecret,
		DrainTimeout: 2 * time.Second, Logger: slog.New(slog.NewTextHandler(log, nil)),
	}
	for _, n := range join {
		cfg.Join = append(cfg.Join, n.Self().Gossip)
	}
	if edit != nil {
		edit(&cfg)
	}
	n, err := Start(context.Background(), cfg)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, n.kill()) })
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	for ctx.Err() == nil && !errors.Is(n.Ready(), ErrRefused) {
		wait, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
		err := n.AwaitReady(wait)
		cancel()
		if err == nil {
			break
		}
	}
	return n, log
}

func eventually(t *testing.T, d time.Duration, what string, ok func() bool) {
	t.Helper()
	for begin := time.Now(); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Since(begin) > d {
			t.Fatalf("not within %s: %s", d, what)
		}
	}
}

// together tells whether the members see exactly each other.
func together(nodes ...*Node) bool {
	for _, n := range nodes {
		if len(n.Members()) != len(nodes) || n.ring.Load().Version() != nodes[0].ring.Load().Version() {
			return false
		}
	}
	return true
}

func TestAMemberByItself(t *testing.T) {
	begin := time.Now()
	n, log := testNode(t, "a", func(c *Config) { c.Zone, c.Version = "z", "v1" })
	assert.Less(t, time.Since(begin), time.Second)
	assert.NoError(t, n.Ready())
	assert.Equal(t, 1, log.lines("msg=ready", "node=a"))
	self := n.Self()
	assert.Equal(t, "a", self.Name)
	assert.NotZero(t, self.Boot)
	assert.Equal(t, StateAlive, self.State)
	assert.Equal(t, []Member{self}, n.Members())
	assert.Equal(t, ring.Slots, n.ring.Load().OwnedCount(ring.Boot(self.Boot)))
	require.NoError(t, n.Close())
	assert.ErrorIs(t, n.Ready(), ErrClosed)
}

// The status is read by scripts: its names are part of the interface.
func TestStatusAsJSON(t *testing.T) {
	t.Parallel()
	a, _ := testNode(t, "a", func(c *Config) { c.Zone, c.Version, c.MinMembers = "z", "v1", 3 })
	b, _ := testNode(t, "b", nil, a)
	eventually(t, 5*time.Second, "joined", func() bool { return together(a, b) })
	text, err := json.Marshal(a.Status())
	require.NoError(t, err)
	var got map[string]any
	require.NoError(t, json.Unmarshal(text, &got))
	assert.Equal(t, "test", got["name"])
	assert.Equal(t, "a", got["self"])
	assert.Equal(t, true, got["short"])
	assert.Equal(t, true, got["ready"], "being short of members is no reason to be taken out")
	assert.Equal(t, map[string]any{"b": "closed"}, got["breakers"])
	assert.GreaterOrEqual(t, got["uptime_ms"], 0.0)
	assert.Contains(t, got["kv"], "state")
	assert.Contains(t, got["kv"], "breaker")
	members := got["members"].([]any)
	require.Len(t, members, 2)
	first := members[0].(map[string]any)
	assert.Equal(t, []any{"a", "alive", "z", "v1", a.Self().Peer},
		[]any{first["name"], first["state"], first["zone"], first["version"], first["peer"]})
	assert.EqualValues(t, ring.Slots, first["owned_slots"].(float64)+members[1].(map[string]any)["owned_slots"].(float64))
	assert.Equal(t, map[string]any{"version": b.Status().Ring.Version, "slots": 16384.0}, got["ring"])
}

func TestCallAndBroadcast(t *testing.T) {
	t.Parallel()
	a, _ := testNode(t, "a", nil)
	b, _ := testNode(t, "b", nil, a)
	c, _ := testNode(t, "c", nil, a)
	eventually(t, 5*time.Second, "joined", func() bool { return together(a, b, c) })
	for _, n := range []*Node{a, b, c} {
		n.Handle("greet", func(_ context.Context, from Member, payload []byte) ([]byte, error) {
			if string(payload) == "bad" && n == c {
				return nil, errors.New("not in the mood")
			}
			return fmt.Appendf(nil, "%s from %s to %s", payload, from.Name, n.Self().Name), nil
		})
	}
	ctx := context.Background()
	answer, err := a.Call(ctx, b.Self(), "greet", []byte("hello"))
	require.NoError(t, err)
	assert.Equal(t, "hello from a to b", string(answer))
	answer, err = a.Call(ctx, a.Self(), "greet", []byte("hello"))
	require.NoError(t, err)
	assert.Equal(t, "hello from a to a", string(answer))

	_, err = a.Call(ctx, c.Self(), "greet", []byte("bad"))
	var remote *RemoteError
	require.ErrorAs(t, err, &remote)
	assert.Equal(t, "not in the mood", remote.Text)
	_, err = a.Call(ctx, b.Self(), "unheard of", nil)
	assert.ErrorIs(t, err, ErrUnknownKind)
	_, err = a.Call(ctx, Member{Name: "x", Boot: 42}, "greet", nil)
	assert.ErrorIs(t, err, ErrUnknownMember)
	b.Handle("greet", nil)
	_, err = a.Call(ctx, b.Self(), "greet", nil)
	assert.ErrorIs(t, err, ErrUnknownKind)

	r := a.Broadcast(ctx, "greet", []byte("bad"))
	assert.Equal(t, 1, r.Reached)
	assert.Equal(t, 3, r.Members)
	assert.Equal(t, []string{"b", "c"}, r.Unreached)
	assert.False(t, r.Complete())
	assert.Positive(t, r.Took)

	assert.NoError(t, a.ResetBreaker("b"))
	assert.ErrorIs(t, a.ResetBreaker("nobody"), ErrUnknownMember)
	assert.ErrorIs(t, a.ResetBreaker("a"), ErrUnknownMember, "a member has no breaker to itself")
}

func TestJoinsLeavesAndLossesAreToldOnce(t *testing.T) {
	t.Parallel()
	a, log := testNode(t, "a", nil)
	var mu sync.Mutex
	var events []string
	stop := a.Watch(func(e Event) {
		mu.Lock()
		defer mu.Unlock()
		events = append(events, fmt.Sprint(e.Kind, " ", e.Member.Name, " ", e.Member.State))
	})
	told := func() string {
		mu.Lock()
		defer mu.Unlock()
		return strings.Join(events, "\n")
	}
	b, _ := testNode(t, "b", nil, a)
	eventually(t, 5*time.Second, "b", func() bool { return strings.Contains(told(), "member joined b") })
	c, _ := testNode(t, "c", nil, a)
	eventually(t, 5*time.Second, "c", func() bool { return strings.Contains(told(), "member joined c") })
	require.NoError(t, b.Close())
	require.NoError(t, c.kill())
	eventually(t, 8*time.Second, "both gone", func() bool { return len(a.Members()) == 1 && strings.Contains(told(), "lost") })
	assert.Equal(t, "member joined b alive\nmember joined c alive\nmember updated b draining\nmember left b left\nmember lost c dead", told())
	for _, line := range [][]string{
		{`msg="member joined"`, "member=b"}, {`msg="member joined"`, "member=c"},
		{`msg="member left"`, "member=b"}, {`msg="member lost"`, "member=c", "level=WARN"},
	} {
		assert.Equal(t, 1, log.lines(line...), "%v", line)
	}
	assert.Zero(t, log.lines("member lost", "member=b"))
	assert.Zero(t, log.lines("level=ERROR"))
	stop()
	d, _ := testNode(t, "d", nil, a)
	eventually(t, 5*time.Second, "d", func() bool { return together(a, d) })
	assert.NotContains(t, told(), "member joined d", "after stop")
}

func TestDrainTakesAMemberOutOfTheRing(t *testing.T) {
	t.Parallel()
	a, _ := testNode(t, "a", nil)
	b, _ := testNode(t, "b", nil, a)
	eventually(t, 5*time.Second, "joined", func() bool { return together(a, b) })
	a.Handle("echo", func(_ context.Context, _ Member, p []byte) ([]byte, error) { return p, nil })
	ctx := context.Background()
	require.NoError(t, b.Drain(ctx))
	require.NoError(t, b.Drain(ctx), "a second time")
	assert.ErrorIs(t, b.Ready(), ErrDraining)
	assert.Equal(t, StateDraining, b.Self().State)
	for _, n := range []*Node{a, b} {
		eventually(t, time.Second, "out of the ring", func() bool {
			return n.ring.Load().OwnedCount(ring.Boot(a.boot)) == ring.Slots
		})
		assert.Len(t, n.Members(), 2, "it still answers")
	}
	_, err := b.Call(ctx, a.Self(), "echo", []byte("x"))
	require.NoError(t, err)

	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() { assert.NoError(t, b.Close()) })
	}
	wg.Wait()
	require.NoError(t, b.Close())
	assert.ErrorIs(t, b.Ready(), ErrClosed)
	assert.NoError(t, b.Drain(ctx), "all was handed over")
	eventually(t, time.Second, "gone", func() bool { return len(a.Members()) == 1 })

	// Nobody is left to take over, so it serves until the end.
	require.NoError(t, a.Drain(ctx))
	assert.Equal(t, ring.Slots, a.ring.Load().OwnedCount(ring.Boot(a.boot)))
	_, err = b.Call(ctx, a.Self(), "echo", nil)
	assert.ErrorIs(t, err, ErrClosed)
}

func TestDrainEndsWithItsContext(t *testing.T) {
	a, _ := testNode(t, "a", nil)
	a.drainTurn <- struct{}{} // somebody else drains, and takes for ever
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	assert.ErrorIs(t, a.Drain(ctx), context.DeadlineExceeded)
	<-a.drainTurn
	assert.NoError(t, a.Drain(context.Background()))
}

func TestARefusedMemberIsNotReady(t *testing.T) {
	a, log := testNode(t, "a", nil)
	wrong := func(c *Config) { c.Secret, c.JoinTimeout = []byte("wrong"), 200*time.Millisecond }

	cfg := Config{ClusterName: "test", Bind: "127.0.0.1:0", Join: []string{a.Self().Gossip}}
	wrong(&cfg)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	_, err := Start(ctx, cfg)
	require.ErrorIs(t, err, context.DeadlineExceeded)

	begin := time.Now()
	b, _ := testNode(t, "b", wrong, a)
	assert.Less(t, time.Since(begin), time.Second+time.Second+2*time.Second)
	require.ErrorIs(t, b.Ready(), ErrRefused)
	assert.ErrorContains(t, b.Ready(), "another secret")
	s := b.Status()
	assert.False(t, s.Ready)
	assert.Contains(t, s.Reason, "another secret")
	assert.Equal(t, "refused", s.Joined)
	assert.Positive(t, log.lines("level=WARN", "a member with another secret or cluster name tried to join from 127.0.0.1"))
	assert.Len(t, a.Members(), 1)
	ctx, cancel = context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	assert.ErrorIs(t, b.AwaitReady(ctx), ErrRefused)
}

func TestANewLifeReplacesTheFormerOne(t *testing.T) {
	t.Parallel()
	a, log := testNode(t, "a", nil)
	b, _ := testNode(t, "b", nil, a)
	eventually(t, 5*time.Second, "joined", func() bool { return together(a, b) })
	former := b.Self()
	require.NoError(t, b.kill())
	again, _ := testNode(t, "b", func(c *Config) { c.Bind, c.PeerBind = former.Gossip, former.Peer }, a)
	assert.NotEqual(t, former.Boot, again.Self().Boot)
	// Well before the failure detection would notice: the address answers for
	// another life now.
	eventually(t, 1500*time.Millisecond, "the former life is over", func() bool { return together(a, again) })
	assert.Equal(t, 1, log.lines("member lost", bootText(former.Boot)))
	assert.Equal(t, 1, log.lines("member joined", bootText(again.Self().Boot)))
}

func TestSecretsOfARunningCluster(t *testing.T) {
	t.Parallel()
	a, _ := testNode(t, "a", nil)
	b, _ := testNode(t, "b", nil, a)
	eventually(t, 5*time.Second, "joined", func() bool { return together(a, b) })
	fresh := []byte("fresh")
	for _, step := range [][][]byte{{testSecret, fresh}, {fresh, testSecret}, {fresh}} {
		for _, n := range []*Node{a, b} {
			require.NoError(t, n.SetSecrets(step))
		}
	}
	c, _ := testNode(t, "c", func(c *Config) { c.Secret = fresh }, a)
	eventually(t, 5*time.Second, "joined", func() bool { return together(a, b, c) })
	for _, n := range []*Node{a, b, c} {
		n.Handle("echo", func(_ context.Context, _ Member, p []byte) ([]byte, error) { return p, nil })
	}
	eventually(t, 3*time.Second, "all reached", func() bool {
		return c.Broadcast(context.Background(), "echo", nil).Complete() && a.Broadcast(context.Background(), "echo", nil).Complete()
	})
	assert.ErrorContains(t, a.SetSecrets(nil), "begin or cease")
}

func TestAdvertisedAddresses(t *testing.T) {
	n, log := testNode(t, "a", func(c *Config) {
		c.Bind, c.PeerBind, c.Advertise, c.Secret = ":0", ":0", "127.0.0.1", []byte("short")
	})
	assert.True(t, strings.HasPrefix(n.Self().Gossip, "127.0.0.1:"), n.Self().Gossip)
	assert.True(t, strings.HasPrefix(n.Self().Peer, "127.0.0.1:"), n.Self().Peer)
	assert.Equal(t, 1, log.lines("secret is short", "bytes=5"))
	n, log = testNode(t, "b", func(c *Config) { c.PeerBind = "127.0.0.9:0" })
	assert.True(t, strings.HasPrefix(n.Self().Peer, "127.0.0.9:"), n.Self().Peer)
	assert.Zero(t, log.lines("level=WARN"))
}

func TestAddressesInUse(t *testing.T) {
	a, _ := testNode(t, "a", nil)
	for _, cfg := range []Config{
		{Bind: a.Self().Gossip, PeerBind: "127.0.0.1:0", KVBind: "127.0.0.1:0"},
		{Bind: "127.0.0.1:0", PeerBind: a.Self().Peer},
	} {
		_, err := Start(context.Background(), cfg)
		assert.ErrorContains(t, err, "address already in use")
	}
}

package membership

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func settled(p *peer) bool {
	select {
	case <-p.Settled():
		return true
	default:
		return false
	}
}

func TestMembersFindEachOther(t *testing.T) {
	l := newLAN(t)
	a := l.start("a", nil)
	assert.True(t, within(t, time.Second, "a member without seeds may serve", func() bool { return settled(a) }) < time.Second)
	state, _ := a.Join()
	assert.Equal(t, Alone, state)
	b := l.start("b", func(c *Config) {
		c.Seeds = []string{a.addr()}
		c.Meta.Zone, c.Meta.Version, c.Meta.KV = "z1", "v1.2.3", "127.1.2.3:4567"
	})
	c := l.start("c", seedsOf(a.addr()))
	within(t, 2*time.Second, "all see all", func() bool { return see(a, b, c) && settled(b) && settled(c) })
	for _, p := range []*peer{a, b, c} {
		state, _ := p.Join()
		assert.Equal(t, InCluster, state)
	}
	got := a.Get(b.boot)
	assert.Equal(t, b.Self().Meta, got.Meta)
	assert.Equal(t, "z1", got.Zone)
	assert.Equal(t, Alive, got.State)
	assert.Equal(t, b.addr(), got.Gossip.String())
	within(t, time.Second, "joins reported once", func() bool {
		return a.count(Joined, b.boot) == 1 && a.count(Joined, c.boot) == 1 && b.count(Joined, a.boot) == 1
	})
	assert.Zero(t, a.count(Joined, a.boot), "a member does not report itself")
}

func TestFiveAtOnceFormOneCluster(t *testing.T) {
	for run := range 4 {
		t.Run(fmt.Sprint(run), func(t *testing.T) {
			l := newLAN(t)
			// Everybody knows three of the five, itself perhaps among them.
			ports := freePorts(t, 5)
			var members []*peer
			for i := range 5 {
				members = append(members, l.start(fmt.Sprint("m", i), func(c *Config) {
					c.Bind = fmt.Sprintf("127.0.0.1:%d", ports[i])
					for k := range 3 {
						c.Seeds = append(c.Seeds, fmt.Sprintf("127.0.0.1:%d", ports[(i+k)%5]))
					}
				}))
			}
			within(t, 5*time.Second, "one cluster", func() bool { return see(members...) })
		})
	}
}

func TestOwnAddressAmongTheSeeds(t *testing.T) {
	l := newLAN(t)
	port := freePorts(t, 1)[0]
	dns := new(names)
	dns.set("peers.test", "127.0.0.1", "::1")
	a := l.start("a", func(c *Config) {
		c.Bind = fmt.Sprintf("127.0.0.1:%d", port)
		c.Seeds = []string{fmt.Sprintf("127.0.0.1:%d", port), fmt.Sprintf("peers.test:%d", port)}
		c.Resolver = dns
		c.JoinTimeout = 300 * time.Millisecond
	})
	assert.False(t, settled(a))
	within(t, 2*time.Second, "it serves when nobody else answers", func() bool { return settled(a) })
	state, _ := a.Join()
	assert.Equal(t, Unanswered, state)
	assert.NotContains(t, a.log.String(), "level=WARN")
}

func TestDNSNameWithManyAddresses(t *testing.T) {
	l := newLAN(t)
	dns := new(names)
	port := freePorts(t, 1)[0]
	bind := func(addr string) func(*Config) {
		return func(c *Config) {
			c.Bind = fmt.Sprintf("%s:%d", addr, port)
			c.Advertise = netip.MustParseAddr(addr)
			c.Seeds = []string{"peers.test"} // its own port is the default
			c.Resolver = dns
		}
	}
	a := l.start("a", bind("127.0.7.1"))
	b := l.start("b", bind("127.0.7.2"))
	c := l.start("c", bind("127.0.7.3"))
	time.Sleep(200 * time.Millisecond) // the name does not exist yet
	assert.True(t, len(a.Members()) == 1)
	within(t, time.Second, "says so", func() bool { return a.log.has("seed not resolved", "no such host") })
	dns.set("peers.test", "127.0.7.1", "127.0.7.2", "127.0.7.3", "127.0.7.4")
	within(t, 4*time.Second, "one cluster", func() bool { return see(a, b, c) })
}

func TestASeedThatAppearsLater(t *testing.T) {
	t.Parallel()
	l := newLAN(t)
	ports := freePorts(t, 1)
	seed := fmt.Sprintf("127.0.0.1:%d", ports[0])
	b := l.start("b", func(c *Config) { c.Seeds, c.JoinTimeout = []string{seed}, 300*time.Millisecond })
	within(t, 2*time.Second, "b serves alone", func() bool { return settled(b) })
	a := l.start("a", func(c *Config) { c.Bind = seed })
	within(t, 8*time.Second, "joined", func() bool { return see(a, b) })
	state, _ := b.Join()
	assert.Equal(t, InCluster, state)
}

func TestAnotherSecretIsRefused(t *testing.T) {
	t.Parallel()
	l := newLAN(t)
	seed := l.start("seed", func(c *Config) { c.Secrets = [][]byte{[]byte("right")} })
	for name, secrets := range map[string][][]byte{"wrong": {[]byte("wrong")}, "none": nil} {
		t.Run(name, func(t *testing.T) {
			p := l.start(name, func(c *Config) {
				c.Secrets, c.Seeds, c.JoinTimeout = secrets, []string{seed.addr()}, 200*time.Millisecond
			})
			within(t, 2*time.Second, "refused", func() bool { s, _ := p.Join(); return s == Refused })
			_, reason := p.Join()
			assert.Contains(t, reason, "another secret")
			within(t, 2*time.Second, "the seed says why", func() bool {
				return seed.log.has("level=WARN", "a member with another secret or cluster name tried to join from 127.0.0.1", "secret")
			})
			assert.True(t, p.log.has("join refused"))
			time.Sleep(500 * time.Millisecond)
			assert.False(t, settled(p), "one that a seed refuses must not serve by itself")
			assert.Len(t, seed.Members(), 1)
		})
	}
	assert.NotContains(t, seed.log.String(), "level=ERROR")
}

func TestASecretForAClusterWithNone(t *testing.T) {
	l := newLAN(t)
	seed := l.start("seed", nil)
	p := l.start("p", func(c *Config) {
		c.Secrets, c.Seeds, c.JoinTimeout = [][]byte{[]byte("s")}, []string{seed.addr()}, 200*time.Millisecond
	})
	within(t, 2*time.Second, "refused", func() bool { s, _ := p.Join(); return s == Refused })
	within(t, 2*time.Second, "the seed says why", func() bool { return seed.log.has("this member has none") })
}

func TestAnotherClusterIsRefused(t *testing.T) {
	l := newLAN(t)
	secret := [][]byte{[]byte("the same")}
	seed := l.start("seed", func(c *Config) { c.Secrets = secret })
	p := l.start("p", func(c *Config) {
		c.Secrets, c.Seeds, c.Cluster = secret, []string{seed.addr()}, "other"
		c.JoinTimeout = 300 * time.Millisecond
	})
	within(t, 2*time.Second, "the seed says why", func() bool {
		return seed.log.has("a member with another secret or cluster name tried to join from 127.0.0.1", `it is of cluster \"other\"`)
	})
	within(t, 2*time.Second, "the other one too", func() bool { return p.log.has("join failed", "another cluster") })
	assert.Len(t, seed.Members(), 1)
	assert.Len(t, p.Members(), 1)
}

func TestSecretsRotateWithoutALoss(t *testing.T) {
	l := newLAN(t)
	old, fresh := []byte("old"), []byte("fresh")
	a := l.start("a", func(c *Config) { c.Secrets = [][]byte{old} })
	b := l.start("b", func(c *Config) { c.Secrets, c.Seeds = [][]byte{old}, []string{a.addr()} })
	within(t, 2*time.Second, "joined", func() bool { return see(a, b) })
	for _, step := range [][][]byte{{old, fresh}, {fresh, old}, {fresh}} {
		for _, p := range []*peer{a, b} {
			require.NoError(t, p.SetSecrets(step))
		}
	}
	assert.Len(t, a.keyring.GetKeys(), 1)
	require.NoError(t, b.SetDraining(context.Background()))
	within(t, time.Second, "news under the new secret", func() bool { return a.Get(b.boot).State == Draining })
	c := l.start("c", func(c *Config) { c.Secrets, c.Seeds = [][]byte{fresh}, []string{a.addr()} })
	within(t, 2*time.Second, "joined", func() bool { return see(a, b, c) })
	p := l.start("p", func(c *Config) { c.Secrets, c.Seeds = [][]byte{old}, []string{a.addr()} })
	within(t, 2*time.Second, "the old one is refused", func() bool { s, _ := p.Join(); return s == Refused })
	assert.Zero(t, a.count(Lost, b.boot))
	assert.ErrorContains(t, a.SetSecrets(nil), "begin or cease")
	assert.ErrorContains(t, a.SetSecrets([][]byte{{}}), "empty secret")
}

func TestDrainingIsKnownFast(t *testing.T) {
	l := newLAN(t)
	members := []*peer{l.start("m0", nil)}
	for i := 1; i < 10; i++ {
		members = append(members, l.start(fmt.Sprint("m", i), seedsOf(members[0].addr())))
	}
	within(t, 5*time.Second, "joined", func() bool { return see(members...) })
	leaver := members[3]
	done := make(chan error)
	go func() { done <- leaver.SetDraining(context.Background()) }()
	took := within(t, 2*time.Second, "all know", func() bool {
		for _, p := range members {
			if p.Get(leaver.boot).State != Draining {
				return false
			}
		}
		return true
	})
	require.NoError(t, <-done)
	assert.Less(t, took, time.Second, "300 ms, and more for a busy machine")
	t.Log("known to 10 members after", took)
	within(t, time.Second, "reported", func() bool { return members[0].count(Updated, leaver.boot) == 1 })
}

func TestALeaverHasLeftAndIsNotLost(t *testing.T) {
	l := newLAN(t)
	a := l.start("a", nil)
	b := l.start("b", seedsOf(a.addr()))
	c := l.start("c", seedsOf(a.addr()))
	within(t, 2*time.Second, "joined", func() bool { return see(a, b, c) })
	begin := time.Now()
	require.NoError(t, b.Leave(2*time.Second))
	require.NoError(t, b.Shutdown())
	assert.Less(t, time.Since(begin), time.Second)
	require.NoError(t, b.Leave(time.Second), "a second time")
	require.NoError(t, b.Shutdown(), "a second time")
	within(t, time.Second, "gone", func() bool { return see(a, c) })
	for _, p := range []*peer{a, c} {
		within(t, time.Second, "reported", func() bool { return p.count(Departed, b.boot) == 1 })
		assert.Zero(t, p.count(Lost, b.boot))
		assert.Equal(t, Left, p.Get(b.boot).State)
	}
	assert.ErrorIs(t, b.SetDraining(context.Background()), ErrStopped)
}

func TestADeathIsNoticedAndRemembered(t *testing.T) {
	t.Parallel()
	l := newLAN(t)
	a := l.start("a", nil)
	b := l.start("b", seedsOf(a.addr()))
	c := l.start("c", seedsOf(a.addr()))
	within(t, 2*time.Second, "joined", func() bool { return see(a, b, c) })
	require.NoError(t, b.Shutdown()) // no goodbye
	took := within(t, 6*time.Second, "noticed", func() bool { return see(a, c) })
	t.Log("noticed after", took)
	assert.Less(t, took, 4*time.Second)
	for _, p := range []*peer{a, c} {
		within(t, time.Second, "reported", func() bool { return p.count(Lost, b.boot) == 1 })
		assert.Zero(t, p.count(Departed, b.boot))
		assert.Equal(t, Dead, p.Get(b.boot).State)
		assert.WithinDuration(t, time.Now(), p.Get(b.boot).Since, 5*time.Second)
	}
	d := l.start("d", seedsOf(c.addr()))
	within(t, 2*time.Second, "joined", func() bool { return see(a, c, d) })
	within(t, time.Second, "a newcomer hears of it", func() bool { return d.Get(b.boot).State == Dead })
	assert.Zero(t, d.count(Lost, b.boot), "it never knew it alive")
}

func TestANewLifeAtTheSameAddress(t *testing.T) {
	t.Parallel()
	l := newLAN(t)
	a := l.start("a", nil) // the only seed, without seeds itself
	b := l.start("b", seedsOf(a.addr()))
	c := l.start("c", seedsOf(a.addr()))
	within(t, 2*time.Second, "joined", func() bool { return see(a, b, c) })
	addr := a.addr()
	require.NoError(t, a.Shutdown())
	again := l.start("a", func(c *Config) { c.Bind = addr })
	require.NotEqual(t, a.boot, again.boot)
	// Nobody has noticed the death yet, and nobody has told the new one where
	// the others are: they ping its former life.
	took := within(t, 3*time.Second, "the new one is in", func() bool { return b.Get(again.boot).State == Alive })
	t.Log("found after", took)
	assert.False(t, again.Get(a.boot).State.Live(), "nobody else can live at its own address")
	within(t, 6*time.Second, "the old one is out", func() bool { return see(again, b, c) })
	assert.Equal(t, Dead, b.Get(a.boot).State)
	assert.Equal(t, Dead, again.Get(a.boot).State)
}

func TestMarkDeadIsFinal(t *testing.T) {
	l := newLAN(t)
	a := l.start("a", nil)
	b := l.start("b", seedsOf(a.addr()))
	within(t, 2*time.Second, "joined", func() bool { return see(a, b) && a.count(Joined, b.boot) == 1 })
	a.MarkDead(b.boot)
	assert.Len(t, a.Members(), 1)
	within(t, time.Second, "reported", func() bool { return a.count(Lost, b.boot) == 1 })
	require.NoError(t, b.SetDraining(context.Background())) // still talking
	time.Sleep(300 * time.Millisecond)
	assert.Equal(t, Dead, a.Get(b.boot).State)
	a.MarkDead(a.boot)
	assert.Equal(t, Alive, a.Self().State)
}

func TestAHealedPartitionIsOneClusterAgain(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes several seconds")
	}
	l := newLAN(t)
	a := l.start("a", nil)
	b := l.start("b", seedsOf(a.addr()))
	c := l.start("c", seedsOf(a.addr()))
	d := l.start("d", seedsOf(c.addr()))
	within(t, 3*time.Second, "joined", func() bool { return see(a, b, c, d) })
	// The seed of the one side, c, is on that side: only the memory of lost
	// members leads across.
	l.put(1, a, b)
	l.put(2, c, d)
	within(t, 10*time.Second, "split", func() bool { return see(a, b) && see(c, d) })
	time.Sleep(2 * time.Second)
	l.put(0, a, b, c, d)
	took := within(t, 10*time.Second, "one cluster", func() bool { return see(a, b, c, d) })
	t.Log("healed after", took)
}

func TestAStallIsNoDeath(t *testing.T) {
	t.Parallel()
	l := newLAN(t)
	a := l.start("a", nil)
	b := l.start("b", seedsOf(a.addr()))
	c := l.start("c", seedsOf(a.addr()))
	within(t, 2*time.Second, "joined", func() bool { return see(a, b, c) })
	for range 3 {
		l.put(1, b)
		time.Sleep(500 * time.Millisecond)
		l.put(0, b)
		time.Sleep(300 * time.Millisecond)
	}
	time.Sleep(1500 * time.Millisecond)
	assert.Zero(t, a.count(Lost, b.boot)+c.count(Lost, b.boot)+b.count(Lost, a.boot)+b.count(Lost, c.boot))
	assert.True(t, see(a, b, c))
}

func TestProtocolsThatDoNotMeet(t *testing.T) {
	l := newLAN(t)
	a := l.start("a", nil)
	old := l.start("b", func(c *Config) {
		c.Seeds, c.Meta.ProtoMin, c.Meta.ProtoMax = []string{a.addr()}, 3, 4
		c.JoinTimeout = 200 * time.Millisecond
	})
	within(t, 2*time.Second, "says why", func() bool {
		return a.log.has("member refused", "it speaks peer protocol 3 to 4, this member 1 to 1")
	})
	assert.Len(t, a.Members(), 1)
	assert.Len(t, old.Members(), 1)
}

func TestUpdateBounds(t *testing.T) {
	l := newLAN(t)
	a := l.start("a", nil)
	long := make([]byte, MaxAddr+1)
	for i := range long {
		long[i] = 'x'
	}
	err := a.Update(context.Background(), func(m *Meta) { m.KV = string(long) })
	assert.ErrorContains(t, err, "KV has 101 bytes, at most 100")
	require.NoError(t, a.Update(context.Background(), func(m *Meta) { m.KV = "127.3.4.5:6"; m.ID = "other" }))
	assert.Equal(t, "127.3.4.5:6", a.Self().KV)
	assert.Equal(t, "a", a.Self().ID)
}

func TestIPv6(t *testing.T) {
	l := newLAN(t)
	v6 := func(c *Config) { c.Bind, c.Advertise = "[::1]:0", netip.IPv6Loopback() }
	a := l.start("a", v6)
	b := l.start("b", func(c *Config) { v6(c); c.Seeds = []string{a.addr()} })
	within(t, 3*time.Second, "joined", func() bool { return see(a, b) })
}

func TestListeningOnAllAddresses(t *testing.T) {
	l := newLAN(t)
	a := l.start("a", func(c *Config) { c.Bind = ":0" })
	b := l.start("b", seedsOf(a.addr()))
	c := l.start("c", seedsOf(fmt.Sprintf("[::1]:%d", a.transport.advertise.Port())))
	within(t, 3*time.Second, "joined", func() bool { return see(a, b, c) })
}

func TestConfigIsChecked(t *testing.T) {
	good := Config{
		Cluster: "c", Meta: Meta{ID: "a", ProtoMin: 1, ProtoMax: 1}, Boot: 1, Bind: "127.0.0.1:0",
		Advertise: netip.MustParseAddr("127.0.0.1"), JoinTimeout: time.Second,
	}
	for want, edit := range map[string]func(*Config){
		"Cluster has 0 bytes":    func(c *Config) { c.Cluster = "" },
		"Boot must not be 0":     func(c *Config) { c.Boot = 0 },
		"Advertise must be":      func(c *Config) { c.Advertise = netip.Addr{} },
		"JoinTimeout must be":    func(c *Config) { c.JoinTimeout = 0 },
		"not host:port":          func(c *Config) { c.Bind = "127.0.0.1" },
		"port is not between":    func(c *Config) { c.Bind = "127.0.0.1:70000" },
		"is not between 1 and":   func(c *Config) { c.Seeds = []string{"a:0"} },
		"not the address of one": func(c *Config) { c.Seeds = []string{"0.0.0.0:1"} },
		"empty secret":           func(c *Config) { c.Secrets = [][]byte{nil} },
	} {
		cfg := good
		edit(&cfg)
		_, err := Start(cfg)
		assert.ErrorContains(t, err, want)
	}
	taken, err := Start(good)
	require.NoError(t, err)
	defer func() { require.NoError(t, taken.Shutdown()) }()
	good.Bind = taken.transport.advertise.String()
	_, err = Start(good)
	assert.ErrorContains(t, err, "address already in use")
}

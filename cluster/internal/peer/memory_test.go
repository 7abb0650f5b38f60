package peer

import (
	"sync"
	"testing"
	"testing/synctest"

	"github.com/peerlimit/peerlimit/cluster/internal/peer/memnet"
)

// village is some members on a network in memory, for tests inside a synctest bubble.
type village struct {
	t   *testing.T
	net *memnet.Network
	all map[Boot]*villager
}

// villager is a member with what its hooks were told.
type villager struct {
	*Transport
	host string

	mu       sync.Mutex
	received []string // payloads
	losses   []Loss
	changes  []BreakerChange
}

func newVillage(t *testing.T) *village {
	return &village{t: t, net: memnet.New(), all: make(map[Boot]*villager)}
}

func hostOf(b Boot) string { return "10.0.0." + string('0'+byte(b)) }

// add starts a member at the address of its boot's number.
func (v *village) add(boot Boot, change func(*Config)) *villager {
	v.t.Helper()
	m := &villager{host: hostOf(boot)}
	h := v.net.Host(m.host)
	cfg := Config{
		Self: boot, Node: "node" + m.host[7:], Cluster: "test", Bind: m.host + ":7947", Listen: h.Listen, Dial: h.Dial,
		Message: func(_ Boot, msg Message) {
			m.mu.Lock()
			defer m.mu.Unlock()
			m.received = append(m.received, string(msg.Payload))
		},
		Down:    func(l Loss) { m.mu.Lock(); defer m.mu.Unlock(); m.losses = append(m.losses, l) },
		Breaker: func(c BreakerChange) { m.mu.Lock(); defer m.mu.Unlock(); m.changes = append(m.changes, c) },
	}
	if change != nil {
		change(&cfg)
	}
	tr, err := Listen(cfg)
	if err != nil {
		v.t.Fatal(err)
	}
	m.Transport = tr
	tr.Start()
	v.all[boot] = m
	return m
}

// peers lists all that were added.
func (v *village) peers() map[Boot]Peer {
	peers := make(map[Boot]Peer)
	for boot, m := range v.all {
		peers[boot] = Peer{Node: m.cfg.Node, Addr: m.Addr().String()}
	}
	return peers
}

func (v *village) introduce() {
	for _, m := range v.all {
		m.SetPeers(v.peers())
	}
}

func (v *village) close() {
	for _, m := range v.all {
		_ = m.Close()
	}
}

func (m *villager) heard() []string {
	synctest.Wait()
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]string(nil), m.received...)
}

func (m *villager) lost() []Loss {
	synctest.Wait()
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]Loss(nil), m.losses...)
}

func (m *villager) lostLanes(of Boot) map[Lane]int {
	lanes := make(map[Lane]int)
	for _, l := range m.lost() {
		if l.Boot == of && !l.Gone {
			lanes[l.Lane]++
		}
	}
	return lanes
}

func (m *villager) gone(of Boot) (n int) {
	for _, l := range m.lost() {
		if l.Boot == of && l.Gone {
			n++
		}
	}
	return n
}

// inVillage runs a test in a bubble, on fake time.
func inVillage(t *testing.T, f func(t *testing.T, v *village)) {
	synctest.Test(t, func(t *testing.T) {
		v := newVillage(t)
		defer v.close()
		f(t, v)
	})
}

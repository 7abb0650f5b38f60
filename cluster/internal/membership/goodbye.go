package membership

import (
	"net"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// goodbye collects who has noted that this member leaves.
//
// memberlist tells its listeners of a departure and of a death by the same
// call, so a member says goodbye to each other member first, and asks for an
// answer, over UDP, again and again until it comes.
type goodbye struct {
	mu   sync.Mutex // guards what follows
	by   map[uint64]bool
	news chan struct{}
}

const goodbyeEvery = 50 * time.Millisecond

func newGoodbye() *goodbye {
	return &goodbye{by: make(map[uint64]bool), news: make(chan struct{}, 1)}
}

func (g *goodbye) noted(boot uint64) {
	g.mu.Lock()
	g.by[boot] = true
	g.mu.Unlock()
	select {
	case g.news <- struct{}{}:
	default:
	}
}

func (g *goodbye) missing(members []Member, self uint64) []Member {
	g.mu.Lock()
	defer g.mu.Unlock()
	var out []Member
	for _, m := range members {
		if m.Boot != self && !g.by[m.Boot] {
			out = append(out, m)
		}
	}
	return out
}

// sayGoodbye returns when all have noted it, or at the deadline.
func (m *Membership) sayGoodbye(deadline time.Time) {
	again := time.NewTicker(goodbyeEvery)
	defer again.Stop()
	stop := time.NewTimer(time.Until(deadline))
	defer stop.Stop()
	send := true
	for {
		missing := m.goodbye.missing(m.Members(), m.boot)
		if len(missing) == 0 {
			return
		}
		if send {
			for _, to := range missing {
				m.send(to, msgLeaving)
			}
		}
		select {
		case <-m.goodbye.news:
			send = false
		case <-again.C:
			send = true
		case <-stop.C:
			return
		}
	}
}

// send sends a message of one of our kinds, once, over UDP.
func (m *Membership) send(to Member, kind byte) {
	if !to.Gossip.IsValid() {
		return
	}
	node := memberlist.Node{
		Name: to.Name(),
		Addr: net.IP(to.Gossip.Addr().AsSlice()),
		Port: to.Gossip.Port(),
	}
	if err := m.ml.SendBestEffort(&node, appendMessage(nil, kind, m.boot)); err != nil {
		m.log.Debug("membership: send", "to", to.Name(), "error", err)
	}
}

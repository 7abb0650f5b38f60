package peer

import (
	"container/list"
	"net"
	"net/netip"
	"sync"
)

// gate bounds the connections that have not yet shown who they are, in all and from one source. A newcomer is always
// let in and the oldest goes: a member needs milliseconds to show itself, so that a crowd of silent ones can't keep it
// out, as refusing the newcomer would.
type gate struct {
	most, mostPerSource int

	mu      sync.Mutex
	closed  bool
	all     list.List // of *entrant, oldest first
	sources map[string]*list.List
}

type entrant struct {
	nc         net.Conn
	source     string
	all, alike *list.Element
}

// enter notes a connection. evicted, if any, had to make room and is to be closed by the caller. It returns nil when the
// gate is closed.
func (g *gate) enter(nc net.Conn) (e, evicted *entrant) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return nil, nil
	}
	e = &entrant{nc: nc, source: sourceOf(nc.RemoteAddr())}
	alike := g.sources[e.source]
	if alike != nil && alike.Len() >= g.mostPerSource {
		evicted = alike.Front().Value.(*entrant)
	} else if g.all.Len() >= g.most {
		evicted = g.all.Front().Value.(*entrant)
	}
	if evicted != nil {
		g.removeLocked(evicted)
		alike = g.sources[e.source]
	}
	if alike == nil {
		if g.sources == nil {
			g.sources = make(map[string]*list.List)
		}
		alike = list.New()
		g.sources[e.source] = alike
	}
	e.all, e.alike = g.all.PushBack(e), alike.PushBack(e)
	return e, evicted
}

// leave forgets a connection; false when it had been evicted.
func (g *gate) leave(e *entrant) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.removeLocked(e)
}

func (g *gate) removeLocked(e *entrant) bool {
	if e.all == nil {
		return false
	}
	g.all.Remove(e.all)
	alike := g.sources[e.source]
	alike.Remove(e.alike)
	if alike.Len() == 0 {
		delete(g.sources, e.source)
	}
	e.all, e.alike = nil, nil
	return true
}

func (g *gate) size() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.all.Len()
}

// close closes all and lets nobody in any more.
func (g *gate) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
	for el := g.all.Front(); el != nil; el = el.Next() {
		_ = el.Value.(*entrant).nc.Close()
	}
}

// sourceOf is what one sender can be told by: the IP address, the /64 of an IPv6 one.
func sourceOf(a net.Addr) string {
	host, _, err := net.SplitHostPort(a.String())
	if err != nil {
		return a.String()
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return host
	}
	ip = ip.Unmap().WithZone("")
	if ip.Is6() {
		if p, err := ip.Prefix(64); err == nil {
			return p.String()
		}
	}
	return ip.String()
}

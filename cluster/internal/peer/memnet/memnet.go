// Package memnet is a network in memory, for tests of members on testing/synctest: reliable byte streams between named
// hosts, with delays, cuts and deaths at will. It behaves like TCP where members can tell: what was sent before a cut
// arrives after it, a full window blocks the writer, a dead host's connections are reset.
//
// It does not lose or reorder bytes, and it is not fast.
package memnet

import (
	"context"
	"net"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// Network is a set of hosts. Its methods may be called concurrently.
type Network struct {
	mu        sync.Mutex
	changed   *sync.Cond // whenever something a reader, writer or dialer waits for may have changed
	delay     time.Duration
	cut       map[[2]string]bool // from, to
	listeners map[string]*listener
	conns     map[*conn]struct{}
	nextPort  int
}

// New makes a network without delay.
func New() *Network {
	n := &Network{
		cut: make(map[[2]string]bool), listeners: make(map[string]*listener), conns: make(map[*conn]struct{}), nextPort: 40000,
	}
	n.changed = sync.NewCond(&n.mu)
	return n
}

// SetDelay sets how long bytes sent from now on travel.
func (n *Network) SetDelay(d time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.delay = d
}

// Cut stops all bytes from one host to another, until Heal. Dials that need them wait.
func (n *Network) Cut(from, to string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut[[2]string{from, to}] = true
}

// Split cuts two hosts from each other, both ways.
func (n *Network) Split(a, b string) {
	n.Cut(a, b)
	n.Cut(b, a)
}

// Heal ends all cuts between two hosts.
func (n *Network) Heal(a, b string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.cut, [2]string{a, b})
	delete(n.cut, [2]string{b, a})
	n.changed.Broadcast()
}

// Kill closes the listeners of a host and resets its connections, as the system does when a process dies. The resets
// pass cuts.
func (n *Network) Kill(host string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for addr, l := range n.listeners {
		if l.host == host {
			l.closed = true
			delete(n.listeners, addr)
		}
	}
	for c := range n.conns {
		if c.host == host || c.other.host == host {
			c.in.reset = true
		}
	}
	n.changed.Broadcast()
}

// Host is one end of the network: its methods fit peer.Config's Listen and Dial.
type Host struct {
	n    *Network
	name string
}

// Host returns the host of that name, an IP address most usefully.
func (n *Network) Host(name string) *Host { return &Host{n, name} }

// Listen listens on the address's port of this host; port 0 takes a free one.
func (h *Host) Listen(address string) (net.Listener, error) {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	n := h.n
	n.mu.Lock()
	defer n.mu.Unlock()
	if port == "0" {
		port = n.freePortLocked()
	}
	l := &listener{n: n, host: h.name, addr: addr(net.JoinHostPort(h.name, port))}
	if n.listeners[string(l.addr)] != nil {
		return nil, &net.OpError{Op: "listen", Net: "memory", Addr: l.addr, Err: syscall.EADDRINUSE}
	}
	n.listeners[string(l.addr)] = l
	return l, nil
}

func (n *Network) freePortLocked() string {
	n.nextPort++
	return strconv.Itoa(n.nextPort)
}

// Dial connects to an address on any host.
func (h *Host) Dial(ctx context.Context, address string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	n := h.n
	defer context.AfterFunc(ctx, func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.changed.Broadcast()
	})()
	n.mu.Lock()
	defer n.mu.Unlock()
	for n.cut[[2]string{h.name, host}] || n.cut[[2]string{host, h.name}] {
		if ctx.Err() != nil {
			return nil, &net.OpError{Op: "dial", Net: "memory", Addr: addr(address), Err: ctx.Err()}
		}
		n.changed.Wait()
	}
	l := n.listeners[address]
	if l == nil || ctx.Err() != nil {
		return nil, &net.OpError{Op: "dial", Net: "memory", Addr: addr(address), Err: syscall.ECONNREFUSED}
	}
	local := addr(net.JoinHostPort(h.name, n.freePortLocked()))
	a := &conn{n: n, host: h.name, local: local, remote: l.addr}
	b := &conn{n: n, host: host, local: l.addr, remote: local}
	a.other, b.other = b, a
	n.conns[a], n.conns[b] = struct{}{}, struct{}{}
	l.backlog = append(l.backlog, b)
	n.changed.Broadcast()
	return a, nil
}

// listener is a host's listening port; all its fields are guarded by Network.mu.
type listener struct {
	n       *Network
	host    string
	addr    addr
	backlog []*conn
	closed  bool
}

func (l *listener) Accept() (net.Conn, error) {
	l.n.mu.Lock()
	defer l.n.mu.Unlock()
	for !l.closed && len(l.backlog) == 0 {
		l.n.changed.Wait()
	}
	if l.closed {
		return nil, &net.OpError{Op: "accept", Net: "memory", Addr: l.addr, Err: net.ErrClosed}
	}
	c := l.backlog[0]
	l.backlog = l.backlog[1:]
	return c, nil
}

func (l *listener) Close() error {
	l.n.mu.Lock()
	defer l.n.mu.Unlock()
	if !l.closed {
		l.closed = true
		delete(l.n.listeners, string(l.addr))
		for _, c := range l.backlog {
			c.closeLocked()
		}
		l.n.changed.Broadcast()
	}
	return nil
}

func (l *listener) Addr() net.Addr { return l.addr }

type addr string

func (addr) Network() string  { return "memory" }
func (a addr) String() string { return string(a) }

package membership

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// maxStreams bounds the incoming streams that are open at a time. memberlist
// reads from a stream before it knows who sent it, for at most its TCPTimeout.
const maxStreams = 128

// transport carries gossip over UDP and TCP on one port.
//
// It differs from memberlist's NetTransport in that it can listen on all
// addresses of both families, bounds the incoming streams, closes every
// connection on Shutdown, so that nothing lingers until a timeout, and doesn't
// allocate 64 KiB for each packet.
type transport struct {
	tcp       *net.TCPListener
	udp       *net.UDPConn
	advertise netip.AddrPort

	// reaches is a test's network: false cuts the way to an address.
	reaches func(to string) bool

	packets chan *memberlist.Packet
	streams chan net.Conn

	ctx    context.Context // ends with Shutdown
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu       sync.Mutex // guards what follows
	conns    map[*trackedConn]struct{}
	incoming int
}

var _ memberlist.NodeAwareTransport = (*transport)(nil)

// listen opens TCP and UDP on the same port of bind, host:port; an empty host
// means all addresses, a port of 0 a free one.
func listen(bind string, advertise netip.Addr) (*transport, error) {
	addr, err := net.ResolveTCPAddr("tcp", bind)
	if err != nil {
		return nil, fmt.Errorf("membership: bind %q: %w", bind, err)
	}
	// A free TCP port may be taken for UDP.
	for try := 0; ; try++ {
		t, err := listenOn(addr, advertise)
		if err == nil {
			return t, nil
		}
		if addr.Port != 0 || try == 9 {
			return nil, fmt.Errorf("membership: bind %q: %w", bind, err)
		}
	}
}

func listenOn(addr *net.TCPAddr, advertise netip.Addr) (*transport, error) {
	tcp, err := net.ListenTCP("tcp", addr)
	if err != nil {
		return nil, err
	}
	port := tcp.Addr().(*net.TCPAddr).Port
	udp, err := net.ListenUDP("udp", &net.UDPAddr{IP: addr.IP, Port: port, Zone: addr.Zone})
	if err != nil {
		return nil, errors.Join(err, tcp.Close())
	}
	// The system may grant less; the default does too.
	_ = udp.SetReadBuffer(1 << 20)
	ctx, cancel := context.WithCancel(context.Background())
	t := &transport{
		tcp:       tcp,
		udp:       udp,
		advertise: netip.AddrPortFrom(advertise.Unmap(), uint16(port)),
		reaches:   func(string) bool { return true },
		packets:   make(chan *memberlist.Packet),
		streams:   make(chan net.Conn),
		ctx:       ctx,
		cancel:    cancel,
		conns:     make(map[*trackedConn]struct{}),
	}
	return t, nil
}

// start begins to receive.
func (t *transport) start() {
	t.wg.Go(t.acceptStreams)
	t.wg.Go(t.receivePackets)
}

// FinalAdvertiseAddr is part of memberlist.Transport.
func (t *transport) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return net.IP(t.advertise.Addr().AsSlice()), int(t.advertise.Port()), nil
}

// PacketCh is part of memberlist.Transport.
func (t *transport) PacketCh() <-chan *memberlist.Packet { return t.packets }

// StreamCh is part of memberlist.Transport.
func (t *transport) StreamCh() <-chan net.Conn { return t.streams }

// WriteTo is part of memberlist.Transport.
func (t *transport) WriteTo(b []byte, addr string) (time.Time, error) {
	to, err := netip.ParseAddrPort(addr)
	if err != nil {
		return time.Time{}, err
	}
	if !t.reaches(addr) {
		return time.Now(), nil
	}
	_, err = t.udp.WriteToUDPAddrPort(b, to)
	return time.Now(), err
}

// WriteToAddress is part of memberlist.NodeAwareTransport.
func (t *transport) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	return t.WriteTo(b, a.Addr)
}

// DialTimeout is part of memberlist.Transport.
func (t *transport) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(t.ctx, timeout)
	defer cancel()
	if !t.reaches(addr) {
		<-ctx.Done()
		return nil, fmt.Errorf("dial %s: %w", addr, ctx.Err())
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return t.track(conn, false)
}

// DialAddressTimeout is part of memberlist.NodeAwareTransport.
func (t *transport) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	return t.DialTimeout(a.Addr, timeout)
}

// Shutdown is part of memberlist.Transport. It may be called twice.
func (t *transport) Shutdown() error {
	t.mu.Lock()
	t.cancel()
	open := t.conns
	t.conns = nil
	t.mu.Unlock()
	_ = t.tcp.Close()
	_ = t.udp.Close()
	for c := range open {
		_ = c.Conn.Close()
	}
	t.wg.Wait()
	return nil
}

func (t *transport) acceptStreams() {
	for {
		conn, err := t.tcp.Accept()
		if err != nil {
			if !t.pause() {
				return
			}
			continue
		}
		tracked, err := t.track(conn, true)
		if err != nil {
			continue
		}
		select {
		case t.streams <- tracked:
		case <-t.ctx.Done():
			_ = tracked.Close()
			return
		}
	}
}

func (t *transport) receivePackets() {
	buf := make([]byte, 1<<16)
	for {
		n, from, err := t.udp.ReadFromUDP(buf)
		if err != nil {
			if !t.pause() {
				return
			}
			continue
		}
		if n == 0 {
			continue
		}
		p := &memberlist.Packet{Buf: append([]byte(nil), buf[:n]...), From: from, Timestamp: time.Now()}
		select {
		case t.packets <- p:
		case <-t.ctx.Done():
			return
		}
	}
}

// pause keeps an error that lasts, such as too many open files, from turning
// the loop that met it into a busy one. It returns false after Shutdown.
func (t *transport) pause() bool {
	select {
	case <-t.ctx.Done():
		return false
	case <-time.After(20 * time.Millisecond):
		return true
	}
}

var errTooManyStreams = errors.New("membership: too many incoming streams")

// track makes Shutdown close the connection. Where it can't be kept it is
// closed.
func (t *transport) track(conn net.Conn, incoming bool) (net.Conn, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.conns == nil {
		return nil, errors.Join(net.ErrClosed, conn.Close())
	}
	if incoming {
		if t.incoming == maxStreams {
			return nil, errors.Join(errTooManyStreams, conn.Close())
		}
		t.incoming++
	}
	c := &trackedConn{Conn: conn, owner: t, incoming: incoming}
	t.conns[c] = struct{}{}
	return c, nil
}

type trackedConn struct {
	net.Conn
	owner    *transport
	incoming bool
	once     sync.Once
}

// Close closes the connection and forgets it.
func (c *trackedConn) Close() error {
	c.once.Do(func() {
		c.owner.mu.Lock()
		defer c.owner.mu.Unlock()
		delete(c.owner.conns, c)
		if c.incoming {
			c.owner.incoming--
		}
	})
	return c.Conn.Close()
}

// bound returns the address it listens on.
func (t *transport) bound() netip.AddrPort {
	a := t.tcp.Addr().(*net.TCPAddr).AddrPort()
	return netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())
}

// bindPort returns the port of host:port.
func bindPort(bind string) (uint16, error) {
	_, port, err := net.SplitHostPort(bind)
	if err != nil {
		return 0, fmt.Errorf("membership: bind %q is not host:port: %w", bind, err)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return 0, fmt.Errorf("membership: bind %q: port is not between 0 and 65535", bind)
	}
	return uint16(n), nil
}

package peer

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"sync"
	"time"
)

// streams are the open byte streams, and who serves new ones.
type streams struct {
	mu       sync.Mutex
	handlers map[string]func(net.Conn)
	open     map[*stream]struct{}
	closed   bool
}

// stream is a byte stream's connection.
type stream struct {
	net.Conn
	t        *Transport
	boot     Boot
	accepted bool
	once     sync.Once
	err      error
}

// Close closes the stream. It may be called twice.
func (s *stream) Close() error {
	s.once.Do(func() {
		s.err = s.Conn.Close()
		s.t.streams.mu.Lock()
		delete(s.t.streams.open, s)
		s.t.streams.mu.Unlock()
		if s.accepted {
			s.t.leavePlace()
		}
	})
	return s.err
}

// abort closes the stream without a farewell, which a peer that reads nothing would hold up.
func (s *stream) abort() {
	if tc, ok := s.Conn.(*tls.Conn); ok {
		_ = tc.NetConn().Close()
	}
	_ = s.Close()
}

// add notes an open stream; false when the transport is closing.
func (s *streams) add(st *stream) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	if s.open == nil {
		s.open = make(map[*stream]struct{})
	}
	s.open[st] = struct{}{}
	return true
}

// closeIf closes those for which f holds.
func (s *streams) closeIf(f func(*stream) bool) {
	s.mu.Lock()
	var some []*stream
	for st := range s.open {
		if f(st) {
			some = append(some, st)
		}
	}
	s.mu.Unlock()
	for _, st := range some {
		st.abort()
	}
}

func (s *streams) shut() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.closeIf(func(*stream) bool { return true })
}

// HandleStream sets who serves byte streams of a service, named by 1 to 23 bytes; nil serves them no longer. h runs on
// a goroutine of its own, and the stream is closed when it returns. Close waits for it, after closing the stream.
func (t *Transport) HandleStream(service string, h func(net.Conn)) {
	t.streams.mu.Lock()
	defer t.streams.mu.Unlock()
	if h == nil {
		delete(t.streams.handlers, service)
		return
	}
	if t.streams.handlers == nil {
		t.streams.handlers = make(map[string]func(net.Conn))
	}
	t.streams.handlers[service] = h
}

func (t *Transport) streamHandler(service string) func(net.Conn) {
	t.streams.mu.Lock()
	defer t.streams.mu.Unlock()
	return t.streams.handlers[service]
}

// DialStream opens a byte stream to a service of the peer, through its peer port, with the same authentication and
// encryption as all else. It takes at most Config.HandshakeTimeout. The stream is closed when the peer is removed, or
// the transport closes.
func (t *Transport) DialStream(ctx context.Context, to Boot, service string) (net.Conn, error) {
	if len(service) == 0 || len(service) > maxService {
		return nil, fmt.Errorf("peer: stream: service must have 1 to %d bytes, has %d", maxService, len(service))
	}
	p := t.peer(to)
	if p == nil || p.info.Load().Addr == "" {
		return nil, fmt.Errorf("peer: stream %s: %w", service, ErrUnknownPeer)
	}
	if t.ctx.Err() != nil {
		return nil, fmt.Errorf("peer: stream %s: %w", service, ErrClosed)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(p.ctx, cancel)()
	nc, _, err := t.open(ctx, p.info.Load().Addr, to, laneStream, service)
	if err != nil {
		return nil, fmt.Errorf("peer: stream %s: %w", service, err)
	}
	quickKeepAlive(nc)
	s := &stream{Conn: nc, t: t, boot: to}
	if !t.streams.add(s) || p.ctx.Err() != nil || !t.security.accepts(nc) {
		s.abort()
		return nil, fmt.Errorf("peer: stream %s: %w", service, ErrClosed)
	}
	return s, nil
}

// startStream gives a stream that another member dialed to its handler.
func (t *Transport) startStream(h hello, nc net.Conn) {
	quickKeepAlive(nc)
	s := &stream{Conn: nc, t: t, boot: h.from, accepted: true}
	serve := t.streamHandler(h.service)
	if serve == nil || !t.streams.add(s) || !t.security.accepts(nc) {
		s.abort()
		return
	}
	started := t.spawn(func() {
		defer func() { _ = s.Close() }()
		serve(s)
	})
	if !started {
		_ = s.Close()
	}
}

// quickKeepAlive has the system notice within some seconds that the other end of a TCP stream is no more: streams
// have no pings of ours.
func quickKeepAlive(nc net.Conn) {
	if wrapped, ok := nc.(interface{ NetConn() net.Conn }); ok {
		nc = wrapped.NetConn()
	}
	if tcp, ok := nc.(*net.TCPConn); ok {
		_ = tcp.SetKeepAliveConfig(net.KeepAliveConfig{
			Enable: true, Idle: 2 * time.Second, Interval: time.Second, Count: 3,
		})
	}
}

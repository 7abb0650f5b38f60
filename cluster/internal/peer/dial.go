package peer

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"time"
)

// When to dial again, each with up to half of it more or less at random, so that members don't dial in step.
const (
	backoffLeast = 10 * time.Millisecond
	backoffMost  = time.Second
	// Of two members that learn of each other, or lose each other, at the same moment, the one with the lower boot
	// dials at once, and the other only if that has led to nothing by then, or if it has something to send.
	courtesy = 100 * time.Millisecond
)

// backoff is the wait after so many failed dials in a row.
func backoff(failures int) time.Duration {
	d := backoffMost
	if failures < 8 {
		d = min(d, backoffLeast<<max(0, failures-1))
	}
	return d/2 + rand.N(d)
}

// dialLocked has the link's dialer run if there is somebody to dial; now says that something waits to be sent.
func (l *link) dialLocked(now bool) {
	if l.removed || l.peer.gone.Load() || l.peer.info.Load().Addr == "" {
		return
	}
	if now && (l.phase == idle || l.phase == resting) {
		l.phase, l.since = dialing, time.Now()
	}
	if l.running {
		if now {
			l.kickNow()
		}
		return
	}
	var first time.Duration
	if !now && l.t.cfg.Self > l.peer.boot {
		first = courtesy/2 + rand.N(courtesy)
	}
	if l.phase == idle {
		l.phase = resting
	}
	l.running = l.t.spawn(func() { l.dial(first) })
}

func (l *link) kickNow() {
	select {
	case l.kick <- struct{}{}:
	default:
	}
}

// dial is the link's dialer: it tries until there is a connection, whoever made it, or nobody to connect to.
func (l *link) dial(wait time.Duration) {
	for failures := 0; ; {
		if wait > 0 {
			timer := time.NewTimer(wait)
			select {
			case <-timer.C:
			case <-l.kick:
				failures = 0
			case <-l.peer.ctx.Done():
			}
			timer.Stop()
		}
		addr, ok := l.begin()
		if !ok {
			return
		}
		c, err := l.connect(l.peer.ctx, addr)
		if err == nil {
			l.t.attachDialed(c)
			if l.settled() {
				return
			}
			err = errConnClosed
		}
		if errors.Is(err, ErrPeerGone) && addr == l.peer.info.Load().Addr && !l.peer.connected() {
			l.t.markGone(l.peer, err) // one that is connected is alive, and only its address is wrong
		}
		failures++
		l.failed(err)
		wait = backoff(failures)
	}
}

// begin says whether there is still something to dial, and starts the attempt; if not, the dialer ends.
func (l *link) begin() (addr string, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.electLocked()
	addr = l.peer.info.Load().Addr
	if l.removed || l.cur.Load() != nil || addr == "" || l.peer.gone.Load() || l.peer.ctx.Err() != nil {
		l.running, l.phase = false, idle
		return "", false
	}
	if l.phase != dialing {
		l.phase, l.since = dialing, time.Now()
	}
	select {
	case <-l.kick: // this attempt is what it asked for
	default:
	}
	return addr, true
}

// settled ends the dialer if there is a connection.
func (l *link) settled() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.electLocked()
	if l.cur.Load() == nil {
		return false
	}
	l.running, l.phase = false, idle
	return true
}

// failed gives up what was queued for the attempt.
func (l *link) failed(err error) {
	l.peer.breaker.unreachable()
	l.mu.Lock()
	dropped := len(l.queue)
	l.queue, l.queued = nil, 0
	if l.cur.Load() == nil {
		l.phase = waiting
	}
	l.mu.Unlock()
	if dropped > 0 {
		l.t.lose(l.peer, Loss{Boot: l.peer.boot, Lane: l.lane, Err: fmt.Errorf("%w: %w", ErrUnreachable, err)})
	}
}

func (l *link) connect(ctx context.Context, addr string) (*conn, error) {
	nc, version, err := l.t.open(ctx, addr, l.peer.boot, l.lane, "")
	if err != nil {
		return nil, err
	}
	return newConn(l, nc, version), nil
}

// open dials, authenticates both sides and says hello. The connection is ready for frames, or a stream's bytes.
func (t *Transport) open(ctx context.Context, addr string, to Boot, lane Lane, service string) (
	nc net.Conn, version uint8, err error,
) {
	ctx, cancel := context.WithTimeout(ctx, t.cfg.HandshakeTimeout)
	defer cancel()
	raw, err := t.dialRaw(ctx, addr)
	if err != nil {
		return nil, 0, fmt.Errorf("peer: dial %s: %w", addr, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = raw.Close() })
	nc, version, err = t.sayHello(ctx, raw, to, lane, service)
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		_ = raw.Close()
		var r *refusal
		if errors.As(err, &r) {
			t.reject(addr, r.reason, err)
		}
		return nil, 0, fmt.Errorf("peer: connect to %s: %w", addr, err)
	}
	return nc, version, nil
}

func (t *Transport) dialRaw(ctx context.Context, addr string) (net.Conn, error) {
	if t.cfg.Dial != nil {
		return t.cfg.Dial(ctx, addr)
	}
	if host, _, err := net.SplitHostPort(addr); err != nil {
		return nil, err
	} else if t.security.plain() && !loopback(host) {
		return nil, errors.New("not loopback, and there is neither a secret nor a certificate")
	}
	return t.dialer.DialContext(ctx, "tcp", addr)
}

func (t *Transport) sayHello(ctx context.Context, raw net.Conn, to Boot, lane Lane, service string) (
	net.Conn, uint8, error,
) {
	if deadline, ok := ctx.Deadline(); ok {
		_ = raw.SetDeadline(deadline)
	}
	nc, err := t.security.secure(ctx, raw, true)
	if err != nil {
		return nil, 0, err
	}
	own := t.cfg.versions
	h := hello{versions: own, cluster: t.cluster, from: t.cfg.Self, to: to, lane: lane, service: service}
	if _, err := nc.Write(h.append(make([]byte, 0, maxHello))); err != nil {
		return nil, 0, err
	}
	head, payload, err := readOpening(nc)
	if err != nil {
		return nil, 0, err
	}
	w, err := parseWelcome(head, payload)
	if err != nil {
		return nil, 0, err
	}
	if w.cluster != t.cluster {
		return nil, 0, explain(welcome{verdict: refusedCluster}, own)
	}
	if w.verdict != welcomed {
		return nil, 0, explain(w, own)
	}
	if w.boot != to {
		return nil, 0, fmt.Errorf("%w (%v)", ErrPeerGone, w.boot)
	}
	if w.version < own.oldest || w.version > own.newest {
		return nil, 0, refuse(reasonVersion, fmt.Errorf("it chose protocol version %d", w.version))
	}
	return nc, w.version, raw.SetDeadline(time.Time{})
}

package peer

import (
	"context"
	"fmt"
	"maps"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/peerlimit/peerlimit/cluster/internal/workers"
)

// Transport is a member's end of all connections to others. Its methods may be called concurrently.
type Transport struct {
	cfg      Config
	cluster  uint64
	security *security
	listener net.Listener
	dialer   net.Dialer
	gate     gate
	ctx      context.Context // ends with Close
	cancel   context.CancelFunc

	peers atomic.Pointer[map[Boot]*member] // never changed in place; replaced with mu held

	mu sync.Mutex // orders changes of peers and the coming of connections; before link.mu

	life   sync.Mutex // guards closed against spawn
	closed bool
	wg     sync.WaitGroup // all goroutines

	accepted atomic.Int64 // connections now open that others dialed
	services services     // of Handle
	workers  *workers.Pool
	streams  streams
	nextCall atomic.Uint64
	news     breakerNews
	rejected rejections
	logged   onceLog
	counts   counts

	born     time.Time    // lastBeat and lastGap are nanoseconds since then
	lastBeat atomic.Int64 // of the pulse
	lastGap  atomic.Int64 // the latest beat that was late; 0: none
}

// Listen binds the port, so that Addr is known. Nothing is accepted before Start, which leaves time for Handle and
// HandleStream, and for the Message hook to learn of the transport.
func Listen(cfg Config) (*Transport, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	sec, err := newSecurity(&cfg)
	if err != nil {
		return nil, err
	}
	listen := cfg.Listen
	if listen == nil {
		listen = func(a string) (net.Listener, error) { return net.Listen("tcp", a) }
	}
	ln, err := listen(cfg.Bind)
	if err != nil {
		return nil, fmt.Errorf("peer: listen on %s: %w", cfg.Bind, err)
	}
	t := &Transport{
		cfg: cfg, cluster: clusterHash(cfg.Cluster), security: sec, listener: ln,
		gate: gate{most: cfg.MaxUnauthenticated, mostPerSource: cfg.MaxPerSource},
		news: breakerNews{wake: make(chan struct{}, 1)}, born: time.Now(),
	}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	t.workers = workers.New(t.spawn, t.ctx.Done())
	t.peers.Store(&map[Boot]*member{})
	t.nextCall.Store(uint64(time.Now().UnixNano()))
	t.spawn(t.pulse)
	t.spawn(t.tellBreakers)
	return t, nil
}

// Start begins to accept connections. It is called once, after Listen; SetPeers need not wait for it.
func (t *Transport) Start() { t.spawn(t.accept) }

// Addr is the address that is listened on.
func (t *Transport) Addr() net.Addr { return t.listener.Addr() }

// spawn runs f on a goroutine that Close waits for; false when closed.
func (t *Transport) spawn(f func()) bool {
	t.life.Lock()
	defer t.life.Unlock()
	if t.closed {
		return false
	}
	t.wg.Go(f)
	return true
}

func (t *Transport) peer(b Boot) *member { return (*t.peers.Load())[b] }

// SetPeers tells who is a member and where. Those not known before are connected to; one that has another address now
// is dialed there at once, if it is not connected; one that was named before and is not now is disconnected. A member
// that has not been named but connects is heard and can be answered: a message from a member proves its membership.
// This member itself is left out. The map is not kept.
func (t *Transport) SetPeers(peers map[Boot]Peer) {
	var dial, removed []*member
	t.mu.Lock()
	old := *t.peers.Load()
	next := maps.Clone(old)
	for boot, info := range peers {
		if boot == t.cfg.Self || boot == 0 {
			continue
		}
		p := old[boot]
		if p == nil {
			p = newMember(t, boot, info)
			next[boot] = p
			dial = append(dial, p)
		} else if before := p.info.Swap(&info); before.Addr != info.Addr {
			p.gone.Store(false)
			dial = append(dial, p)
		}
		p.listed.Store(true)
	}
	for boot, p := range old {
		if _, ok := peers[boot]; !ok && p.listed.Load() {
			delete(next, boot)
			removed = append(removed, p)
		}
	}
	t.peers.Store(&next)
	t.mu.Unlock()

	for _, p := range removed {
		t.removeMember(p, ErrUnknownPeer)
	}
	for _, p := range dial {
		for _, l := range p.links {
			l.mu.Lock()
			if l.cur.Load() == nil && (l.lane.eager() || l.running) {
				l.dialLocked(false)
				l.kickIfWaiting()
			}
			l.mu.Unlock()
		}
	}
}

// kickIfWaiting has a dialer that waits after a failure try again; l.mu is held.
func (l *link) kickIfWaiting() {
	if l.phase == waiting {
		l.kickNow()
	}
}

func (t *Transport) removeMember(p *member, why error) {
	p.cancel()
	for _, l := range p.links {
		l.remove(why)
	}
	t.streams.closeIf(func(s *stream) bool { return s.boot == p.boot })
	p.calls.failAll(why)
}

// Send queues a frame on a lane and never waits. nil means that it is queued, not that it will arrive: see Config.Down.
// The payload is copied. Errors: ErrUnknownPeer, ErrPeerGone, ErrUnreachable, ErrQueueFull, ErrTooLarge, ErrType. The
// breaker is not asked.
func (t *Transport) Send(to Boot, lane Lane, m Message) error {
	if m.Type < TypeUser {
		return ErrType
	}
	return t.send(to, lane, &m)
}

func (t *Transport) send(to Boot, lane Lane, m *Message) error {
	p := t.peer(to)
	if p == nil || lane >= laneCount {
		return ErrUnknownPeer
	}
	return p.links[lane].send(m)
}

// Reply sends a frame by the connection that a request came by, so that who can be reached one way only is answered
// all the same; if that has ended, like Send on its lane.
func (t *Transport) Reply(via Via, m Message) error {
	if m.Type < TypeUser {
		return ErrType
	}
	return t.reply(via, &m)
}

func (t *Transport) reply(via Via, m *Message) error {
	if via.c == nil {
		return ErrUnreachable
	}
	if err := via.c.push(m); err != errConnClosed {
		return err
	}
	return t.send(via.c.link.peer.boot, via.c.link.lane, m)
}

func (t *Transport) breakerChanged(p *member, from, to BreakerState) {
	t.news.add(BreakerChange{Boot: p.boot, Name: p.name(), From: from, To: to, At: time.Now()})
}

// takePlace counts an accepted connection; false when there are too many.
func (t *Transport) takePlace() bool {
	if t.accepted.Add(1) > int64(t.cfg.MaxConnections) {
		t.accepted.Add(-1)
		return false
	}
	return true
}

func (t *Transport) leavePlace() { t.accepted.Add(-1) }

// allConns lists the connections of all lanes.
func (t *Transport) allConns() []*conn {
	var all []*conn
	for _, p := range *t.peers.Load() {
		for _, l := range p.links {
			all = append(all, l.snapshot()...)
		}
	}
	return all
}

// Close writes what is queued, for 200 ms at most, closes all connections and waits for everything that runs,
// handlers included: their contexts end. No hook is called once it has returned. It may be called twice. It must not be
// called from a hook or a handler.
func (t *Transport) Close() error {
	t.life.Lock()
	again := t.closed
	t.closed = true
	t.life.Unlock()
	if again {
		t.wg.Wait()
		return nil
	}
	err := t.listener.Close()
	t.cancel()
	t.gate.close()
	for _, c := range t.allConns() {
		c.finish()
	}
	t.streams.shut()
	for _, p := range *t.peers.Load() {
		p.calls.failAll(ErrClosed)
	}
	t.wg.Wait()
	return err
}

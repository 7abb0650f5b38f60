package cluster

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/peerlimit/peerlimit/cluster/internal/membership"
	"github.com/peerlimit/peerlimit/cluster/internal/peer"
	"github.com/peerlimit/peerlimit/cluster/internal/ring"
)

// Node is a member of a cluster. Its methods may be called from several
// goroutines at a time.
type Node struct {
	cfg     Config // with its defaults
	boot    uint64
	log     *slog.Logger
	started time.Time

	peers      *peer.Transport
	members    *membership.Membership
	events     *events
	possession possessor    // decides which slots this member serves
	owner      *owner       // the same, as its tables know it
	kv         *KV          // values that can be loaded again
	breakers   peerBreakers // what the peers' breakers did

	// ring is made of the members that are alive and not draining. It is
	// replaced, never changed.
	ring atomic.Pointer[ring.Ring]

	regrouping sync.Mutex    // one at a time makes the ring follow the list
	listed     chan struct{} // closed when members is set
	ready      chan struct{} // closed when the member serves

	draining  atomic.Bool
	drainTurn chan struct{} // holds one token while somebody drains
	handedOff atomic.Bool   // all is handed over

	life   context.Context // ends with the member
	end    context.CancelFunc
	once   sync.Once // Close
	endErr error     // of Close; set under once
	wg     sync.WaitGroup
}

// A member takes its part of the slots only when the program around it has made
// its tables: until then it could answer no operation on them. That is so when
// none was made for tablesSettle, and at the latest after tablesPatience.
const (
	tablesSettle   = 30 * time.Millisecond
	tablesPatience = 500 * time.Millisecond
)

// Start makes this process a member: it listens, and waits until it has joined,
// no longer than Config.JoinTimeout. A member that can't join yet, because a
// seed refuses it, is returned all the same: it goes on trying. Make the tables
// (limiters, caches, authenticators) at once: the member becomes ready, and is
// handed slots, when none was made for 30 ms, or after half a second. Calls
// are answered, by the other members, before that. [Node.Ready] says whether it
// is ready or why not, and [Node.AwaitReady] waits for it.
//
// The errors are a *ConfigError for a bad Config, ctx's, and those of listening.
// ctx bounds only the start; [Node.Close] ends the member.
func Start(ctx context.Context, cfg Config) (*Node, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	certificates, err := cfg.certificates()
	if err != nil {
		return nil, err
	}
	host, err := membership.Advertise(ctx, net.DefaultResolver, cfg.Bind, cfg.Advertise)
	if err != nil {
		return nil, &ConfigError{"Advertise", "no address that others can reach was found; set one", err}
	}
	n := &Node{
		cfg:       cfg,
		boot:      membership.NewBoot(),
		log:       cfg.Logger,
		started:   time.Now(),
		listed:    make(chan struct{}),
		ready:     make(chan struct{}),
		drainTurn: make(chan struct{}, 1),
	}
	n.life, n.end = context.WithCancel(context.Background())
	n.ring.Store(ring.New(nil))

	if n.peers, err = peer.Listen(n.peerConfig(certificates)); err != nil {
		return nil, fmt.Errorf("cluster: listen for peers: %w", err)
	}
	n.events = newEvents()
	n.warnOfShortSecrets()
	peerAddr, err := n.advertisedPeer(host)
	if err != nil {
		n.end()
		n.events.close()
		return nil, errors.Join(err, n.peers.Close())
	}
	gossip, err := listenKV(cfg.KVBind, host)
	if err != nil {
		n.end()
		n.events.close()
		return nil, errors.Join(err, n.peers.Close())
	}
	n.members, err = membership.Start(membership.Config{
		Cluster: cfg.ClusterName,
		Meta: membership.Meta{
			ID: cfg.NodeID, Zone: cfg.Zone, Version: cfg.Version,
			Peer:     peerAddr,
			KVGossip: gossip.Addr(),
			ProtoMin: peer.OldestVersion, ProtoMax: peer.Version,
		},
		Boot:        n.boot,
		Bind:        cfg.Bind,
		Advertise:   host,
		Seeds:       cfg.Join,
		Secrets:     cfg.Secrets,
		JoinTimeout: cfg.JoinTimeout,
		OnChange:    n.changed,
		Logger:      cfg.Logger,
	})
	if err != nil {
		n.end()
		n.events.close()
		return nil, fmt.Errorf("cluster: %w", errors.Join(err, gossip.Close(), n.peers.Close()))
	}
	n.possession = newPossessor(n)
	n.regroup()
	close(n.listed)
	n.peers.Start()
	n.wg.Go(n.become)

	late := time.NewTimer(cfg.JoinTimeout)
	defer late.Stop()
	select {
	case <-n.members.Settled():
	case <-late.C:
	case <-ctx.Done():
		return nil, errors.Join(fmt.Errorf("cluster: start: %w", ctx.Err()), gossip.Close(), n.kill())
	}
	// The KV starts when the others are known, so that it finds them at once.
	if n.kv, err = n.openKV(gossip); err != nil {
		return nil, errors.Join(err, n.kill())
	}
	return n, nil
}

// advertisedPeer returns the address for calls that others are told: the host
// they reach gossip at, unless calls are received at another one only.
func (n *Node) advertisedPeer(host netip.Addr) (string, error) {
	bound, port, err := net.SplitHostPort(n.peers.Addr().String())
	if err != nil {
		return "", err
	}
	addr, err := netip.ParseAddr(bound)
	if err == nil && !addr.IsUnspecified() && n.cfg.Advertise == "" {
		host = addr.Unmap()
	}
	return net.JoinHostPort(host.String(), port), nil
}

func (n *Node) peerConfig(certificates *tls.Config) peer.Config {
	return peer.Config{
		Self:         peer.Boot(n.boot),
		Node:         n.cfg.NodeID,
		Cluster:      n.cfg.ClusterName,
		Bind:         n.cfg.PeerBind,
		Secrets:      n.cfg.Secrets,
		Certificates: certificates,
		Logger:       n.cfg.Logger,
		Message: func(from peer.Boot, m peer.Message) {
			if n.possession != nil {
				n.possession.message(from, m)
			}
		},
		Down: func(l peer.Loss) {
			if l.Gone {
				// Another process answers at its address: that life is over.
				n.members.MarkDead(uint64(l.Boot))
			}
			if n.possession != nil {
				n.possession.down(l)
			}
		},
		Breaker: n.breakers.note,
	}
}

// shortSecret is the length in bytes below which a secret is likely to be one
// that can be guessed: every packet that is overheard can be tried on.
const shortSecret = 16

func (n *Node) warnOfShortSecrets() {
	for i, s := range n.cfg.Secrets {
		if len(s) < shortSecret {
			n.log.Warn("secret is short: take 32 random bytes", "number", i+1, "bytes", len(s))
		}
	}
}

// become goes from listening to serving.
func (n *Node) become() {
	select {
	case <-n.life.Done():
		return
	case <-n.members.Settled():
	}
	if state, _ := n.members.Join(); state == membership.Unanswered {
		n.log.Warn("no seed answered", "join", n.cfg.Join, "after", n.cfg.JoinTimeout)
	}
	if n.possession != nil {
		if !n.awaitTables() {
			return
		}
		n.possession.begin()
		select {
		case <-n.life.Done():
			return
		case <-n.possession.readied():
		}
	}
	n.log.Info("ready", "node", n.cfg.NodeID, "boot", bootText(n.boot), "members", len(n.Members()))
	close(n.ready)
}

// awaitTables waits until the program has made its tables; false if the member
// ends first.
func (n *Node) awaitTables() bool {
	latest := time.NewTimer(tablesPatience)
	defer latest.Stop()
	var settled <-chan time.Time
	for {
		select {
		case <-n.owner.attached:
			settled = time.After(tablesSettle)
		case <-settled:
			return true
		case <-latest.C:
			return true
		case <-n.life.Done():
			return false
		}
	}
}

// changed takes note of a change of another member. It is called one at a time.
func (n *Node) changed(c membership.Change) {
	select {
	case <-n.listed:
	case <-n.life.Done():
		return
	}
	n.regroup()
	m := memberFrom(c.Member)
	ev := Event{Member: m}
	level := slog.LevelInfo
	switch c.Kind {
	case membership.Joined:
		ev.Kind = MemberJoined
	case membership.Departed:
		ev.Kind = MemberLeft
	case membership.Lost:
		ev.Kind, level = MemberLost, slog.LevelWarn
	default:
		ev.Kind, level = MemberUpdated, slog.LevelDebug
	}
	n.log.Log(context.Background(), level, string(ev.Kind),
		"member", m.Name, "boot", bootText(m.Boot), "state", string(m.State), "peer", m.Peer, "zone", m.Zone)
	n.events.send(ev)
}

// regroup makes the ring and the peers follow the list of members.
func (n *Node) regroup() {
	n.regrouping.Lock()
	defer n.regrouping.Unlock()
	live := n.members.Members()
	members := make([]Member, 0, len(live))
	peers := make(map[peer.Boot]peer.Peer, len(live))
	var serving, all []ring.Boot
	for _, m := range live {
		members = append(members, memberFrom(m))
		all = append(all, ring.Boot(m.Boot))
		if m.State == membership.Alive {
			serving = append(serving, ring.Boot(m.Boot))
		}
		if m.Boot != n.boot {
			peers[peer.Boot(m.Boot)] = peer.Peer{Node: m.ID, Addr: m.Peer}
		}
	}
	if len(serving) == 0 {
		serving = all // all drain: the last to leave still serves
	}
	r := ring.New(serving)
	n.ring.Store(r)
	n.peers.SetPeers(peers)
	n.breakers.keep(peers)
	if n.possession != nil {
		n.possession.membersChanged(r, members)
	}
}

// Self returns this member.
func (n *Node) Self() Member { return memberFrom(n.members.Self()) }

// Members returns the members that are alive or draining, this one included, by
// name.
func (n *Node) Members() []Member {
	live := n.members.Members()
	out := make([]Member, len(live))
	for i, m := range live {
		out[i] = memberFrom(m)
	}
	return out
}

// Watch calls f for each change of another member from now on, one at a time
// and in order, until stop is called; a call under way then still ends. A slow
// f delays other watchers only, and after 4,096 events that wait the oldest are
// dropped. f must not call Close.
func (n *Node) Watch(f func(Event)) (stop func()) { return n.events.watch(f) }

// Errors of Ready.
var (
	ErrJoining  = errors.New("cluster: joining: no seed has answered yet")
	ErrRefused  = errors.New("cluster: refused by a seed")
	ErrDraining = errors.New("cluster: draining")
)

// Ready returns nil if the member serves, or the reason why it does not:
// [ErrJoining], [ErrRefused], [ErrDraining], [ErrClosed], or what it waits for.
// Being short of members is no reason: see [Status].
func (n *Node) Ready() error {
	select {
	case <-n.life.Done():
		return ErrClosed
	default:
	}
	if n.draining.Load() {
		return ErrDraining
	}
	select {
	case <-n.ready:
		if n.possession != nil {
			return n.possession.ready()
		}
		return nil
	default:
	}
	switch state, reason := n.members.Join(); state {
	case membership.Refused:
		return fmt.Errorf("%w: %s", ErrRefused, reason)
	case membership.Joining:
		return ErrJoining
	}
	if n.possession != nil {
		if err := n.possession.ready(); err != nil {
			return err
		}
	}
	return ErrJoining
}

// AwaitReady waits until the member has become ready for the first time. Its
// error is ctx's, with the reason why it is not ready, or ErrClosed.
func (n *Node) AwaitReady(ctx context.Context) error {
	select {
	case <-n.ready:
		return nil
	default:
	}
	select {
	case <-n.ready:
		return nil
	case <-n.life.Done():
		return ErrClosed
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ctx.Err(), n.Ready())
	}
}

// SetSecrets replaces the secrets of a running member: the first is used, all
// are accepted. To rotate one, add the new secret last on every member, then
// put it first on every member, then take the old one away. A member without a
// secret can't get one while it runs, nor lose its last.
func (n *Node) SetSecrets(secrets [][]byte) error {
	if err := n.members.SetSecrets(secrets); err != nil {
		return fmt.Errorf("cluster: %w", err)
	}
	if err := n.kv.setSecrets(secrets); err != nil {
		return fmt.Errorf("cluster: %w", err)
	}
	if len(secrets) == 0 || n.cfg.TLS != nil || n.cfg.TLSCert != "" {
		return nil
	}
	return n.peers.SetSecrets(secrets)
}

// SetTLS replaces [Config.TLS], or the files in its place, of a running member.
// Connections whose other side is no longer accepted are made anew before they
// are closed. To change the authority, let every member accept the old one and
// the new one, then give every member a certificate of the new one, then accept
// that one only. A member without certificates can't get some while it runs.
func (n *Node) SetTLS(config *tls.Config) error {
	if config == nil {
		return errors.New("cluster: TLS can't cease while a member runs")
	}
	if err := n.peers.SetCertificates(config); err != nil {
		return fmt.Errorf("cluster: %w", err)
	}
	return nil
}

// KV returns the cluster's store of values that can be loaded again. It is
// usable from Start on, and says that it is not available until it is.
func (n *Node) KV() *KV { return n.kv }

// LastHeard returns when a message of another member last arrived, with the
// monotonic clock's reading; the zero time where there is no other member.
// While there is one, members hear from each other every 30 ms.
func (n *Node) LastHeard() time.Time {
	if len(n.members.Members()) < 2 {
		return time.Time{}
	}
	return n.owner.lastHeard()
}

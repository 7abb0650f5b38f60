package membership

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// Config says who this member is and where it finds others.
type Config struct {
	Cluster     string     // name of the cluster, 1 to 128 bytes
	Meta        Meta       // what this member tells of itself
	Boot        uint64     // see NewBoot
	Bind        string     // host:port for gossip, UDP and TCP; port 0 takes a free one
	Advertise   netip.Addr // the address others reach it at; see the function Advertise
	Seeds       []string   // host:port, DNS names, addresses
	DefaultPort uint16     // of seeds without one; 0 means that of Bind, or 7946
	Secrets     [][]byte   // the first is used, all are accepted; none: nothing is encrypted

	// JoinTimeout is how long seeds may be silent before the member counts as
	// the first of its cluster.
	JoinTimeout time.Duration

	// OnChange is called for each change of another member, one call at a time,
	// under no lock. It must not call Shutdown. May be nil.
	OnChange func(Change)

	Logger   *slog.Logger // nil: silent
	Resolver Resolver     // nil: net.DefaultResolver

	reaches func(to string) bool // a test's network; nil: everything can be reached
}

// NewBoot returns a random boot ID, never 0.
func NewBoot() uint64 {
	for {
		var b [8]byte
		_, _ = rand.Read(b[:]) // never fails, says its documentation
		if boot := binary.BigEndian.Uint64(b[:]); boot != 0 {
			return boot
		}
	}
}

// gossiper is what is used of memberlist's own type. As an interface, because a
// package that has a struct with that type compiles anew whatever it is made of
// and has type parameters.
type gossiper interface {
	Join(addresses []string) (int, error)
	UpdateNode(timeout time.Duration) error
	SendBestEffort(to *memberlist.Node, message []byte) error
	Leave(timeout time.Duration) error
	Shutdown() error
}

// Membership is a member's view of its cluster. Its methods may be called from
// several goroutines at a time.
type Membership struct {
	cluster   string
	boot      uint64
	log       *slog.Logger
	ml        gossiper
	transport *transport
	keyring   *memberlist.Keyring // nil without secrets
	table     *table
	joiner    *joiner
	goodbye   *goodbye

	cancel context.CancelFunc
	wg     sync.WaitGroup // joiner and teller

	updating sync.Mutex // one update of the own meta at a time

	mu      sync.Mutex // guards what follows
	meta    Meta
	encoded []byte
	left    bool
	closed  bool
}

// Start listens for gossip and begins to join.
func Start(cfg Config) (*Membership, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	port, err := bindPort(cfg.Bind)
	if err != nil {
		return nil, err
	}
	seeds, err := cfg.parseSeeds(port)
	if err != nil {
		return nil, err
	}
	keys, err := gossipKeys(cfg.Secrets, cfg.Cluster)
	if err != nil {
		return nil, err
	}
	t, err := listen(cfg.Bind, cfg.Advertise)
	if err != nil {
		return nil, err
	}
	if cfg.reaches != nil {
		t.reaches = cfg.reaches
	}
	self := Member{Meta: cfg.Meta, Boot: cfg.Boot, Gossip: t.advertise}
	ctx, cancel := context.WithCancel(context.Background())
	m := &Membership{
		cluster:   cfg.Cluster,
		boot:      cfg.Boot,
		log:       cfg.Logger,
		transport: t,
		table:     newTable(self, time.Now),
		goodbye:   newGoodbye(),
		cancel:    cancel,
		meta:      cfg.Meta,
		encoded:   cfg.Meta.append(nil),
	}
	j := newJoiner(cfg.JoinTimeout, time.Now)
	j.join = func(a netip.AddrPort) error {
		_, err := m.ml.Join([]string{a.String()})
		return err
	}
	j.table, j.log = m.table, cfg.Logger
	j.seeds = &seedList{all: seeds, resolver: cfg.Resolver}
	j.own = ownAddresses{advertise: t.advertise, bound: t.bound(), local: localAddresses}
	m.joiner = j
	mlc := cfg.memberlist()
	mlc.Transport = t
	mlc.BindPort = int(t.advertise.Port())
	mlc.Logger = log.New(&logLines{log: cfg.Logger, now: time.Now, stranger: j.stranger}, "", 0)
	hooks := &hooks{m}
	mlc.Delegate, mlc.Events, mlc.Alive = hooks, hooks, hooks
	if len(keys) > 0 {
		if m.keyring, err = memberlist.NewKeyring(keys, keys[0]); err != nil {
			cancel()
			return nil, errors.Join(err, t.Shutdown())
		}
		mlc.Keyring = m.keyring
	}
	if m.ml, err = memberlist.Create(mlc); err != nil {
		cancel()
		return nil, errors.Join(fmt.Errorf("membership: %w", err), t.Shutdown())
	}
	t.start() // not before m.ml is set: what is received may need it
	m.wg.Go(func() { m.joiner.run(ctx) })
	m.wg.Go(func() { m.tell(ctx, cfg.OnChange) })
	return m, nil
}

// tell passes changes on until ctx ends.
func (m *Membership) tell(ctx context.Context, f func(Change)) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.table.wake:
		}
		m.joiner.check()
		for _, c := range m.table.changes() {
			if c.Kind == Lost || c.Kind == Departed {
				m.joiner.poke()
			}
			if f != nil && ctx.Err() == nil {
				f(c)
			}
		}
	}
}

// Self returns this member.
func (m *Membership) Self() Member { return m.table.get(m.boot) }

// Members returns the members that are alive or draining, this one included,
// by node ID.
func (m *Membership) Members() []Member {
	return m.table.list(func(m Member) bool { return m.State.Live() })
}

// Gone returns the members that left or died, for a day after that, the latest
// 4,096 of them. Of some only the boot ID is known: another member told of them.
func (m *Membership) Gone() []Member {
	return m.table.list(func(m Member) bool { return !m.State.Live() })
}

// Get returns what is known of the member with a boot ID; its State is Unknown
// if nothing is.
func (m *Membership) Get(boot uint64) Member { return m.table.get(boot) }

// MarkDead records that a life is over beyond doubt, because another process
// answers at its address. It is then lost at once, and no later word revives
// it.
func (m *Membership) MarkDead(boot uint64) { m.table.gone(boot, true) }

// Join returns how far the member has come, with a reason while it is refused.
func (m *Membership) Join() (JoinState, string) { return m.joiner.status() }

// Settled is closed once the member may serve: it has joined, or has nobody to
// join. It stays open while a seed refuses it.
func (m *Membership) Settled() <-chan struct{} { return m.joiner.settled }

// ErrStopped is returned by what needs a running membership.
var ErrStopped = errors.New("membership: stopped")

// Update changes what this member tells of itself and returns when that has
// been sent on its way. ID and protocol can't be changed.
func (m *Membership) Update(ctx context.Context, change func(*Meta)) error {
	m.updating.Lock()
	defer m.updating.Unlock()
	m.mu.Lock()
	if m.left || m.closed {
		m.mu.Unlock()
		return ErrStopped
	}
	meta := m.meta
	change(&meta)
	meta.ID, meta.ProtoMin, meta.ProtoMax = m.meta.ID, m.meta.ProtoMin, m.meta.ProtoMax
	if err := meta.check(); err != nil {
		m.mu.Unlock()
		return err
	}
	m.meta, m.encoded = meta, meta.append(nil)
	m.mu.Unlock()
	// A refutation that happens at the same time carries the old meta with a
	// higher incarnation, and memberlist then drops the new one without a word.
	for range 10 {
		// What it waits for is that the news was sent often enough; when it
		// gives up waiting, the news is still on its way.
		err := m.ml.UpdateNode(200 * time.Millisecond)
		if m.Self().Meta == meta {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			m.log.Debug("membership: update", "error", err)
		}
	}
	return errors.New("membership: update was overtaken ten times")
}

// SetDraining tells the others that this member will leave.
func (m *Membership) SetDraining(ctx context.Context) error {
	return m.Update(ctx, func(meta *Meta) { meta.Draining = true })
}

// SetSecrets replaces the secrets: the first is used, all are accepted. A
// cluster that started without a secret can't get one, nor the other way round.
func (m *Membership) SetSecrets(secrets [][]byte) error {
	if (m.keyring == nil) != (len(secrets) == 0) {
		return errors.New("membership: a running member can't begin or cease to use a secret")
	}
	if m.keyring == nil {
		return nil
	}
	keys, err := gossipKeys(secrets, m.cluster)
	if err != nil {
		return err
	}
	m.updating.Lock()
	defer m.updating.Unlock()
	return setKeys(m.keyring, keys)
}

// Leave says goodbye. It returns when every member it could reach has noted
// that, or after timeout.
func (m *Membership) Leave(timeout time.Duration) error {
	m.updating.Lock()
	defer m.updating.Unlock()
	m.mu.Lock()
	if m.left || m.closed {
		m.mu.Unlock()
		return nil
	}
	m.left = true
	m.mu.Unlock()
	deadline := time.Now().Add(timeout)
	m.sayGoodbye(time.Now().Add(timeout / 2))
	// What can fail is only the wait until memberlist has spread the word, as
	// when all others leave too; the goodbye has been said.
	if err := m.ml.Leave(max(time.Until(deadline), 10*time.Millisecond)); err != nil {
		m.log.Debug("membership: leave", "error", err)
	}
	return nil
}

// Shutdown stops at once; without Leave the others will have to find out. It
// may be called twice. memberlist's last timers run out within about a second
// after it, without effect.
func (m *Membership) Shutdown() error {
	m.updating.Lock()
	defer m.updating.Unlock()
	m.mu.Lock()
	closed := m.closed
	m.closed = true
	m.mu.Unlock()
	if closed {
		return nil
	}
	m.cancel()
	err := m.ml.Shutdown()
	m.wg.Wait()
	return err
}

func (c Config) check() error {
	if c.Cluster == "" || len(c.Cluster) > 128 {
		return fmt.Errorf("membership: Cluster has %d bytes, must be 1 to 128", len(c.Cluster))
	}
	if c.Boot == 0 {
		return errors.New("membership: Boot must not be 0")
	}
	if !c.Advertise.IsValid() || c.Advertise.IsUnspecified() {
		return errors.New("membership: Advertise must be the address of one host")
	}
	if c.JoinTimeout <= 0 {
		return errors.New("membership: JoinTimeout must be above 0")
	}
	return c.Meta.check()
}

func (c Config) withDefaults() Config {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Resolver == nil {
		c.Resolver = defaultResolver
	}
	c.Secrets = slices.Clone(c.Secrets)
	return c
}

func (c Config) parseSeeds(bindPort uint16) ([]seed, error) {
	port := c.DefaultPort
	if port == 0 {
		port = bindPort
	}
	if port == 0 {
		port = 7946
	}
	out := make([]seed, 0, len(c.Seeds))
	for _, text := range c.Seeds {
		s, err := parseSeed(text, port)
		if err != nil {
			return nil, fmt.Errorf("membership: seed %w", err)
		}
		out = append(out, s)
	}
	return out, nil
}

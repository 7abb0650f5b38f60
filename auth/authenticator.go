package auth

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/peerlimit/peerlimit/cluster"
)

// Authenticator verifies keys and administers them; New makes one. Methods may be called concurrently.
type Authenticator struct {
	cfg          Config
	format       format
	store        Store
	shared       Shared
	sharedPrefix string
	log          *slog.Logger
	clock        clock

	near    *near
	unknown *unknown
	flights *flights
	view    *view
	// calls and callsKnown bound what is asked of the store at once, for keys not known and known here.
	calls, callsKnown chan struct{}

	confirmed             confirmation
	tablePulse, storeRead *pulse
	// lastVerify is when, on the monotonic clock, exact to idleAfter/8.
	lastVerify atomic.Int64

	peers     peers
	changelog func(context.Context, changelogOp) (changelogResult, error)
	usage     *usage
	stats     counters

	// Closing.
	ctx      context.Context //nolint:containedctx // the life of the goroutines below, not of a call
	cancel   context.CancelFunc
	wg       sync.WaitGroup
	closing  sync.RWMutex // held to read while a flight is begun, so that wg is not waited for before it is added to
	closed   bool         // guarded by closing
	unwatch  func()
	endTable func() error
}

// New returns an Authenticator. It does not wait for the store or the cluster: until they answer, verdicts are
// Unavailable. Close it when done.
func New(cfg Config) (*Authenticator, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	form, err := newFormat(cfg.Prefix)
	if err != nil {
		return nil, err
	}
	a := &Authenticator{
		cfg: cfg, format: form, store: cfg.Store, shared: cfg.Shared, log: cfg.Logger, clock: newClock(cfg.Now),
		sharedPrefix: "auth:" + cfg.Namespace + ":",
		near:         newNear(cfg.NearBytes), unknown: newUnknown(cfg.NearUnknown, cfg.NegativeTTL),
		flights: newFlights(), view: newView(),
		calls: make(chan struct{}, cfg.StoreCalls), callsKnown: make(chan struct{}, cfg.StoreCalls),
		peers: cfg.peers, changelog: cfg.changelog, endTable: func() error { return nil },
	}
	if a.peers == nil {
		if a.peers = peers(&alone{}); cfg.Cluster != nil {
			a.peers = newMembers(cfg.Cluster, cfg.Now)
		}
	}
	switch {
	case a.shared == NoShared:
		a.shared = nil
	case a.shared == nil && cfg.Cluster != nil:
		a.shared = kvShared{cfg.Cluster.KV()}
	}
	if a.changelog == nil {
		if err := a.openChangelog(cfg.Cluster); err != nil {
			return nil, err
		}
	}
	a.confirmed.whole, a.confirmed.now = a.peers.whole, a.clock.read
	a.usage = newUsage(cfg.Store, cfg.LastUsedEvery, a.log)
	a.ctx, a.cancel = context.WithCancel(context.Background())
	a.peers.handle(a.kind(), a.heard)
	a.unwatch = a.peers.watch(a.confirmed.membersChanged)
	a.tablePulse = newPulse(tableEvery, tableTimeout, a.idle, a.readTable)
	a.storeRead = newPulse(storeEvery, storeTimeout, a.idle, a.readStore)
	a.wg.Go(func() { a.tablePulse.run(a.ctx) })
	a.wg.Go(func() { a.storeRead.run(a.ctx) })
	if cfg.LastUsedEvery > 0 {
		a.wg.Go(func() { a.usage.run(a.ctx) })
	}
	return a, nil
}

// openChangelog makes the owned table that has the cluster's record of changes.
func (a *Authenticator) openChangelog(node *cluster.Node) error {
	table, err := cluster.NewTable(node, changelogMachine{}, cluster.TableConfig{Name: "auth:" + a.cfg.Namespace})
	if err != nil {
		return fmt.Errorf("auth: namespace %q: %w", a.cfg.Namespace, err)
	}
	key := []byte("changes")
	a.changelog = func(ctx context.Context, op changelogOp) (changelogResult, error) { return table.Do(ctx, key, op) }
	a.endTable = table.Close
	return nil
}

// kind names this namespace's broadcasts.
func (a *Authenticator) kind() string { return "auth:" + a.cfg.Namespace }

// Close ends all that runs for the Authenticator and writes what is outstanding of last uses, for at most 2 s.
// Verifications are then Unavailable. It may be called twice. The store stays open.
func (a *Authenticator) Close() error {
	a.closing.Lock()
	if a.closed {
		a.closing.Unlock()
		return nil
	}
	a.closed = true
	a.closing.Unlock()
	a.peers.handle(a.kind(), nil)
	a.unwatch()
	a.confirmed.close()
	a.cancel()
	a.wg.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	err := a.usage.flush(ctx)
	if endErr := a.endTable(); endErr != nil {
		return endErr
	}
	return err
}

// spawn runs f in a goroutine that Close waits for. It reports false, and does not, after Close.
func (a *Authenticator) spawn(f func()) bool {
	a.closing.RLock()
	defer a.closing.RUnlock()
	if a.closed {
		return false
	}
	a.wg.Go(f)
	return true
}

// idle reports whether nothing was verified for a while.
func (a *Authenticator) idle() bool {
	return a.clock.read().mono-a.lastVerify.Load() > int64(idleAfter)
}

// active notes a verification, so that confirming goes on.
func (a *Authenticator) active(now moment) {
	if now.mono-a.lastVerify.Load() > int64(idleAfter/8) {
		a.lastVerify.Store(now.mono)
	}
}

// readTable is a round of confirmation by the cluster's record.
func (a *Authenticator) readTable(ctx context.Context) error {
	at := a.clock.read() // before the question is sent: what the answer does not have happened after this
	op := a.view.ask()
	op.nonce = newNonce()
	r, err := a.changelog(ctx, op)
	if err != nil {
		a.stats.confirmFailures.Add(1)
		return err
	}
	a.forget(a.view.readTable(r))
	a.confirmed.tableRead(at)
	return nil
}

// newNonce tells incarnations of the record apart.
func newNonce() uint64 { return rand.Uint64() }

// readStore is a round of confirmation by the store's record.
func (a *Authenticator) readStore(ctx context.Context) error {
	at := a.clock.read()
	c, err := a.store.Changes(ctx, a.view.since(), changelogSize)
	if err != nil {
		if a.ctx.Err() == nil && a.confirmed.storeFailed() {
			a.log.Warn("key store unavailable", slog.Any("error", err))
		}
		return err
	}
	a.forget(a.view.readStore(c))
	if a.confirmed.storeRead(at) {
		a.log.Info("key store available")
	}
	return nil
}

// forget removes keys from the caches, after they were marked.
func (a *Authenticator) forget(changed []uint64, all bool) {
	if all {
		a.near.clear()
		a.unknown.clear()
		a.stats.drops.Add(1)
		return
	}
	for _, f := range changed {
		a.near.remove(f)
		a.unknown.remove(f)
	}
}

// confirm waits, if that can help, until what is cached was confirmed again, and reports whether it is. It takes at
// most one answer of each witness.
func (a *Authenticator) confirm(ctx context.Context) bool {
	for _, p := range []*pulse{a.tablePulse, a.storeRead} {
		ended := p.ask()
		if ended == nil {
			continue
		}
		select {
		case <-ended:
		case <-ctx.Done():
			return false
		case <-a.ctx.Done():
			return false
		}
	}
	return a.confirmed.load().fresh(a.clock.read())
}

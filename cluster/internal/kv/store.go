package kv

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/olric-data/olric"
	"github.com/peerlimit/peerlimit/cluster/internal/workers"
)

// maxInFlight bounds the calls of this member that are under way. Olric holds a
// partition's lock while it asks the backup: where that doesn't answer, callers
// would queue without end.
const maxInFlight = 256

// poolSize bounds the connections to each of the others.
const poolSize = 32

// Store is a member's part of the cluster's KV. Its methods may be called
// concurrently, from the return of [Start] on.
type Store struct {
	Map
	cfg     Config
	timings timings
	logger  *slog.Logger
	clock   *clock
	peers   peerNames
	keyring *memberlist.Keyring // of the gossip, nil: it is plain
	base    time.Time           // of the own clock

	ctx        context.Context // ends with Close
	cancel     context.CancelFunc
	goroutines sync.WaitGroup
	watch      context.CancelFunc // ends the watchdog and the repair of copies
	watching   sync.WaitGroup
	workers    *workers.Pool

	merges int // how often in a row olric was started anew to join others; the watchdog's

	caller   atomic.Pointer[caller]   // nil: nobody to ask
	instance atomic.Pointer[instance] // nil: no olric here
	inFlight chan struct{}
	ready    chan struct{} // closed once the first olric served

	lastOK     atomic.Int64 // when a call last succeeded, on the own clock
	changed    atomic.Int64 // when the state last changed
	state      atomic.Int32
	skewWarned atomic.Bool
	restarts   atomic.Uint64
	copied     atomic.Uint64
	failed     atomic.Uint64

	mu     sync.Mutex // guards what follows
	closed bool
	left   bool
}

// caller is what answers this member's calls: its own olric, or after it has
// left, the others'.
type caller struct {
	olric.DMap
	// last is asked where the others don't answer while this member leaves.
	last *engine
}

type state int32

const (
	stateStarting state = iota
	stateAvailable
	stateUnavailable
	stateLeaving
	stateLeft
	stateClosed
)

func (st state) String() string {
	return [...]string{"starting", "available", "unavailable", "leaving", "left", "closed"}[st]
}

var _ backend = (*Store)(nil)

// Start starts this member's part, and returns at once: olric goes on starting,
// and needs [Store.ServeStream] for that. Until it serves every call says
// [ErrUnavailable]; [Store.Ready] waits for it. An error means that the
// configuration is wrong.
func Start(cfg Config) (*Store, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	if cfg.MaxBytes == 0 {
		cfg.MaxBytes = DefaultMaxBytes
	}
	if cfg.clock == nil {
		cfg.clock = newClock()
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	keyring, err := newKeyring(cfg.Secrets)
	if err != nil {
		return nil, err
	}
	s := &Store{
		keyring:  keyring,
		base:     time.Now(),
		cfg:      cfg,
		timings:  cfg.timings.orDefaults(),
		logger:   cfg.Logger,
		clock:    cfg.clock,
		inFlight: make(chan struct{}, maxInFlight),
		ready:    make(chan struct{}),
	}
	s.Map = Map{s}
	s.peers.store = s
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.workers = workers.New(s.spawn, s.ctx.Done())
	watch, stop := context.WithCancel(s.ctx)
	s.watch = stop
	s.watching.Go(func() { s.run(watch) })
	s.watching.Go(func() { s.reapAll(watch) })
	return s, nil
}

// Ready waits until olric has served for the first time.
func (s *Store) Ready(ctx context.Context) error {
	select {
	case <-s.ready:
		return nil
	case <-s.ctx.Done():
		return ErrClosed
	case <-ctx.Done():
		return fmt.Errorf("kv: not ready: %w", ctx.Err())
	}
}

func (s *Store) time() int64 { return s.clock.now() }

// own is this member's own clock, which only goes forward, and evenly.
func (s *Store) own() time.Duration { return time.Since(s.base) }

// current returns the olric that runs here, or nil.
func (s *Store) current() *instance { return s.instance.Load() }

// begin counts a goroutine of the store's, unless it is closed.
func (s *Store) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.goroutines.Add(1)
	return true
}

// spawn starts a goroutine of the store's, unless it is closed.
func (s *Store) spawn(f func()) bool {
	if !s.begin() {
		return false
	}
	go func() {
		defer s.goroutines.Done()
		f()
	}()
	return true
}

// Healthy tells whether the store answers.
func (s *Store) Healthy() bool {
	switch state(s.state.Load()) {
	case stateAvailable, stateLeaving, stateLeft:
		return s.caller.Load() != nil
	default:
		return false
	}
}

// Stats reports on this member's part.
func (s *Store) Stats() Stats {
	st := Stats{
		State:    state(s.state.Load()).String(),
		Restarts: s.restarts.Load(),
		Copied:   s.copied.Load(),
		Failed:   s.failed.Load(),
		InFlight: len(s.inFlight),
		Since:    s.own() - time.Duration(s.changed.Load()),
	}
	if in := s.current(); in != nil {
		names := in.members()
		st.Members = len(names)
		if len(names) > 0 {
			st.Coordinator = names[0]
		}
		st.Entries = in.engine.entries()
		st.Bytes = in.engine.bytes.Load()
		st.EvictedLive = in.engine.evictedLive.Load()
		st.Settled = in.settledTable() != nil
	}
	return st
}

// setState logs each change between available and unavailable once.
func (s *Store) setState(to state) {
	from := state(s.state.Swap(int32(to)))
	if from == to {
		return
	}
	s.changed.Store(int64(s.own()))
	switch to {
	case stateAvailable:
		s.logger.Info("kv available")
		if s.cfg.Available != nil {
			s.cfg.Available()
		}
	case stateUnavailable:
		s.logger.Warn("kv unavailable")
	}
}

// Close stops this member's part at once, without handing over. It may be
// called twice.
func (s *Store) Close() error {
	s.watch()
	s.watching.Wait()
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.setState(stateClosed)
	c := s.caller.Swap(nil)
	if in := s.instance.Swap(nil); in != nil {
		s.stopInstance(in)
	}
	s.cancel()
	if cc, ok := remoteOf(c); ok {
		cc.close()
	}
	s.goroutines.Wait()
	return s.cfg.Gossip.Close()
}

// Kill stops this member's part as a crash would: without a word to the others.
func (s *Store) Kill() error {
	s.watch()
	s.watching.Wait()
	if in := s.current(); in != nil {
		in.kill()
		_ = in.gossip.Shutdown()
	}
	return s.Close()
}

// find looks for the latest entry of a key in what this member holds.
func (g *engine) find(key string) envelope { return g.findHash(hashOf(key)) }

func (g *engine) findHash(hkey uint64) envelope {
	var latest envelope
	for _, s := range g.all() {
		if e := s.get(hkey); e != nil && (latest == nil || latest.version() < e.version()) {
			latest = e
		}
	}
	return latest
}

package kv

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/olric-data/olric"
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

// call runs f, which asks olric, on a goroutine of its own: olric's calls heed
// no context and may wait for a lock.
func call[T any](ctx context.Context, s *Store, f func(c *caller) (T, error)) (T, error) {
	var none T
	c := s.caller.Load()
	if c == nil {
		return none, s.why()
	}
	if err := ctx.Err(); err != nil {
		return none, err
	}
	select {
	case s.inFlight <- struct{}{}:
	default:
		return none, fmt.Errorf("%w: %d calls are waiting already", ErrUnavailable, maxInFlight)
	}
	if !s.begin() {
		<-s.inFlight
		return none, ErrClosed
	}
	type result struct {
		v   T
		err error
	}
	done := make(chan result, 1)
	go func() {
		defer s.goroutines.Done()
		defer func() { <-s.inFlight }()
		defer func() {
			if p := recover(); p != nil {
				done <- result{err: fmt.Errorf("%w: olric panicked: %v", ErrUnavailable, p)}
			}
		}()
		v, err := f(c)
		done <- result{v, err}
	}()
	timer := time.NewTimer(s.timings.call)
	defer timer.Stop()
	select {
	case r := <-done:
		if r.err == nil || errors.Is(r.err, ErrWrongKind) {
			s.lastOK.Store(int64(s.own()))
		}
		return r.v, r.err
	case <-ctx.Done():
		return none, ctx.Err()
	case <-timer.C:
		return none, fmt.Errorf("%w: no answer in %v", ErrUnavailable, s.timings.call)
	}
}

func (s *Store) why() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	return ErrUnavailable
}

// again calls f until it succeeds, at most for four fifths of the time that a
// call has.
// When a member leaves, its keys have no owner that answers for 30 to 60 ms
// (TestLeaveUnderLoad).
func (s *Store) again(ctx context.Context, f func() error) error {
	began := time.Now()
	for pause := 10 * time.Millisecond; ; pause *= 2 {
		err := f()
		if !errors.Is(err, ErrUnavailable) || time.Since(began)+pause > s.timings.call*4/5 || !sleep(ctx, pause) {
			return err
		}
	}
}

func (s *Store) fetch(ctx context.Context, key string) (envelope, error) {
	return call(ctx, s, func(c *caller) (e envelope, err error) {
		err = s.again(ctx, func() error {
			e, err = fetchFrom(c.DMap, key)
			return err
		})
		if err != nil && c.last != nil {
			if e := c.last.find(key); e != nil {
				return e, nil
			}
		}
		return e, err
	})
}

func fetchFrom(dm olric.DMap, key string) (envelope, error) {
	r, err := dm.Get(context.Background(), digest(key))
	if errors.Is(err, olric.ErrKeyNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%w: get: %w", ErrUnavailable, err)
	}
	b, err := r.Byte()
	if err != nil {
		return nil, fmt.Errorf("%w: get: %w", ErrUnavailable, err)
	}
	e, err := parseEnvelope(b)
	if err != nil {
		return nil, fmt.Errorf("%w: get: %w", ErrUnavailable, err)
	}
	return e, nil
}

func (s *Store) store(ctx context.Context, key string, e envelope, sameKind bool) error {
	_, err := call(ctx, s, func(c *caller) (struct{}, error) {
		return struct{}{}, s.again(ctx, func() error { return storeTo(c.DMap, key, e, sameKind) })
	})
	return err
}

func storeTo(dm olric.DMap, key string, e envelope, sameKind bool) error {
	var opts []olric.PutOption
	if sameKind {
		opts = []olric.PutOption{olric.NX()} // see fork.GetTTL
	}
	err := dm.Put(context.Background(), digest(key), []byte(e), opts...)
	if errors.Is(err, olric.ErrKeyFound) {
		return ErrWrongKind
	}
	if err != nil {
		return fmt.Errorf("%w: put: %w", ErrUnavailable, err)
	}
	return nil
}

// GetMany returns what the keys hold, without those that hold nothing. With an
// error it returns what could be had.
func (s *Store) GetMany(ctx context.Context, keys []string) (map[string]Item, error) {
	var mu sync.Mutex // guards found and failed
	found := make(map[string]Item, len(keys))
	var failed error
	next := make(chan string)
	var wg sync.WaitGroup
	const workers = 16
	for range min(workers, len(keys)) {
		wg.Go(func() {
			for key := range next {
				it, ok, err := s.Get(ctx, key)
				mu.Lock()
				if err != nil {
					failed = err
				} else if ok {
					found[key] = it
				}
				mu.Unlock()
			}
		})
	}
	for _, key := range keys {
		next <- key
	}
	close(next)
	wg.Wait()
	return found, failed
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
func (g *engine) find(key string) envelope {
	hkey := hashOf(key)
	var latest envelope
	for _, s := range g.all() {
		if e := s.get(hkey); e != nil && (latest == nil || latest.version() < e.version()) {
			latest = e
		}
	}
	return latest
}
